"""Greenroom with OpenAI's Python SDK: pip install openai, then python chat.py [BASE_URL]."""

import os
import sys

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:4910"
# The SDK wants a key. In open mode any will do; else it is a token of `greenroom token create`.
client = OpenAI(base_url=f"{base_url}/v1", api_key=os.environ.get("GREENROOM_TOKEN", "none"))

# Nothing stays of this one: the model is an agent, or agent/model; see client.models.list().
answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "Hello there"}])
print(answer.choices[0].message.content)

# A session remembers: what is sent is only what is new. It goes on when this program dies.
session = {"X-Session-Key": "web:python"}
stream = client.chat.completions.create(
    model="echo",
    messages=[{"role": "user", "content": "word by word"}],
    stream=True,
    extra_headers=session | {"Idempotency-Key": f"chat-{os.getpid()}"},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

# Responses that are kept lead on from one to the next.
first = client.responses.create(model="echo", input="the first", store=True)
second = client.responses.create(model="echo", input="the second", previous_response_id=first.id)
print(first.output_text, "/", second.output_text)
