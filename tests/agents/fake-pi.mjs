// A scripted pi for tests; not part of the product. It answers the commands of the RPC mode that an adapter uses; each
// prompt is a JSON array of steps. FAKE_PI (a JSON object) says what it is: `model` null for one without credentials,
// `die` to end at once when it is started with arguments that contain one of these words.
import { appendFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const setup = JSON.parse(process.env.FAKE_PI ?? '{}');
appendFileSync('starts', `${process.argv.slice(2).join(' ')}\n`);
for (const word of setup.die ?? []) {
  if (process.argv.some((argument) => argument.includes(word))) {
    process.stderr.write(`no ${word}\n`);
    process.exit(1);
  }
}
const model = setup.model === null ? null
  : { id: 'm', name: 'M', provider: 'fake', reasoning: true, input: ['text'], contextWindow: 1000 };
let streaming = false;
const waiting = new Map();

const write = (text) => new Promise((done) => process.stdout.write(text, done));
const send = (message) => write(`${JSON.stringify(message)}\n`);
const message = (stopReason, errorMessage) => ({ role: 'assistant', content: [], stopReason, errorMessage });

const steps = {
  raw: write,
  send,
  say: (delta) => send({ type: 'message_update', assistantMessageEvent: { type: 'text_delta', contentIndex: 0, delta } }),
  // Puts a dialog and says the answer.
  async ask(request) {
    const answer = new Promise((done) => waiting.set(request.id, done));
    await send({ type: 'extension_ui_request', ...request });
    await steps.say(JSON.stringify(await answer));
  },
  exit({ code, stderr }) {
    process.stderr.write(stderr, () => process.exit(code));
    return new Promise(() => {});
  },
};

async function run(script) {
  streaming = true;
  await send({ type: 'agent_start' });
  for (const step of script) {
    const [[name, argument]] = Object.entries(step);
    await steps[name](argument);
  }
  await send({ type: 'message_end', message: message('stop') });
  await send({ type: 'agent_end', messages: [] });
  // It is not done when it says so.
  setTimeout(() => { streaming = false; }, 50);
}

const commands = {
  get_state: () => ({
    model: model ?? { id: 'unknown', provider: 'unknown' }, thinkingLevel: 'off', isStreaming: streaming,
    isCompacting: false, messageCount: 0, pendingMessageCount: 0,
  }),
  get_available_models: () => ({ models: model ? [model] : [] }),
  get_commands: () => ({ commands: [{ name: 'fix', source: 'prompt' }] }),
};

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, type, message: text, ...rest } = JSON.parse(line);
  if (type === 'extension_ui_response') return waiting.get(id)({ id, ...rest });
  const answer = { id, type: 'response', command: type, success: true };
  if (type !== 'prompt') return send({ ...answer, data: commands[type]?.() });
  if (text === '/refused') return send({ ...answer, success: false, error: 'not now' });
  send(answer);
  // A command of an extension begins no run. What stands before the last line is the conversation so far.
  if (!text.startsWith('/')) run(JSON.parse(text.split('\n').at(-1)));
}).on('close', () => process.exit(0));
