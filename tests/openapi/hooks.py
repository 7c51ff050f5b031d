"""What the description can only say in words, for schemathesis: a valid call must keep to it as well. And things for
calls to act on: a turn that waits, a question that is asked. Ids by chance name nothing."""

import itertools
import json
import os
import re
import zlib

import requests
import schemathesis

# Cursors that exclude each other.
EXCLUDES = [("after", "before")]
KEY = re.compile(r"[A-Za-z0-9._:@-]{1,200}")
ID = re.compile(r"[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}")
NUMBERS = itertools.count()


class Maker:
    """Makes what a call needs, in a session of its own."""

    def __init__(self, case):
        self.base = case.operation.base_url.rstrip("/")
        token = os.environ.get("GREENROOM_TEST_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.key = f"made:{next(NUMBERS)}"

    def call(self, method, rest, body=None, expected=(200, 201, 202)):
        answer = requests.request(
            method, f"{self.base}/v1/sessions{rest}", json=body, headers=self.headers, timeout=30
        )
        assert answer.status_code in expected, f"{method} {rest}: {answer.status_code} {answer.text}"
        return answer.json()

    def send(self, text, query=""):
        return self.call("POST", f"/{self.key}/messages{query}", {"text": text})["turn"]["id"]

    def script(self, steps, query=""):
        return self.send("/script " + json.dumps(steps), query)

    def session(self):
        self.call("POST", "", {"key": self.key})

    def waiting(self):
        # Not for ever: schemathesis sends again what it has seen in answers.
        self.script({"deltas": 20, "delay_ms": 50})
        return self.send("waits")

    def failed(self):
        return self.script({"fail": "no luck"}, "?wait=30")

    def message(self):
        self.send("hello", "?wait=30")
        return self.call("GET", f"/{self.key}/messages")["first_id"]

    def choice(self):
        self.script({"ask": "permission"})
        for _ in range(300):
            asked = self.call("GET", f"/{self.key}/choices")["data"]
            if asked:
                return asked[0]["id"]
        raise AssertionError("nothing was asked")


MAKES = {"retryTurn": Maker.failed, "getMessage": Maker.message, "answerChoice": Maker.choice}


def place(case):
    """Every other call with a path that could name something gets one that does."""
    path = case.path_parameters or {}
    operation = case.operation.definition.raw["operationId"]
    key, thing = path.get("key"), path.get("id")
    # Which answers fit is up to the question.
    if operation == "answerChoice" and case.body not in ({"allow": True}, {"allow": False}):
        return
    if not (isinstance(key, str) and KEY.fullmatch(key)) or zlib.crc32(f"{key} {thing}".encode()) % 2:
        return
    maker = Maker(case)
    if "id" not in path:
        if operation in ("abortTurn", "clearQueue", "getSessionState"):
            maker.waiting()
        else:
            maker.session()
    elif isinstance(thing, str) and ID.fullmatch(thing):
        path["id"] = MAKES.get(operation, Maker.waiting)(maker)
    else:
        return
    path["key"] = maker.key


def operation_of(case):
    return case.operation.definition.raw["operationId"]


def asks(body):
    """Somebody must ask something, of an agent that there is; what was answered before has names by chance."""
    body["model"] = "echo"
    body.pop("previous_response_id", None)
    if body.get("background"):
        body.pop("stream", None)
        body.pop("store", None)
    question = {"role": "user", "content": "And now?"}
    for name in ("messages", "input"):
        if isinstance(body.get(name), list):
            body[name].append(question)
        elif isinstance(body.get(name), str):
            body[name] = "And now?"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Keeps calls to what this server is set up with, and streams to their pages: those have an end."""
    place(case)
    if case.operation.label.endswith("/events"):
        case.headers["Accept"] = "application/json"
    query = case.query or {}
    # Cursors over all sessions are opaque: nobody can make one up.
    if case.operation.label == "GET /v1/events":
        for name in ("after", "before"):
            if name in query:
                query[name] = "0"
    # The server goes on as it is set up: settings get the values that they have.
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    if case.operation.label == "PATCH /v1/config" and positive and isinstance(case.body, dict):
        case.body = {topic: dict.fromkeys(names) for topic, names in case.body.items()}
    if isinstance(query.get("wait"), (int, float)) and query["wait"] > 1:
        query["wait"] = 1
    for first, second in EXCLUDES:
        if first in query and second in query:
            del query[second]
    body = case.body
    if positive and isinstance(body, dict) and operation_of(case) in ("createChatCompletion", "createResponse"):
        asks(body)
    # The last message of a run is from the user and says something.
    if case.operation.label == "POST /v1/ag-ui" and positive and isinstance(body, dict):
        body["messages"] = [*body["messages"], {"id": f"m-{next(NUMBERS)}", "role": "user", "content": "hello"}]
        props = body.get("forwardedProps")
        if isinstance(props, dict) and isinstance(props.get("agent"), str):
            props["agent"] = "echo"
    # Which addresses may be called is up to the configuration and the names that there are.
    if positive and isinstance(body, dict) and operation_of(case) in ("createWebhookEndpoint", "updateWebhookEndpoint"):
        if isinstance(body.get("url"), str):
            body["url"] = "https://hooks.example.com/greenroom"
    if isinstance(body, dict):
        # Which agents there are is up to the configuration; here it is one.
        if isinstance(body.get("agent"), str):
            body["agent"] = "echo"
        # The caller is a member of no organisation, and there are no projects.
        for name in ("org_id", "project_id"):
            if isinstance(body.get(name), str):
                body[name] = None
        if body.get("visibility") == "org":
            body["visibility"] = "private"
