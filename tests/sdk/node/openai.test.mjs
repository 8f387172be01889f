// The official OpenAI SDK for Node, unchanged, against a running platform.
//
// Environment:
//   TENANTRY_BASE_URL               the platform, ending in /api/v1
//   TENANTRY_API_KEY                a key of an organization that is not throttled
//   TENANTRY_FREE_API_KEY           a key of one that has two messages of its quota left
//   TENANTRY_RATE_LIMITED_API_KEY   a key of one on the free plan: 10 requests a minute
//   TENANTRY_CHAT_MODEL             a chat model of the catalogue
//   TENANTRY_EMBEDDING_MODEL        an embedding model of the catalogue
//   UPSTREAM_CONTROL                the mock upstream's control endpoint (GET /state, POST /release)

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

const { env } = process;
const CHAT_MODEL = env.TENANTRY_CHAT_MODEL;
const EMBEDDING_MODEL = env.TENANTRY_EMBEDDING_MODEL;
// An answer that never comes is a failure within seconds, not at the end of the suite's patience.
const TIMEOUT_MS = 20_000;
// More calls than the limits of the free plan let through.
const MANY = 20;

const WEATHER = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'The weather in a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
  },
};

// A client that does not retry, so that every answer is seen.
const client = (apiKey = env.TENANTRY_API_KEY) =>
  new OpenAI({ baseURL: env.TENANTRY_BASE_URL, apiKey, maxRetries: 0, timeout: TIMEOUT_MS });
const user = (content) => [{ role: 'user', content }];
const words = (text) => text.split(/\s+/).length;

async function control(method, path) {
  const response = await fetch(env.UPSTREAM_CONTROL + path, { method, signal: AbortSignal.timeout(TIMEOUT_MS) });
  return response.json();
}

async function refused(kind, status, code, call) {
  let error;
  await assert.rejects(call, (thrown) => {
    error = thrown;
    return true;
  });
  assert.ok(error instanceof kind, `${error}`);
  assert.equal(error.status, status);
  assert.equal(error.code, code);
  assert.match(error.requestID, /^req_/);
  return error;
}

test('models are listed and retrieved', async () => {
  const listed = new Map();
  for await (const model of client().models.list()) listed.set(model.id, model);
  assert.ok(listed.has(CHAT_MODEL) && listed.has(EMBEDDING_MODEL));
  const one = await client().models.retrieve(CHAT_MODEL);
  assert.deepEqual({ ...one }, { ...listed.get(CHAT_MODEL) });
});

test('a chat completion', async () => {
  const answer = await client().chat.completions.create({ model: CHAT_MODEL, messages: user('/words 12 please') });
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.match(answer.choices[0].message.content, /^Hello from upstream/);
  assert.equal(words(answer.choices[0].message.content), 12);
  assert.equal(answer.usage.completion_tokens, 12);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + 12);
  assert.match(answer._request_id, /^req_/);
});

test('a stream passes the first chunk on before upstream has finished', async () => {
  const stream = await client().chat.completions.create({
    model: CHAT_MODEL,
    messages: user('/hold /words 30'),
    stream: true,
  });
  let text = '';
  let chunks = 0;
  let released = false;
  for await (const chunk of stream) {
    assert.equal(chunk.choices.length, 1, 'the usage chunk is for those who ask for it');
    assert.ok(!chunk.usage, 'usage that was not asked for');
    text += chunk.choices[0].delta.content ?? '';
    chunks += 1;
    if (text && !released) {
      const state = await control('GET', '/state');
      assert.equal(state.holding, 1, 'upstream waits in the middle of the answer');
      assert.equal(state.in_flight, 1);
      await control('POST', '/release');
      released = true;
    }
  }
  assert.ok(released);
  assert.ok(chunks > 3);
  assert.equal(words(text), 30);
});

test('a stream with usage', async () => {
  const stream = await client().chat.completions.create({
    model: CHAT_MODEL,
    messages: user('hello'),
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.completion_tokens, 24);
  assert.ok(last.usage.prompt_tokens > 0);
  assert.ok(chunks.every((chunk) => !chunk.usage));
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
});

test('an aborted stream frees the upstream', async () => {
  const stream = await client().chat.completions.create({ model: CHAT_MODEL, messages: user('/hold'), stream: true });
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content) break;
  }
  const deadline = Date.now() + TIMEOUT_MS;
  for (;;) {
    const { holding, in_flight: inFlight } = await control('GET', '/state');
    if (holding === 0 && inFlight === 0) break;
    assert.ok(Date.now() < deadline, 'upstream is still writing to nobody');
  }
});

test('an error in the middle of a stream', async () => {
  const stream = await client().chat.completions.create({
    model: CHAT_MODEL,
    messages: user('/midstream-error'),
    stream: true,
  });
  let text = '';
  await assert.rejects(async () => {
    for await (const chunk of stream) {
      assert.equal(chunk.choices[0].finish_reason ?? null, null, 'a made-up end');
      text += chunk.choices[0].delta.content ?? '';
    }
  }, OpenAI.APIError);
  assert.equal(words(text), 20);
});

test('a tool is called, and its result is taken', async () => {
  const messages = user('What is the weather in Paris?');
  const asked = await client().chat.completions.create({ model: CHAT_MODEL, messages, tools: [WEATHER] });
  const [{ finish_reason: reason, message }] = asked.choices;
  assert.equal(reason, 'tool_calls');
  const [call] = message.tool_calls;
  assert.equal(call.function.name, 'weather');
  assert.equal(JSON.parse(call.function.arguments).city, 'Paris');

  messages.push(message, { role: 'tool', tool_call_id: call.id, content: 'sunny' });
  const told = await client().chat.completions.create({ model: CHAT_MODEL, messages, tools: [WEATHER] });
  assert.match(told.choices[0].message.content, /^Hello from upstream/);
});

test('a tool call is streamed', async () => {
  // The SDK's own accumulator puts the deltas together.
  const runner = client().chat.completions.stream({
    model: CHAT_MODEL,
    messages: user('What is the weather in Paris?'),
    tools: [WEATHER],
  });
  let pieces = 0;
  runner.on('chunk', (chunk) => {
    pieces += chunk.choices[0]?.delta.tool_calls?.length ?? 0;
  });
  const answer = await runner.finalChatCompletion();
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(answer.choices[0].finish_reason, 'tool_calls');
  assert.equal(call.function.name, 'weather');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Paris', unit: 'celsius' });
  assert.ok(pieces > 2);
});

test('embeddings in the encoding the SDK asks for, and as numbers', async () => {
  const base64 = await client().embeddings.create({ model: EMBEDDING_MODEL, input: ['one two', 'three'] });
  assert.deepEqual([...base64.data[1].embedding].slice(0, 2), [0.25, -0.25]);
  assert.equal(base64.usage.prompt_tokens, 3);
  const float = await client().embeddings.create({ model: EMBEDDING_MODEL, input: 'one', encoding_format: 'float' });
  assert.deepEqual(float.data[0].embedding.slice(0, 2), [0.125, -0.125]);
});

test('a bad key', async () => {
  for (const key of ['sk-not-a-key', env.TENANTRY_API_KEY.slice(0, -1)]) {
    await refused(OpenAI.AuthenticationError, 401, 'invalid_api_key', client(key).models.list());
  }
});

test('an unknown model', async () => {
  const call = client().chat.completions.create({ model: 'no-such-model', messages: user('hello') });
  await refused(OpenAI.NotFoundError, 404, 'model_not_found', call);
});

test('an invalid value is refused by its name, and nothing goes upstream', async () => {
  const { requests } = await control('GET', '/state');
  const bodies = { max_tokens: { messages: user('hello'), max_tokens: -1 }, messages: { messages: 'hello' } };
  for (const [param, body] of Object.entries(bodies)) {
    await assert.rejects(client().chat.completions.create({ model: CHAT_MODEL, ...body }), (error) => {
      assert.ok(error.status === 400 || error.status === 422, `${error}`);
      assert.equal(error.param, param);
      return true;
    });
  }
  assert.equal((await control('GET', '/state')).requests, requests);
});

async function untilRefused(key) {
  const limited = client(key);
  for (let calls = 0; calls < MANY; calls += 1) {
    try {
      await limited.chat.completions.create({ model: CHAT_MODEL, messages: user('/words 2'), max_tokens: 5 });
    } catch (error) {
      return { calls, error };
    }
  }
  assert.fail(`${MANY} calls went through`);
}

test('an exhausted quota', async () => {
  const { calls, error } = await untilRefused(env.TENANTRY_FREE_API_KEY);
  await refused(OpenAI.RateLimitError, 429, 'quota_exceeded', Promise.reject(error));
  assert.equal(calls, 2);
  assert.equal(error.headers.get('x-should-retry'), 'false', 'waiting a second does not help');
});

test('too many requests', async () => {
  const { calls, error } = await untilRefused(env.TENANTRY_RATE_LIMITED_API_KEY);
  await refused(OpenAI.RateLimitError, 429, 'rate_limited', Promise.reject(error));
  assert.ok(calls > 0);
  assert.ok(Number(error.headers.get('retry-after')) > 0);
  assert.notEqual(error.headers.get('x-should-retry'), 'false');
});
