// A scripted `codex app-server` for tests; not part of the product. It does what the real one does not do on demand.
//
// What it is comes from the environment variable FAKE (a JSON object, see `setup`), what it does from the first text of
// each turn's input: a JSON array of steps, or else it echoes the text. Every message that it gets is appended to the
// file FAKE_LOG, one JSON object a line.
import { appendFileSync, existsSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

// refuse: method → error · refuse_times: method → how often · hang: methods that are never answered · die: methods
// that end the process, once where `once` names a file · config, account, settings, models: parts of answers ·
// silent_users: user messages are not told with their names · drop_steers: it takes texts and forgets them ·
// terminals: commands that run on · undying: they do so also when they are ended · ignore_term, ignore_eof
const setup = JSON.parse(process.env.FAKE ?? '{}');
if (setup.ignore_term) process.on('SIGTERM', () => {});

const log = (message) => process.env.FAKE_LOG && appendFileSync(process.env.FAKE_LOG, `${JSON.stringify(message)}\n`);
const write = (text) => new Promise((done) => process.stdout.write(text, done));
const send = (message) => write(`${JSON.stringify(message)}\n`);
const forever = () => new Promise(() => {});

const threadId = 'thread-1';
let turns = 0;
let items = 0;
let turn = null;
let last = null;
let asked = 0;
const answers = new Map();

const notify = (method, params) => send({ method, params: { threadId, turnId: (turn ?? last)?.id, ...params } });
const item = (phase, item) => notify(`item/${phase}`, { item });
const user = (clientId, text) => item('completed', {
  type: 'userMessage', id: `u${items++}`, clientId: setup.silent_users ? null : clientId, content: [{ type: 'text', text }],
});

function request(method, params, id = asked++) {
  const answer = new Promise((done) => answers.set(JSON.stringify(id), done));
  send({ method, id, params: { threadId, turnId: turn?.id, ...params } });
  return answer;
}

async function say(text) {
  const id = `m${items++}`;
  await item('started', { type: 'agentMessage', id, text: '' });
  await notify('item/agentMessage/delta', { itemId: id, delta: text });
  await item('completed', { type: 'agentMessage', id, text });
}

const steps = {
  say,
  notify: ([method, params]) => notify(method, params),
  item: ([phase, body]) => item(phase, body),
  raw: write,
  long: (bytes) => write(`${'x'.repeat(bytes)}\n`),
  async flood(count) {
    for (let i = 0; i < count; i += 1) await notify('item/agentMessage/delta', { itemId: 'flood', delta: `${i} ` });
  },
  // Asks for anything and says the answer.
  async ask({ id, method, params }) {
    const { result, error } = await request(method, params, id);
    await say(JSON.stringify(result ?? error));
  },
  // Asks, and takes the question back.
  async ask_and_resolve({ id, method, params }) {
    request(method, params, id);
    await notify('serverRequest/resolved', { requestId: id });
  },
  // Asks, and is interrupted before there is an answer.
  ask_and_wait({ id, method, params }) {
    request(method, params, id);
    return turn.interruption;
  },
  // Until the turn is interrupted or steered.
  until_interrupted: () => turn.interruption,
  until_steered: () => turn.steering,
  hang: forever,
  exit({ code, stderr = '' }) {
    process.stderr.write(stderr, () => process.exit(code));
    return forever();
  },
};

async function run(text) {
  const current = turn;
  await notify('turn/started', { turn: { id: current.id, status: 'inProgress' } });
  await user(current.client, text);
  let end = { status: 'completed', error: null };
  let script = [{ say: `echo: ${text}` }];
  try {
    script = JSON.parse(text);
  } catch { /* not a script */ }
  for (const step of script) {
    const [[name, argument]] = Object.entries(step);
    if (name === 'end') end = argument;
    else await steps[name](argument);
  }
  if (current.interrupted) end = { status: 'interrupted', error: null };
  await notify('turn/completed', { turn: { id: current.id, ...end } });
  last = current;
  if (turn === current) turn = null;
}

const thread = () => ({
  thread: { id: threadId }, model: 'base', modelProvider: 'mock', approvalPolicy: 'untrusted',
  sandbox: { type: 'workspaceWrite' }, ...setup.settings,
});

const methods = {
  initialize: () => ({ userAgent: 'fake' }),
  'config/read': () => ({ config: setup.config ?? {} }),
  'account/read': () => setup.account ?? { account: null, requiresOpenaiAuth: false },
  'thread/start': thread,
  'thread/resume': thread,
  'model/list': ({ cursor }) => (setup.models ?? [{ data: [{ model: 'base', displayName: 'Base' }] }])[cursor ?? 0],
  'collaborationMode/list': () => ({ data: [{ name: 'Plan', mode: 'plan' }, { name: 'Default', mode: 'default' }] }),
  'skills/list': () => ({ data: [{ skills: [{ name: 'tidy', description: 'Tidies up', path: '/s/tidy' }] }] }),
  'thread/settings/update': () => ({}),
  'turn/start': ({ input, clientUserMessageId }) => {
    turn = { id: `turn-${++turns}`, client: clientUserMessageId };
    turn.interruption = new Promise((done) => { turn.interrupt = done; });
    turn.steering = new Promise((done) => { turn.steer = done; });
    const text = input.findLast((part) => part.type === 'text')?.text ?? '';
    setImmediate(() => run(text));
    return { turn: { id: turn.id, status: 'inProgress' } };
  },
  'thread/compact/start': () => {
    methods['turn/start']({ input: [{ type: 'text', text: '[]' }] });
    return {};
  },
  'turn/steer': ({ input, clientUserMessageId }) => {
    setImmediate(async () => {
      if (setup.drop_steers) return;
      await user(clientUserMessageId, input[0].text);
      turn?.steer();
    });
    return { turnId: turn.id };
  },
  'turn/interrupt': () => {
    turn.interrupted = true;
    turn.interrupt();
    turn.steer();
    return {};
  },
  'thread/backgroundTerminals/list': () => ({ data: setup.terminals ?? [] }),
  'thread/backgroundTerminals/terminate': ({ processId }) => {
    const { itemId } = setup.terminals.find((terminal) => terminal.processId === processId);
    setImmediate(() => setup.undying
      || item('completed', { type: 'commandExecution', id: itemId, command: 'sleep', status: 'failed', exitCode: -1 }));
    return { terminated: true };
  },
};

const once = (method) => {
  if (!setup.die?.includes(method)) return false;
  if (setup.once === undefined) return true;
  if (existsSync(setup.once)) return false;
  writeFileSync(setup.once, '');
  return true;
};

const times = setup.refuse_times ?? {};
function refused(method) {
  if (setup.refuse?.[method] === undefined) return false;
  times[method] = (times[method] ?? Infinity) - 1;
  return times[method] >= 0;
}

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const message = JSON.parse(line);
  log(message);
  const { id, method, params } = message;
  if (method === undefined) answers.get(JSON.stringify(id))?.(message);
  else if (id === undefined) return;
  else if (once(method)) process.exit(9);
  else if (refused(method)) {
    send({ id, error: setup.refuse[method] });
  } else if (!setup.hang?.includes(method)) send({ id, result: methods[method](params ?? {}) });
});
lines.on('close', () => setup.ignore_eof || process.exit(0));
if (setup.ignore_eof) setInterval(() => {}, 1000);
