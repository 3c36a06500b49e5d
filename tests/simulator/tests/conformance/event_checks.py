"""Events, in lists and in streams."""

import datetime
import threading

import httpx2
from mistralai.client import models
from mistralai.extra.exceptions import StreamDisconnectedError

from support import check, events, executions, is_a, is_time, is_uuid, same, sim, start, told, told_until, types


@check
def events_are_listed_in_pages():
    found, cursor = [], None
    while True:
        page = events.get_workflow_events(workflow_exec_id="failed", limit=2, cursor=cursor)
        found.append(is_a(page, models.ListWorkflowEventResponse).events)
        cursor = page.next_cursor
        if not cursor:
            break
    same([len(page) for page in found], [2, 1])
    rows = sum(found, [])
    same([type(row) for row in rows], [
        models.WorkflowExecutionStartedResponse,
        models.ActivityTaskFailedResponse,
        models.WorkflowExecutionFailedResponse,
    ])
    same([row.attributes.failure.message for row in rows[1:]], ["socket closed", "Activity task failed"])
    for row in rows:
        is_uuid(row.event_id)
        is_time(datetime.datetime.fromtimestamp(row.event_timestamp / 1e9, datetime.timezone.utc))


@check
def an_executions_own_stream_is_read_to_its_end():
    start("slow", execution_id="streamed", input={"n": 1})
    found = told(executions.stream(execution_id="streamed"))
    same([type(payload.data) for payload in found], [
        models.WorkflowExecutionStartedResponse, models.WorkflowExecutionCompletedResponse,
    ])
    started, completed = found
    assert started.broker_sequence < completed.broker_sequence
    same(started.data.attributes.input.value, [{"n": 1}])
    same(completed.data.attributes.result.value, {"result": "done"})
    for payload in found:
        is_time(payload.timestamp)
        context = is_a(payload.workflow_context, models.StreamEventWorkflowContext)
        same((context.workflow_name, context.workflow_exec_id), ("slow", "streamed"))
        same((context.root_workflow_exec_id, context.parent_workflow_exec_id), ("streamed", None))
    resumed = told(executions.stream(execution_id="streamed", last_event_id=str(started.broker_sequence)))
    same(resumed, [completed])
    same(types(told(executions.stream(execution_id="cancelled", event_source="DATABASE"))), ["STARTED", "CANCELED"])
    same(types(told(executions.stream(execution_id="terminated"))), ["STARTED"])


@check
def the_stream_of_events_is_replayed_filtered_live_and_ends_with_an_error_frame():
    sim("PUT", "faults", {"faults": [{"kind": {"fail_stream_after_ms": 2000}}]})
    live = threading.Timer(0.2, lambda: start("greet", execution_id="live", input={"name": "Di"}))
    live.start()
    found, error = told_until(StreamDisconnectedError, events.get_stream_events(
        workflow_name="greet",
        workflow_event_types=["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_COMPLETED"],
        scope="workflow",
    ))
    live.join()
    sim("PUT", "faults", {})
    same((error.reason, error.error), ("stream_error", "The stream failed"))
    starts = [payload.data.workflow_exec_id for payload in found if types([payload]) == ["STARTED"]]
    same((starts[0], starts[-1]), ("by-name", "live"))
    same((len(starts), len(found)), (8, 16))
    sequences = [payload.broker_sequence for payload in found]
    same(sequences, sorted(set(sequences)))


@check
def a_broken_stream_of_events_is_resumed_where_it_was():
    sim("PUT", "faults", {"faults": [{"times": 1, "kind": {"cut_stream_after_ms": 500}}]})
    stream = events.get_stream_events(root_workflow_exec_id="failed")
    found, _ = told_until(httpx2.RemoteProtocolError, stream)
    same(types(found), ["STARTED", "ACTIVITY_TASK_FAILED", "FAILED"])
    sim("PUT", "faults", {"faults": [{"kind": {"fail_stream_after_ms": 100}}]})
    for arguments in [{"start_seq": found[1].broker_sequence}, {"last_event_id": str(found[0].broker_sequence)}]:
        stream = events.get_stream_events(root_workflow_exec_id="failed", **arguments)
        same(told_until(StreamDisconnectedError, stream)[0], found[1:])
    sim("PUT", "faults", {})
