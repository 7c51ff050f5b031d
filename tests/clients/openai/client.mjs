// The official client of npm against a server: everything that is promised to it. Runs with old and new majors.
// Arguments: base URL, key, what to do.
import assert from 'node:assert/strict';
import OpenAI, * as openai from 'openai';

const [base, key, what, ...rest] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 0 });
const script = (steps) => `/script ${JSON.stringify(steps)}`;
const user = (content) => [{ role: 'user', content }];
const answered = (text) => ({ model: 'echo', messages: user(script({ reasoning: 2, tool: { name: 'bash', input: { command: 'ls' }, output: 'a' }, text })) });
const long = script({ deltas: 200, bytes: 40 });
const longText = Array.from({ length: 200 }, (_, i) => `${String(i).padStart(6, '0')} `.padEnd(40, 'x')).join('');

const raised = async (promise, kind, fields) => {
  const error = await promise.then(() => assert.fail('nothing was raised'), (error) => error);
  assert.ok(error instanceof kind, `${error.constructor.name}: ${error}`);
  for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, `${name} of ${error}`);
};

const everything = {
  async completions() {
    const answer = await client.chat.completions.create(answered('it is "ä\n" done'));
    assert.equal(answer.choices[0].message.content, 'it is "ä\n" done');
    assert.equal(answer.choices[0].finish_reason, 'stop');
    assert.equal(answer.choices[0].message.tool_calls, undefined);
    assert.ok(answer.usage.completion_tokens > 0);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);

    const stream = await client.chat.completions.create({ model: 'echo', messages: user(long), stream: true, stream_options: { include_usage: true } });
    let text = '', usage, reason;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      reason = chunk.choices[0]?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, longText);
    assert.equal(reason, 'stop');
    assert.equal(usage.completion_tokens, 200);

    const helper = (client.chat.completions.stream ?? client.beta.chat.completions.stream).bind(client.chat.completions.stream ? client.chat.completions : client.beta.chat.completions);
    assert.equal(await helper(answered('helped')).finalContent(), 'helped');
  },
  async responses() {
    const answer = await client.responses.create({ model: 'echo', input: script({ reasoning: 1, text: 'hello' }), instructions: 'be kind' });
    assert.equal(answer.output_text, 'hello');
    assert.equal(answer.status, 'completed');
    assert.deepEqual(answer.output.map((item) => item.type), ['reasoning', 'message']);
    assert.equal(answer.usage.output_tokens, 2);

    let text = '', kinds = [], numbers = [], last;
    for await (const event of await client.responses.create({ model: 'echo', input: long, stream: true })) {
      kinds.push(event.type);
      numbers.push(event.sequence_number);
      if (event.type === 'response.output_text.delta') text += event.delta;
      last = event;
    }
    assert.equal(text, longText);
    assert.deepEqual(numbers, numbers.map((_, at) => at));
    assert.deepEqual(kinds.slice(0, 4), ['response.created', 'response.in_progress', 'response.output_item.added', 'response.content_part.added']);
    assert.deepEqual(kinds.slice(-4), ['response.output_text.done', 'response.content_part.done', 'response.output_item.done', 'response.completed']);
    assert.equal(last.response.output[0].content[0].text, longText);
    // The client's own bookkeeping accepts every event.
    const final = await client.responses.stream({ model: 'echo', input: script({ reasoning: 2, text: 'kept track' }) }).finalResponse();
    assert.equal(final.output.at(-1).content[0].text, 'kept track');
  },
  async going_on() {
    const first = await client.responses.create({ model: 'echo', input: 'one', store: true });
    const second = await client.responses.create({ model: 'echo', input: 'two', previous_response_id: first.id });
    assert.deepEqual([first.output_text, second.output_text], ['one', 'two']);
    assert.equal(second.previous_response_id, first.id);
    assert.equal(second.conversation.id, first.conversation.id);
    const again = await client.responses.retrieve(first.id);
    assert.deepEqual([again.output[0].content[0].text, again.status, again.id], ['one', 'completed', first.id]);
    await raised(client.responses.create({ model: 'echo', input: 'x', previous_response_id: first.id }), openai.ConflictError, { code: 'previous_response_not_last' });
    await raised(client.responses.create({ model: 'echo', input: 'x', previous_response_id: 'resp_none' }), openai.BadRequestError, { code: 'previous_response_not_found', param: 'previous_response_id' });
    const third = await client.responses.create({ model: 'echo', input: [{ role: 'user', content: 'three' }], conversation: first.conversation.id });
    assert.equal(third.output_text, 'three');
    const behind = await client.responses.create({ model: 'echo', input: script({ hang: true }), store: true, background: true });
    const stopped = await client.responses.cancel(behind.id);
    assert.ok(['in_progress', 'queued', 'cancelled'].includes(stopped.status), stopped.status);
    while ((await client.responses.retrieve(behind.id)).status !== 'cancelled') await new Promise((go) => setTimeout(go, 20));
    await raised(client.responses.retrieve('resp_none'), openai.NotFoundError, { code: 'response_not_found' });
    console.log(first.conversation.id);
  },
  async errors() {
    await raised(client.chat.completions.create({ model: 'gpt-none', messages: user('x') }), openai.NotFoundError, { code: 'model_not_found', param: 'model', status: 404 });
    await raised(client.chat.completions.create({ model: 'echo', messages: user('x'), n: 2 }), openai.BadRequestError, { code: 'unsupported_parameter', param: 'n' });
    const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];
    await raised(client.chat.completions.create({ model: 'echo', messages: user('x'), tools }), openai.BadRequestError, { param: 'tools' });
    const image = [{ type: 'image_url', image_url: { url: 'http://127.0.0.1:1/x.png' } }];
    await raised(client.chat.completions.create({ model: 'echo', messages: user(image) }), openai.BadRequestError, { param: 'messages[0].content[0].image_url' });
    await raised(client.chat.completions.create({ model: 'echo', messages: user('  ') }), openai.BadRequestError, { code: 'missing_text', param: 'messages' });
    const failing = { model: 'echo', messages: user(script({ text: 'so far', fail: 'no luck' })) };
    await raised(client.chat.completions.create(failing), openai.InternalServerError, { status: 502, code: 'agent_error' });
    await raised((async () => {
      for await (const _ of await client.chat.completions.create({ ...failing, stream: true }));
    })(), openai.APIError, { code: 'agent_error' });
    await raised(client.responses.create({ model: 'echo', input: failing.messages[0].content }), openai.InternalServerError, { code: 'agent_error' });
    let last;
    for await (const event of await client.responses.create({ model: 'echo', input: failing.messages[0].content, stream: true })) last = event;
    assert.deepEqual([last.type, last.response.error.code, last.response.error.message], ['response.failed', 'agent_error', 'no luck']);
    // What has run is not run again by a client that tries again by itself.
    const stubborn = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 2 });
    await raised(stubborn.chat.completions.create({ ...failing, user: 'retries' }), openai.InternalServerError, { status: 502 });
    const turns = await (await fetch(`${base}/v1/sessions/retries/turns`, { headers: { authorization: `Bearer ${key}` } })).json();
    assert.equal(turns.data.length, 1);
  },
  async unauthorized() {
    await raised(client.models.list(), openai.AuthenticationError, { status: 401, code: 'invalid_credentials' });
    await raised(client.chat.completions.create({ model: 'echo', messages: user('x') }), openai.AuthenticationError, { status: 401 });
  },
  async limited() {
    await raised(client.chat.completions.create({ model: 'echo', messages: user('x'), user: rest[0] }), openai.RateLimitError, { status: 429, code: 'queue_full' });
  },
  async models() {
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    assert.ok(models.includes('echo'), String(models));
    assert.equal((await client.models.retrieve('echo')).id, 'echo');
    await raised(client.models.retrieve('echo/none'), openai.NotFoundError, { code: 'model_not_found' });
  },
  async image() {
    const png = 'data:image/png;base64,iVBORw0KGgo=';
    const content = [{ type: 'text', text: 'what is it?' }, { type: 'image_url', image_url: { url: png } }];
    await client.chat.completions.create({ model: 'echo', messages: user(content), user: 'images' });
    const items = [{ role: 'user', content: [{ type: 'input_text', text: 'and this?' }, { type: 'input_image', image_url: png, detail: 'auto' }] }];
    await client.responses.create({ model: 'echo', input: items, user: 'images' });
  },
  async session() {
    // A client that sends all that was said each time adds only what is new.
    const said = user('first');
    for (const next of ['second', 'third']) {
      const answer = await client.chat.completions.create({ model: 'echo', messages: [{ role: 'system', content: 'be kind' }, ...said] }, { headers: { 'X-Session-Key': 'web:told' } });
      said.push({ role: 'assistant', content: answer.choices[0].message.content }, { role: 'user', content: next });
    }
    const once = { headers: { 'Idempotency-Key': 'only-once' } };
    const ask = { model: 'echo', messages: user('said once'), user: 'web:once' };
    const [a, b] = await Promise.all([client.chat.completions.create(ask, once), client.chat.completions.create(ask, once)]);
    assert.equal(a.id, b.id);
  },
  async many() {
    const answers = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
      const stream = await client.chat.completions.create({ model: 'echo', messages: user(script({ deltas: 20, bytes: 7, delay_ms: 2, text: `end ${i}` })), stream: true, ...(i % 2 ? { user: `many:${i}` } : {}) });
      let text = '';
      for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
      return text;
    }));
    answers.forEach((text, i) => assert.ok(text.endsWith(`end ${i}`) && text.length === 20 * 7 + `end ${i}`.length, text));
  },
  async cut() {
    const slow = script({ deltas: 60, delay_ms: 20, text: 'the end' });
    const stream = await client.chat.completions.create({ model: 'echo', messages: user(slow), stream: true }, { headers: rest[0] ? { 'X-Session-Key': rest[0] } : {} });
    for await (const chunk of stream) if (chunk.choices[0]?.delta?.content) break;
  },
};

await everything[what]();
