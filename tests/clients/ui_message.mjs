// The packages `ai` of all majors against Greenroom: DefaultChatTransport and readUIMessageStream, as they come from npm.
// Usage: node ui_message.mjs URL MAJOR. Prints what it has shown; fails at the first thing that is not so.
import assert from 'node:assert/strict'
import { DefaultChatTransport, readUIMessageStream } from 'ai'

const [base, version] = process.argv.slice(2)
const major = Number(version.split('.')[0])
let chats = 0

/** A chat of its own. */
function chat(options = {}) {
  const id = `ui:${version}:${process.pid}:${++chats}`
  const transport = new DefaultChatTransport({ api: `${base}/v1/chat`, ...options })
  const messages = []
  const post = (more) => transport.sendMessages({ chatId: id, messages, trigger: 'submit-message', ...more })
  return {
    id,
    transport,
    messages,
    post,
    say: (text, more = {}) => {
      const parts = [{ type: 'text', text }, ...(more.files ?? [])]
      messages.push({ id: `${id}:${messages.length}`, role: 'user', parts })
      return post(more)
    },
    resume: () => transport.reconnectToStream({ chatId: id }),
  }
}

const script = (steps) => `/script ${JSON.stringify(steps)}`
const named = (major) => ({ headers: { 'x-ai-sdk-version': String(major) } })

/** Reads a stream to its end: the last form of the message, the chunks, and what was reported as an error. */
async function read(stream, message) {
  const chunks = []
  const errors = []
  const seen = stream.pipeThrough(new TransformStream({
    transform(chunk, controller) {
      // A data part becomes a part of the message and is changed there.
      chunks.push(structuredClone(chunk))
      controller.enqueue(chunk)
    },
  }))
  let last
  for await (const form of readUIMessageStream({ stream: seen, message, onError: (error) => errors.push(error) })) {
    last = form
  }
  return { message: last, chunks, errors, types: chunks.map((chunk) => chunk.type) }
}

const textOf = (message) => message.parts.filter((part) => part.type === 'text').map((part) => part.text).join('')
const tools = (message) => message.parts.filter((part) => part.type === 'dynamic-tool')

async function call(method, path, body) {
  const headers = body === undefined ? {} : { 'content-type': 'application/json' }
  const answer = await fetch(base + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`)
  return answer.status === 204 ? null : answer.json()
}

const session = (id, rest = '') => `/v1/sessions/${encodeURIComponent(id)}${rest}`
const deltas = (count, width = 20) =>
  Array.from({ length: count }, (_, i) => `${String(i).padStart(6, '0')} `.padEnd(width, 'x')).join('')

/** Waits until the session has a question. */
async function asked(id) {
  for (;;) {
    // The session itself is there a moment after the call that makes it was begun.
    const { data } = await (await fetch(base + session(id, '/choices'))).json()
    if (data?.length > 0) return data[0]
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const scenarios = {
  async 'text, and only of this message'() {
    const one = chat()
    const first = await read(await one.say('Grüße, "you"\\ 👋 there'))
    assert.equal(textOf(first.message), 'Grüße, "you"\\ 👋 there')
    one.messages.push(first.message)
    const second = await read(await one.say('second question'))
    assert.equal(textOf(second.message), 'second question')
    assert.deepEqual(second.errors, [])
    const { data } = await call('GET', session(one.id, '/messages?order=asc'))
    assert.deepEqual(data.map((message) => message.role), ['user', 'assistant', 'user', 'assistant'])
    assert.deepEqual([data[1].id, data[3].id], [first.message.id, second.message.id])
    assert.deepEqual([data[0].client_id, data[2].client_id], [one.messages[0].id, one.messages[2].id])
    assert.equal(second.types.at(-1), 'finish')
  },

  async 'reasoning, tools, and a tool that fails'() {
    const steps = { reasoning: 2, tool: { name: 'bash', input: { command: 'ls' }, output: 'a b' }, deltas: 3 }
    const one = await read(await chat().say(script(steps)))
    assert.equal(one.message.parts.find((part) => part.type === 'reasoning').text, 'thought 0 thought 1 ')
    assert.equal(textOf(one.message), deltas(3))
    const [tool] = tools(one.message)
    assert.deepEqual([tool.toolName, tool.state, tool.input, tool.output], ['bash', 'output-available', { command: 'ls' }, 'a b'])
    assert.equal(one.message.parts.filter((part) => part.type === 'step-start').length, 2)
    steps.tool = { ...steps.tool, is_error: true, output: 'no such file' }
    const [failed] = tools((await read(await chat().say(script(steps)))).message)
    assert.deepEqual([failed.state, failed.errorText], ['output-error', 'no such file'])
  },

  async 'a failed turn is an error'() {
    const one = await read(await chat().say(script({ text: 'half', fail: 'no luck' })))
    assert.deepEqual(one.errors.map((error) => error.message), ['no luck'])
    assert.equal(textOf(one.message), 'half')
    assert.ok(!one.types.includes('finish'))
    await assert.rejects(chat().say(' '), /missing_text/)
  },

  async 'stopping'() {
    const one = chat()
    const stream = await one.say(script({ text: 'so far', hang: true }))
    const reader = stream.getReader()
    const types = []
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      types.push(value.type)
      if (value.type === 'text-delta') assert.equal((await call('POST', session(one.id, '/abort'), {})).ok, true)
    }
    assert.deepEqual(types.slice(-3), ['text-end', 'finish-step', 'abort'])
  },

  async 'files go in'() {
    const one = chat()
    const file = { type: 'file', mediaType: 'text/plain', filename: 'a.txt', url: 'data:text/plain;base64,aGVsbG8=' }
    await read(await one.say('with a file', { files: [file] }))
    const { data } = await call('GET', session(one.id, '/messages?order=asc'))
    const told = data[0].parts.find((part) => part.type === 'file')
    assert.deepEqual([told.name, told.media_type, told.bytes], ['a.txt', 'text/plain', 5])
  },

  async 'another answer is a new turn with the same text'() {
    const one = chat()
    await read(await one.say('again please'))
    const again = await read(await one.post({ trigger: 'regenerate-message', messageId: 'whatever' }))
    assert.equal(textOf(again.message), 'again please')
    const { data } = await call('GET', session(one.id, '/turns'))
    assert.equal(data.length, 2)
  },

  async 'a question as data, answered by our own call'() {
    for (const [ask, answer] of [['permission', { allow: true }], ['question', { answers: { answer: 'this' } }]]) {
      const one = chat()
      const reading = one.say(script({ ask, text: 'done' })).then((stream) => read(stream))
      const choice = await asked(one.id)
      await call('POST', session(one.id, `/choices/${choice.id}`), answer)
      const { message, chunks } = await reading
      assert.match(textOf(message), /done$/)
      const part = message.parts.find((part) => part.type === 'data-choice')
      assert.deepEqual([part.id, part.data.choice.kind, part.data.source], [choice.id, ask, 'api'])
      assert.equal(chunks.find((chunk) => chunk.type === 'data-choice').data.outcome, null)
    }
  },

  async 'an approval, answered as the protocol does'() {
    if (major < 6) return
    for (const [approved, outcome, state] of [[true, /^permission: allow /, 'output-available'], [false, /^permission: reject /, 'output-denied']]) {
      const one = chat(named(major))
      const first = await read(await one.say(script({ ask: 'permission', text: 'done' })))
      const [tool] = tools(first.message)
      assert.equal(tool.state, 'approval-requested')
      assert.deepEqual(first.types.slice(-2), ['finish-step', 'finish'])
      tool.state = 'approval-responded'
      tool.approval = { ...tool.approval, approved }
      one.messages.push(first.message)
      const answer = await read(await one.post({ messageId: first.message.id }), structuredClone(first.message))
      assert.equal(answer.message.id, first.message.id)
      assert.match(textOf(answer.message), outcome)
      assert.equal(tools(answer.message)[0].state, state)
      // The same answer once more, as after a lost connection, shows the same.
      const again = await read(await one.post({ messageId: first.message.id }), structuredClone(first.message))
      assert.deepEqual(again.message.parts, answer.message.parts)
    }
  },

  async 'a finish reason where the version is named'() {
    if (version === '5.0.0') return
    const one = await read(await chat(named(version)).say('hi'))
    assert.equal(one.chunks.at(-1).finishReason, 'stop')
  },

  async 'a text for the running turn'() {
    const one = chat(major >= 7 ? named(7) : {})
    const stream = await one.say(script({ deltas: 100, delay_ms: 20 }))
    const [watched, whole] = stream.tee()
    const reading = read(whole)
    const reader = watched.getReader()
    while ((await reader.read()).value.type !== 'text-delta');
    const other = chat()
    other.messages.push({ id: 's', role: 'user', parts: [{ type: 'text', text: 'look there' }] })
    const own = await read(await other.transport.sendMessages({
      chatId: one.id, messages: other.messages, trigger: 'submit-message', body: { policy: 'steer' },
    }))
    const { message } = await reading
    const steer = message.parts.find((part) => part.type === (major >= 7 ? 'steering-message' : 'data-steer'))
    assert.equal(major >= 7 ? steer.parts[0].text : steer.data.text, 'look there')
    assert.ok(textOf(message).includes('steered: look there'))
    // Who sent it has what came after it, as a message of its own.
    assert.ok(textOf(own.message).startsWith('steered: look there') && textOf(message).endsWith(textOf(own.message)))
    assert.notEqual(own.message.id, message.id)
  },

  async 'nothing to resume'() {
    const one = chat()
    assert.equal(await one.resume(), null)
    await read(await one.say('hi'))
    assert.equal(await one.resume(), null)
  },

  async 'a client that left before its turn began finds it again'() {
    const one = chat()
    await call('POST', session(one.id, '/messages'), { text: script({ deltas: 30, delay_ms: 20 }) })
    const stop = new AbortController()
    await (await one.say('mine', { abortSignal: stop.signal })).cancel()
    stop.abort()
    const first = await read(await one.resume())
    assert.equal(textOf(first.message), deltas(30))
    let next = await one.resume()
    if (next === null) {
      const last = new DefaultChatTransport({
        prepareReconnectToStreamRequest: ({ id }) => ({ api: `${base}/v1/chat/${encodeURIComponent(id)}/stream?turn=last` }),
      })
      next = await last.reconnectToStream({ chatId: one.id })
    }
    assert.equal(textOf((await read(next)).message), 'mine')
  },

  async 'cut at random places, resumed, and exactly the text'() {
    let cuts = 0
    for (let round = 0; cuts < 25; round++) {
      /** The connection is gone after so many bytes; the answer, not the server, ends in the middle. */
      const cutting = async (url, init) => {
        const gone = new AbortController()
        const answer = await fetch(url, { ...init, signal: gone.signal })
        if (answer.body === null) return answer
        let left = 1 + Math.floor(Math.random() * 6000)
        const body = answer.body.pipeThrough(new TransformStream({
          transform(bytes, controller) {
            controller.enqueue(bytes.slice(0, left))
            left -= bytes.length
            if (left <= 0) {
              cuts++
              gone.abort()
              controller.error(new TypeError('network error'))
            }
          },
        }))
        return new Response(body, { status: answer.status, headers: answer.headers })
      }
      const one = chat({
        fetch: cutting,
        prepareReconnectToStreamRequest: ({ api, id }) => ({ api: `${api}/${encodeURIComponent(id)}/stream?turn=last` }),
      })
      const steps = { reasoning: 3, tool: { name: 'bash', input: { a: 1 }, output: 'b' }, deltas: 60, delay_ms: 4 }
      let stream = await one.say(script(steps))
      let result
      for (;;) {
        result = await read(stream)
        if (result.errors.length === 0) break
        stream = await one.resume()
      }
      assert.equal(textOf(result.message), deltas(60))
      assert.equal(result.message.parts.find((part) => part.type === 'reasoning').text, 'thought 0 thought 1 thought 2 ')
      assert.deepEqual(tools(result.message).map((tool) => tool.state), ['output-available'])
      const { data } = await call('GET', session(one.id, '/turns'))
      assert.deepEqual(data.map((turn) => turn.state), ['completed'], 'a cut cancels nothing and sends nothing twice')
    }
  },
}

const only = process.argv[4]
for (const [name, run] of Object.entries(scenarios)) {
  if (only && !name.includes(only)) continue
  try {
    await run()
  } catch (error) {
    console.error(`${version}: ${name}`)
    throw error
  }
  console.log(`ok ${name}`)
}
