"""The official OpenAI SDK for Python, unchanged, against a running platform.

Environment:
  TENANTRY_BASE_URL               the platform, ending in /api/v1
  TENANTRY_API_KEY                a key of an organization that is not throttled
  TENANTRY_FREE_API_KEY           a key of one that has two messages of its quota left
  TENANTRY_RATE_LIMITED_API_KEY   a key of one on the free plan: 10 requests a minute
  TENANTRY_CHAT_MODEL             a chat model of the catalogue
  TENANTRY_EMBEDDING_MODEL        an embedding model of the catalogue
  UPSTREAM_CONTROL                the mock upstream's control endpoint (GET /state, POST /release)
"""

import json
import os
import unittest
import urllib.request

import openai

BASE_URL = os.environ["TENANTRY_BASE_URL"]
CHAT_MODEL = os.environ["TENANTRY_CHAT_MODEL"]
EMBEDDING_MODEL = os.environ["TENANTRY_EMBEDDING_MODEL"]
CONTROL = os.environ["UPSTREAM_CONTROL"]
# An answer that never comes is a failure within seconds, not at the end of the suite's patience.
TIMEOUT_SECONDS = 20
# More calls than the limits of the free plan let through.
MANY = 20

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def client(key_variable="TENANTRY_API_KEY", **options):
    """A client that does not retry, so that every answer is seen."""
    options.setdefault("api_key", os.environ.get(key_variable))
    return openai.OpenAI(base_url=BASE_URL, max_retries=0, timeout=TIMEOUT_SECONDS, **options)


def user(text):
    return [{"role": "user", "content": text}]


def control(method, path):
    request = urllib.request.Request(CONTROL + path, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        return json.load(response)


class Models(unittest.TestCase):
    def test_list_and_retrieve(self):
        listed = {model.id: model for model in client().models.list()}
        self.assertIn(CHAT_MODEL, listed)
        self.assertIn(EMBEDDING_MODEL, listed)
        self.assertEqual(listed[CHAT_MODEL].object, "model")
        one = client().models.retrieve(CHAT_MODEL)
        self.assertEqual(one, listed[CHAT_MODEL])


class Chat(unittest.TestCase):
    def test_completion(self):
        answer = client().chat.completions.create(model=CHAT_MODEL, messages=user("/words 12 please"))
        self.assertEqual(answer.object, "chat.completion")
        choice = answer.choices[0]
        self.assertEqual(choice.finish_reason, "stop")
        self.assertEqual(choice.message.role, "assistant")
        self.assertTrue(choice.message.content.startswith("Hello from upstream"))
        self.assertEqual(len(choice.message.content.split()), 12)
        self.assertEqual(answer.usage.completion_tokens, 12)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 12)
        self.assertTrue(answer._request_id.startswith("req_"), answer._request_id)

    def test_length_limit(self):
        answer = client().chat.completions.create(model=CHAT_MODEL, messages=user("/words 12"), max_tokens=5)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 5)

    def test_stream_passes_the_first_chunk_on_before_upstream_has_finished(self):
        stream = client().chat.completions.create(model=CHAT_MODEL, messages=user("/hold /words 30"), stream=True)
        text = ""
        chunks = 0
        released = False
        for chunk in stream:
            self.assertEqual(chunk.object, "chat.completion.chunk")
            self.assertIsNone(chunk.usage, "usage that was not asked for")
            self.assertEqual(len(chunk.choices), 1, "the usage chunk is for those who ask for it")
            text += chunk.choices[0].delta.content or ""
            chunks += 1
            if text and not released:
                state = control("GET", "/state")
                self.assertEqual(state["holding"], 1, "upstream waits in the middle of the answer")
                self.assertEqual(state["in_flight"], 1)
                control("POST", "/release")
                released = True
        self.assertTrue(released)
        self.assertGreater(chunks, 3)
        self.assertTrue(text.startswith("Hello from upstream"))
        self.assertEqual(len(text.split()), 30)

    def test_stream_with_usage(self):
        stream = client().chat.completions.create(
            model=CHAT_MODEL, messages=user("hello"), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        self.assertEqual(chunks[-1].choices, [])
        self.assertGreater(chunks[-1].usage.prompt_tokens, 0)
        self.assertEqual(chunks[-1].usage.completion_tokens, 24)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))
        self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")

    def test_stream_of_characters_split_between_packets(self):
        stream = client().chat.completions.create(model=CHAT_MODEL, messages=user("/split /crlf"), stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        self.assertIn("naïve Größe 你好 Привет 🦀🎈 日本語", text)

    def test_error_in_the_middle_of_a_stream(self):
        stream = client().chat.completions.create(model=CHAT_MODEL, messages=user("/midstream-error"), stream=True)
        text = ""
        with self.assertRaises(openai.APIError):
            for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                self.assertIsNone(chunk.choices[0].finish_reason, "a made-up end")
        self.assertEqual(len(text.split()), 20)


class Tools(unittest.TestCase):
    def test_call_and_result(self):
        messages = user("What is the weather in Paris?")
        answer = client().chat.completions.create(model=CHAT_MODEL, messages=messages, tools=[WEATHER])
        choice = answer.choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        self.assertIsNone(choice.message.content)
        call = choice.message.tool_calls[0]
        self.assertEqual(call.function.name, "weather")
        self.assertEqual(json.loads(call.function.arguments)["city"], "Paris")

        messages.append(choice.message)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
        answer = client().chat.completions.create(model=CHAT_MODEL, messages=messages, tools=[WEATHER])
        self.assertTrue(answer.choices[0].message.content.startswith("Hello from upstream"))

    def test_streamed_call(self):
        stream = client().chat.completions.create(
            model=CHAT_MODEL, messages=user("What is the weather in Paris?"), tools=[WEATHER], stream=True
        )
        name, call_id, arguments, pieces, finish = None, None, "", 0, None
        for chunk in stream:
            choice = chunk.choices[0]
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                self.assertEqual(call.index, 0)
                name = call.function.name or name
                call_id = call.id or call_id
                arguments += call.function.arguments or ""
                pieces += 1
        self.assertEqual((name, finish), ("weather", "tool_calls"))
        self.assertTrue(call_id)
        self.assertGreater(pieces, 2)
        self.assertEqual(json.loads(arguments), {"city": "Paris", "unit": "celsius"})


class Embeddings(unittest.TestCase):
    def test_default_encoding(self):
        # The SDK asks for base64 by itself and decodes it.
        answer = client().embeddings.create(model=EMBEDDING_MODEL, input=["one two", "three"])
        self.assertEqual(answer.data[0].embedding[:2], [0.125, -0.125])
        self.assertEqual(answer.data[1].embedding[:2], [0.25, -0.25])
        self.assertEqual(answer.usage.prompt_tokens, 3)

    def test_float(self):
        answer = client().embeddings.create(model=EMBEDDING_MODEL, input="one", encoding_format="float")
        self.assertEqual(answer.data[0].embedding[:2], [0.125, -0.125])


class Errors(unittest.TestCase):
    def assert_error(self, error, status, code):
        self.assertEqual(error.status_code, status, error)
        self.assertEqual(error.code, code, error)
        self.assertTrue(error.request_id.startswith("req_"), "x-request-id on every answer")

    def test_bad_key(self):
        for key in ("sk-not-a-key", os.environ["TENANTRY_API_KEY"][:-1]):
            with self.assertRaises(openai.AuthenticationError) as caught:
                client(api_key=key).models.list()
            self.assert_error(caught.exception, 401, "invalid_api_key")

    def test_unknown_model(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            client().chat.completions.create(model="no-such-model", messages=user("hello"))
        self.assert_error(caught.exception, 404, "model_not_found")
        with self.assertRaises(openai.NotFoundError) as caught:
            client().models.retrieve("no-such-model")
        self.assert_error(caught.exception, 404, "model_not_found")

    def test_invalid_value_names_the_field(self):
        before = control("GET", "/state")["requests"]
        with self.assertRaises((openai.BadRequestError, openai.UnprocessableEntityError)) as caught:
            client().chat.completions.create(model=CHAT_MODEL, messages=user("hello"), max_tokens=-1)
        self.assertEqual(caught.exception.param, "max_tokens")
        with self.assertRaises((openai.BadRequestError, openai.UnprocessableEntityError)) as caught:
            client().chat.completions.create(model=CHAT_MODEL, messages="hello")
        self.assertEqual(caught.exception.param, "messages")
        self.assertEqual(control("GET", "/state")["requests"], before, "no call upstream")

    def test_upstream_error(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client().chat.completions.create(model=CHAT_MODEL, messages=user("/error 400"))
        self.assertTrue(caught.exception.request_id.startswith("req_"))

    def until_refused(self, key_variable):
        """The number of calls that went through, and the error that ended them."""
        limited = client(key_variable)
        for calls in range(MANY):
            try:
                limited.chat.completions.create(model=CHAT_MODEL, messages=user("/words 2"), max_tokens=5)
            except openai.RateLimitError as error:
                return calls, error
        self.fail(f"{MANY} calls went through")

    def test_quota(self):
        calls, error = self.until_refused("TENANTRY_FREE_API_KEY")
        self.assertEqual(calls, 2)
        self.assert_error(error, 429, "quota_exceeded")
        self.assertEqual(error.response.headers["x-should-retry"], "false", "waiting a second does not help")

    def test_rate_limit(self):
        calls, error = self.until_refused("TENANTRY_RATE_LIMITED_API_KEY")
        self.assertGreater(calls, 0)
        self.assert_error(error, 429, "rate_limited")
        self.assertGreater(int(error.response.headers["retry-after"]), 0)
        self.assertNotEqual(error.response.headers.get("x-should-retry"), "false")


if __name__ == "__main__":
    unittest.main(verbosity=2)
