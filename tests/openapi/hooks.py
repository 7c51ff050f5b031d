"""What the description can only say in words, for schemathesis: a valid call must keep to it as well."""

import schemathesis

# Cursors that exclude each other.
EXCLUDES = [("after", "before")]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Keeps calls to what this server is set up with, and streams to their pages: those have an end."""
    if case.operation.label == "GET /v1/sessions/{key}/events":
        case.headers["Accept"] = "application/json"
    query = case.query or {}
    for first, second in EXCLUDES:
        if first in query and second in query:
            del query[second]
    body = case.body
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
