// Talks to Greenroom with the Vercel AI SDK, as `useChat` does, from the command line:
//
//     npm install ai && node chat.mjs http://127.0.0.1:4910 web:alice "Hello there"
//
// The id of the chat is the key of the session. A connection that is lost cancels nothing: the turn goes on at the server,
// and the resumed stream tells it from its start.
import { DefaultChatTransport, readUIMessageStream } from 'ai'

const [base = 'http://127.0.0.1:4910', chatId = 'web:alice', text = 'Hello there'] = process.argv.slice(2)
const token = process.env.GREENROOM_TOKEN
const transport = new DefaultChatTransport({
  api: `${base}/v1/chat`,
  headers: token ? { authorization: `Bearer ${token}` } : {},
  // `turn=last`: also where the turn has ended meanwhile. Without it there is nothing to resume then.
  prepareReconnectToStreamRequest: ({ api, id }) => ({ api: `${api}/${encodeURIComponent(id)}/stream?turn=last` }),
})

const question = { id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text }] }
let stream = await transport.sendMessages({ chatId, messages: [question], trigger: 'submit-message' })
for (;;) {
  try {
    let answer
    for await (const message of readUIMessageStream({ stream, terminateOnError: true })) answer = message
    for (const part of answer?.parts ?? []) {
      if (part.type === 'text') console.log(part.text)
      if (part.type === 'dynamic-tool') console.log(`[${part.toolName}: ${part.state}]`)
    }
    break
  } catch (error) {
    // A lost connection is a TypeError; anything else is what the agent reports.
    if (!(error instanceof TypeError)) throw error
    stream = await transport.reconnectToStream({ chatId })
    if (stream === null) throw error
  }
}
