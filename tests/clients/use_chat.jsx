// A page with useChat, as an application would have it. What it is to do comes in its address and from `window.page`.
import { useChat } from '@ai-sdk/react'
import * as ai from 'ai'
import { useState } from 'react'
import { createRoot } from 'react-dom/client'

const { api, id, version } = Object.fromEntries(new URLSearchParams(location.search))
const transport = new ai.DefaultChatTransport({
  api: `${api}/v1/chat`,
  headers: { 'x-ai-sdk-version': version },
  prepareReconnectToStreamRequest: ({ api, id, headers }) => ({
    api: `${api}/${encodeURIComponent(id)}/stream?turn=last`,
    headers,
  }),
})

/** The conversation as Greenroom has it, but for what the running turn says: that is resumed. */
async function history() {
  const path = `${api}/v1/sessions/${encodeURIComponent(id)}/messages?order=asc&limit=100`
  const read = () => fetch(path).then((answer) => (answer.status === 404 ? { data: [] } : answer.json()))
  // The network may break here as well.
  const { data } = await read().catch(read).catch(read).catch(read)
  const messages = data.map(({ id, client_id, role, parts }) => ({
    id: client_id ?? id,
    role,
    parts: parts.filter((part) => part.type === 'text').map(({ text }) => ({ type: 'text', text })),
  }))
  while (messages.at(-1)?.role === 'assistant') messages.pop()
  return messages
}

function Chat({ round, messages, resume }) {
  const chat = useChat({
    id,
    transport,
    messages,
    resume,
    sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithApprovalResponses,
  })
  window.page.chat = chat
  const partOf = (part, index) =>
    part.type === 'text' ? <span key={index}>{part.text}</span>
      : part.type === 'dynamic-tool' ? <i key={index} data-id={part.approval?.id}>{part.state}</i> : null
  return (
    <main data-status={chat.status} data-round={round}>
      {chat.messages.map((message) => (
        <p key={message.id} className={message.role}>{message.parts.map(partOf)}</p>
      ))}
    </main>
  )
}

function App({ before, again }) {
  const [{ round, messages, resume }, open] = useState({ round: 0, messages: before, resume: again })
  // A chat of its own, as after a reload.
  window.page.reopen = async () => {
    open({ round: round + 1, messages: await history(), resume: true })
    return round + 1
  }
  return <Chat key={round} round={round} messages={messages} resume={resume} />
}

window.page = {}
const before = await history()
const again = before.length > 0
createRoot(document.getElementById('root')).render(<App before={before} again={again} />)
