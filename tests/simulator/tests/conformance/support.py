"""What the checks of `drive.py` are made with: the client, the simulator's controls and small assertions."""

import datetime
import json
import sys
import time
import urllib.request
import uuid

from mistralai.client import Mistral, errors, models

BASE = sys.argv[1]

mistral = Mistral(api_key="conformance", server_url=BASE, timeout_ms=20_000)
workflows = mistral.workflows
executions = workflows.executions
runs = workflows.runs
events = workflows.events

checks = []


def check(function):
    """Marks a function as a check."""
    checks.append(function)
    return function


def same(actual, expected):
    assert actual == expected, f"{actual!r} is not {expected!r}"


def is_a(value, kind):
    assert type(value) is kind, f"{value!r} is no {kind.__name__}"
    return value


def is_uuid(text):
    same(str(uuid.UUID(is_a(text, str))), text)


def is_time(value):
    """Times carry their zone, so that nobody takes them for local ones."""
    is_a(value, datetime.datetime)
    same(value.utcoffset(), datetime.timedelta(0))
    assert abs(datetime.datetime.now(datetime.timezone.utc) - value) < datetime.timedelta(minutes=10), value


def sim(method, path, body=None):
    """Arranges things behind the client's back."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{BASE}/__sim/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def fails(kind, status, call, **arguments):
    """The error that a call must raise; (its class, its HTTP status) are given."""
    try:
        value = call(**arguments)
    except errors.MistralError as error:
        same((type(error), error.status_code), (kind, status))
        return error
    raise AssertionError(f"no error, but {value!r}")


def pages(page):
    """All pages from the first on, by the client's own way to the next."""
    found = []
    while page is not None:
        found.append(page.result)
        page = page.next()
    return found


def start(workflow="hang", **arguments):
    """A new execution of a workflow."""
    answer = workflows.execute_workflow(workflow_identifier=workflow, **arguments)
    return is_a(answer, models.WorkflowExecutionResponse)


def status_of(execution_id):
    return executions.get_workflow_execution(execution_id=execution_id).status


def eventually(execution_id, status):
    """Waits until an execution has a status."""
    for _ in range(200):
        if status_of(execution_id) == status:
            return
        time.sleep(0.02)
    raise AssertionError(f"{execution_id} does not become {status}")


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "title": "Name"}},
    "required": ["name"],
    "additionalProperties": False,
}


def arrange():
    """The workflows that the checks are about."""
    sim("POST", "workflows", {
        "name": "greet", "display_name": "Greet", "description": "Says hello", "tags": ["a", "b"],
        "input_schema": SCHEMA, "output_schema": {"type": "object"},
        "signals": [{"name": "nudge", "description": None, "input_schema": {"type": "object"}}],
        "deployments": [{"name": "kitchen"}],
    })
    sim("POST", "workflows", {"name": "hang", "behaviour": {"outcome": "hang"}})
    sim("POST", "workflows", {"name": "slow", "behaviour": {"duration_ms": 300, "result": {"result": "done"}}})
    sim("POST", "workflows", {"name": "bad", "behaviour": {"outcome": "fail", "activity_error": "socket closed"}})
    sim("POST", "workflows", {"name": "onward", "behaviour": {"outcome": "continue_as_new", "duration_ms": 100}})
    sim("POST", "workflows", {"name": "late", "behaviour": {"outcome": "time_out"}})
    sim("POST", "workflows", {"name": "idle", "deployments": [{"name": "cellar", "active": False}]})
    sim("POST", "workflows", {"name": "twice", "deployments": [{"name": "left"}, {"name": "right"}]})


NAMES = ["greet", "hang", "slow", "bad", "onward", "late", "idle", "twice"]


def told(stream):
    """The payloads of a stream up to its proper end."""
    found = []
    with stream:
        for frame in stream:
            same(frame.event, "workflow.event")
            found.append(is_a(frame.data, models.StreamEventSsePayload))
    return found


def told_until(error_kind, stream):
    """The payloads of a stream up to its improper end, and the client's error."""
    found = []
    try:
        with stream:
            for frame in stream:
                found.append(is_a(frame.data, models.StreamEventSsePayload))
    except error_kind as error:
        return found, error
    raise AssertionError("the stream ended properly")


def types(payloads):
    return [payload.data.event_type.removeprefix("WORKFLOW_EXECUTION_") for payload in payloads]
