// A scripted ACP agent for tests; not part of the product.
//
// What it is comes from the environment variable FAKE (a JSON object, see `setup` below), what it does from the last
// text block of each prompt: a JSON array of steps, or else it echoes the text. Every message that it gets is appended
// to the file FAKE_LOG, one JSON object a line, so that a test can see what was sent.
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

// agent: name in agentInfo · version: protocol version · capabilities: agentCapabilities · session: more fields for
// the result of new and load · load: updates to replay, "refuse", "die" or "hang" · refuse: method → error ·
// hang: methods that are never answered · ignore_term, ignore_eof · die_once: a file that the first process makes
// before it dies, and whose existence lets the next one live
const setup = JSON.parse(process.env.FAKE ?? '{}');
// A question for the version is no start.
if (process.argv.includes('--version')) {
  console.log('1.2.3');
  process.exit(0);
}
if (setup.die_once && !existsSync(setup.die_once)) {
  writeFileSync(setup.die_once, '');
  process.exit(3);
}
if (setup.ignore_term) process.on('SIGTERM', () => {});

const log = (message) => process.env.FAKE_LOG && appendFileSync(process.env.FAKE_LOG, `${JSON.stringify(message)}\n`);
const write = (text) => new Promise((done) => process.stdout.write(text, done));
const send = (message) => write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const update = (update) => send({ method: 'session/update', params: { sessionId, update } });
const chunk = (kind, text) => update({ sessionUpdate: kind, content: { type: 'text', text } });
const say = (text) => chunk('agent_message_chunk', text);

let sessionId = 'fake-1';
let cancelled = false;
let onCancel = () => {};
let asked = 0;
const answers = new Map();

function request(method, params, id = asked++) {
  const answer = new Promise((done) => answers.set(JSON.stringify(id), done));
  // The id comes last, as one real agent does it.
  send({ method, params, id });
  return answer;
}

const cancel = () => new Promise((done) => (cancelled ? done() : (onCancel = done)));
const forever = () => new Promise(() => {});

const steps = {
  say,
  think: (text) => chunk('agent_thought_chunk', text),
  update,
  raw: write,
  notify: (message) => send(message),
  env: () => say(JSON.stringify(process.env)),
  // A line of so many bytes.
  long: (bytes) => write(`${'x'.repeat(bytes)}\n`),
  async flood(count) {
    for (let i = 0; i < count; i += 1) await say(`${i} `);
  },
  // Asks for permission and says the outcome.
  async ask({ id, ...params }) {
    const { result } = await request('session/request_permission', { sessionId, ...params }, id);
    if (!cancelled) await say(JSON.stringify(result.outcome));
  },
  // Asks for anything and says the answer.
  async request({ id, method, params }) {
    const { result, error } = await request(method, params, id);
    await say(JSON.stringify(result ?? error));
  },
  until_cancelled: cancel,
  // As above, but it does not care.
  hang: forever,
  // Says nothing for so many milliseconds.
  pause: (milliseconds) => new Promise((done) => setTimeout(done, milliseconds)),
  // Starts a grandchild that ignores SIGTERM, and says its pid.
  fork({ detached }) {
    const child = spawn('sh', ['-c', 'trap "" TERM; echo; while :; do sleep 1; done'], {
      detached, stdio: ['ignore', 'pipe', 'ignore'],
    });
    return new Promise((ready) => child.stdout.once('data', () => say(`${child.pid}`).then(ready)));
  },
  exit({ code, stderr = '' }) {
    process.stderr.write(stderr, () => process.exit(code));
    return forever();
  },
};

async function prompt(blocks) {
  const text = blocks.filter((block) => block.type === 'text').at(-1)?.text ?? '';
  let script;
  try {
    script = JSON.parse(text);
  } catch {
    await say(`echo: ${text}`);
    return { result: { stopReason: 'end_turn' } };
  }
  cancelled = false;
  let result = { stopReason: 'end_turn' };
  for (const step of script) {
    const [[name, argument]] = Object.entries(step);
    if (name === 'error') return { error: argument };
    if (name === 'result') result = { ...result, ...argument };
    else await steps[name](argument);
  }
  return { result: cancelled ? { ...result, stopReason: 'cancelled' } : result };
}

async function load({ sessionId: id }) {
  if (setup.load === 'die') process.exit(9);
  if (setup.load === 'hang') await forever();
  if (!Array.isArray(setup.load)) return { error: { code: -32002, message: 'Resource not found' } };
  sessionId = id;
  for (const old of setup.load) await update(old);
  return { result: { ...setup.session } };
}

const methods = {
  initialize: () => ({
    result: {
      protocolVersion: setup.version ?? 1,
      agentInfo: { name: setup.agent ?? 'fake', version: '1.0.0' },
      agentCapabilities: setup.capabilities ?? {},
    },
  }),
  'session/new': () => ({ result: { sessionId, ...setup.session } }),
  'session/load': load,
  'session/prompt': ({ prompt: blocks }) => prompt(blocks),
  'session/set_mode': () => ({ result: {} }),
  'session/set_model': () => ({ result: {} }),
  'session/set_config_option': ({ configId, value }) => {
    const option = setup.session.configOptions.find(({ id }) => id === configId);
    option.currentValue = value;
    return { result: { configOptions: setup.session.configOptions } };
  },
};

const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const message = JSON.parse(line);
  log(message);
  if (message.method === undefined) {
    answers.get(JSON.stringify(message.id))?.(message);
  } else if (message.method === 'session/cancel') {
    cancelled = true;
    onCancel();
  } else if (setup.refuse?.[message.method]) {
    send({ id: message.id, error: setup.refuse[message.method] });
  } else if (!setup.hang?.includes(message.method)) {
    send({ ...(await methods[message.method](message.params)), id: message.id });
  }
});
lines.on('close', () => setup.ignore_eof || process.exit(0));
// Keeps it alive after stdin was closed.
if (setup.ignore_eof) setInterval(() => {}, 1000);
