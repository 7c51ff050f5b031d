// A scripted Claude Code over stream-json, for faults that the real one does not show on demand.
//
// It is set up by the JSON in FAKE; each prompt is a list of steps to do, in order. What it is sent is written to
// FAKE_LOG, one JSON object a line. Its arguments are the first line there.
import { appendFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

// signs: false says nothing of the lines' course, as old versions · resume: "refuse", "die" or "hang" · ready: false
// never answers initialize · initialize: more fields of its answer · refuse: subtype → error · deaf: ignores interrupts ·
// ignore_term, ignore_eof
const setup = JSON.parse(process.env.FAKE ?? '{}');
if (setup.ignore_term) process.on('SIGTERM', () => {});

const log = (message) => appendFileSync(process.env.FAKE_LOG, `${JSON.stringify(message)}\n`);
const write = (text) => new Promise((done) => process.stdout.write(text, done));
const send = (message) => write(`${JSON.stringify(message)}\n`);
const args = process.argv.slice(2);
log({ args });

const option = (name) => args.find((arg) => arg.startsWith(`--${name}=`))?.split('=')[1];
let session = option('resume') ?? option('session-id');
const waiting = [];
let running = null;
let messages = 0;
let asked = 0;
const answers = new Map();

const lifecycle = (uuid, state) => (setup.signs === false ? null : send({ type: 'command_lifecycle', command_uuid: uuid, state }));
const event = (event) => send({ type: 'stream_event', event, parent_tool_use_id: null, session_id: session });
const forever = () => new Promise(() => {});
const interrupted = () => new Promise((done) => (running.stopped ? done() : (running.onStop = done)));

const steps = {
  // In pieces, as a message of its own, and whole after them.
  async say(text) {
    const id = `msg_${(messages += 1)}`;
    await event({ type: 'message_start', message: { id, model: 'fake', usage: { input_tokens: 10, output_tokens: 1 } } });
    await event({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } });
    for (const piece of text.split(/(?<= )/)) {
      await event({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: piece } });
    }
    await send({ type: 'assistant', parent_tool_use_id: null, message: { id, content: [{ type: 'text', text }] } });
    await event({ type: 'message_delta', delta: {}, usage: { output_tokens: 2 } });
  },
  told: send,
  raw: write,
  // A line of so many bytes.
  long: (bytes) => write(`${'x'.repeat(bytes)}\n`),
  async flood(count) {
    await event({ type: 'message_start', message: { id: 'flood' } });
    await event({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } });
    for (let i = 0; i < count; i += 1) {
      await event({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: `${i} ` } });
    }
  },
  // Asks for anything and says the answer.
  async ask(request) {
    const id = `ask-${(asked += 1)}`;
    const answer = new Promise((done) => answers.set(id, done));
    await send({ type: 'control_request', request_id: id, request: { subtype: 'can_use_tool', ...request } });
    const response = await Promise.race([answer, interrupted()]);
    if (response) await steps.say(JSON.stringify(response));
    else await send({ type: 'control_cancel_request', request_id: id });
  },
  withdraw: () => send({ type: 'control_cancel_request', request_id: `ask-${asked}` }),
  async until_steered() {
    while (!waiting.length) await new Promise((done) => (running.onLine = done));
    const next = waiting.shift();
    await lifecycle(next.uuid, 'started');
    running.uuids.push(next.uuid);
    await steps.say(`steered: ${next.text}`);
  },
  until_interrupted: interrupted,
  hang: forever,
  exit({ code, stderr = '' }) {
    process.stderr.write(stderr, () => process.exit(code));
    return forever();
  },
};

async function turn({ uuid, text }) {
  running = { uuids: [uuid], stopped: false };
  await lifecycle(uuid, 'started');
  let script;
  try {
    script = JSON.parse(text);
  } catch {
    script = [{ say: `echo: ${text}` }];
  }
  let result = { is_error: false, subtype: 'success', stop_reason: 'end_turn', terminal_reason: 'completed', result: 'whole' };
  for (const step of script) {
    const [[name, argument]] = Object.entries(step);
    if (name === 'late') continue;
    if (name === 'result') result = argument && { ...result, ...argument };
    else await steps[name](argument);
  }
  if (running.stopped) result = { is_error: true, subtype: 'error_during_execution', terminal_reason: 'aborted_streaming' };
  const lines = setup.signs === false ? {} : { user_message_uuids: running.uuids };
  if (result) await send({ ...result, ...lines, session_id: result.session_id ?? session, type: 'result' });
  session = result?.session_id ?? session;
  await lifecycle(uuid, running.stopped ? 'cancelled' : 'completed');
  // What it does after the turn.
  for (const { late } of script.filter((step) => step.late)) await send(late);
  running = null;
  next();
}

function next() {
  if (!running && waiting.length) turn(waiting.shift());
}

const controls = {
  initialize: () => ({ commands: [{ name: 'cost' }], models: [], current_permission_mode: 'default', ...setup.initialize }),
  set_model: ({ model }) => ({ model: model ?? 'fake' }),
  set_permission_mode: ({ mode }) => ({ mode }),
  async interrupt() {
    if (setup.deaf) return {};
    for (const line of waiting.splice(0)) await lifecycle(line.uuid, 'cancelled');
    if (running) {
      running.stopped = true;
      running.onStop?.();
    }
    return { still_queued: [] };
  },
};

async function control({ request_id, request }) {
  if (request.subtype === 'initialize' && option('resume')) {
    if (setup.resume === 'die') process.exit(9);
    if (setup.resume === 'hang') return;
    if (setup.resume === 'refuse') {
      const errors = [`No conversation found with session ID: ${session}`];
      await send({ type: 'result', subtype: 'error_during_execution', is_error: true, errors });
      process.exit(1);
    }
  }
  if (request.subtype === 'initialize' && setup.ready === false) return;
  const error = setup.refuse?.[request.subtype === 'set_permission_mode' ? request.mode : request.subtype];
  const outcome = error ? { subtype: 'error', error } : { subtype: 'success', response: await controls[request.subtype](request) };
  await send({ type: 'control_response', response: { request_id, ...outcome } });
}

const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const message = JSON.parse(line);
  log(message);
  if (message.type === 'control_request') return control(message);
  if (message.type === 'control_response') return answers.get(message.response.request_id)?.(message.response.response);
  const content = message.message.content;
  waiting.push({ uuid: message.uuid, text: content.at(-1).text });
  await lifecycle(message.uuid, 'queued');
  running?.onLine?.();
  next();
});
lines.on('close', () => setup.ignore_eof || process.exit(0));
// Keeps it alive after stdin was closed.
if (setup.ignore_eof) setInterval(() => {}, 1000);
