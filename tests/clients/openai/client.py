"""The official client of PyPI against a server: everything that is promised to it. Runs with old and new majors.
Arguments: base URL, key, what to do."""

import asyncio
import json
import sys

import openai
from openai import AsyncOpenAI, OpenAI

base, key, what, *rest = sys.argv[1:]
client = OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)
LONG = "".join(f"{i:06} ".ljust(40, "x") for i in range(200))


def script(**steps):
    return "/script " + json.dumps(steps)


def user(content):
    return [{"role": "user", "content": content}]


def raised(kind, ask, **fields):
    try:
        answer = ask()
    except kind as error:
        assert type(error) is kind or kind is openai.APIError, repr(error)
        for name, value in fields.items():
            assert getattr(error, name) == value, f"{name} of {error!r}: {getattr(error, name)}"
        return
    raise AssertionError(f"nothing was raised: {answer}")


def completions():
    said = script(reasoning=2, tool={"name": "bash", "input": {"command": "ls"}, "output": "a"}, text='it is "ä\n" done')
    answer = client.chat.completions.create(model="echo", messages=user(said))
    assert answer.choices[0].message.content == 'it is "ä\n" done'
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.tool_calls is None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    text, usage = "", None
    options = {"include_usage": True}
    asked = {"model": "echo", "messages": user(script(deltas=200, bytes=40)), "stream": True}
    for chunk in client.chat.completions.create(**asked, stream_options=options):
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == LONG, text
    assert usage.completion_tokens == 200


def responses():
    answer = client.responses.create(model="echo", input=script(reasoning=1, text="hello"), instructions="be kind")
    assert (answer.output_text, answer.status) == ("hello", "completed")
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.usage.output_tokens == 2 and answer.usage.total_tokens == 2
    text, numbers, last = "", [], None
    for event in client.responses.create(model="echo", input=script(deltas=200, bytes=40), stream=True):
        numbers.append(event.sequence_number)
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    assert text == LONG and numbers == list(range(len(numbers)))
    assert last.type == "response.completed" and last.response.output_text == LONG
    with client.responses.stream(model="echo", input=script(reasoning=2, text="kept track")) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "kept track"


def going_on():
    first = client.responses.create(model="echo", input="one", store=True)
    second = client.responses.create(model="echo", input="two", previous_response_id=first.id)
    assert (first.output_text, second.output_text) == ("one", "two")
    assert client.responses.retrieve(second.id).output_text == "two"
    again = {"model": "echo", "input": "x", "previous_response_id": first.id}
    raised(openai.ConflictError, lambda: client.responses.create(**again), code="previous_response_not_last")
    again["previous_response_id"] = "resp_none"
    raised(openai.BadRequestError, lambda: client.responses.create(**again), param="previous_response_id")
    raised(openai.NotFoundError, lambda: client.responses.retrieve("resp_none"), code="response_not_found")
    kept = client.responses.create(model="echo", input="kept", user="web:py", metadata={"topic": "demo"})
    assert kept.store is True and kept.metadata == {"topic": "demo"}


def errors():
    ask = client.chat.completions.create
    raised(openai.NotFoundError, lambda: ask(model="x", messages=user("x")), code="model_not_found", param="model")
    raised(openai.BadRequestError, lambda: ask(model="echo", messages=user("x"), n=2), param="n")
    raised(openai.BadRequestError, lambda: ask(model="echo", messages=[]), param="messages")
    failing = {"model": "echo", "messages": user(script(text="so far", fail="no luck"))}
    raised(openai.InternalServerError, lambda: ask(**failing), status_code=502, code="agent_error")
    raised(openai.APIError, lambda: list(ask(**failing, stream=True)), code="agent_error")
    failing = {"model": "echo", "input": failing["messages"][0]["content"]}
    raised(openai.InternalServerError, lambda: client.responses.create(**failing), code="agent_error")
    assert list(client.responses.create(**failing, stream=True))[-1].type == "response.failed"


def unauthorized():
    raised(openai.AuthenticationError, client.models.list, status_code=401, code="invalid_credentials")


def limited():
    ask = {"model": "echo", "messages": user("x"), "user": rest[0]}
    raised(openai.RateLimitError, lambda: client.chat.completions.create(**ask), code="queue_full")


def models():
    assert "echo" in [model.id for model in client.models.list()]
    assert client.models.retrieve("echo").owned_by == "greenroom"
    raised(openai.NotFoundError, lambda: client.models.retrieve("none"), code="model_not_found", param="model")


def many():
    async def one(client, number):
        said = script(deltas=20, delay_ms=2, text=f"end {number}")
        options = {"user": f"many:{number}"} if number % 2 else {}
        stream = await client.responses.create(model="echo", input=said, stream=True, **options)
        text = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        assert "".join(text).endswith(f"end {number}"), text

    async def all_at_once():
        async with AsyncOpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0) as client:
            await asyncio.gather(*(one(client, number) for number in range(40)))

    asyncio.run(all_at_once())


globals()[what]()
