"""Drives Mistral's Python client through a simulator and checks what the client made of the answers.

    drive.py http://127.0.0.1:PORT

Each check states one fact. They build on each other, in this order; all of them run, and the exit status tells whether all hold.
"""

import datetime
import json
import sys
import threading
import traceback

import httpx2
from mistralai.client import Mistral, errors, models
from mistralai.extra.exceptions import StreamDisconnectedError

from support import (
    BASE, NAMES, SCHEMA, arrange, check, checks, eventually, events, executions, fails, is_a, is_time, is_uuid, pages, runs,
    same, sim, start, status_of, told, told_until, types, workflows,
)

MICROSECOND = datetime.timedelta(microseconds=1)
NO_WORKFLOW = "019b2bd7-96e7-7219-8c0b-45a73da50088"

# What the client must have called by the end: the endpoints of the reference page, and what tells how an execution goes.
ROUTES = [
    "GET /v1/workflows",
    "GET /v1/workflows/registrations",
    "POST /v1/workflows/{workflow_identifier}/execute",
    "POST /v1/workflows/registrations/{workflow_registration_id}/execute",
    "GET /v1/workflows/{workflow_identifier}",
    "PUT /v1/workflows/{workflow_identifier}",
    "GET /v1/workflows/registrations/{workflow_registration_id}",
    "PUT /v1/workflows/archive",
    "PUT /v1/workflows/unarchive",
    "PUT /v1/workflows/{workflow_identifier}/archive",
    "PUT /v1/workflows/{workflow_identifier}/unarchive",
    "POST /v1/workflows/{workflow_identifier}/tags",
    "GET /v1/workflows/executions/{execution_id}",
    "POST /v1/workflows/executions/{execution_id}/cancel",
    "POST /v1/workflows/executions/{execution_id}/terminate",
    "POST /v1/workflows/executions/cancel",
    "POST /v1/workflows/executions/terminate",
    "GET /v1/workflows/executions/{execution_id}/stream",
    "GET /v1/workflows/runs",
    "GET /v1/workflows/runs/{run_id}",
    "GET /v1/workflows/events/list",
    "GET /v1/workflows/events/stream",
    "GET /v1/workflows/deployments",
    "GET /v1/workflows/deployments/{name}",
    "GET /v1/workflows/deployments/{name}/workers",
    "GET /v1/workflows/schedules",
    "GET /v1/workflows/schedules/{schedule_id}",
]

# Workflows


@check
def the_list_of_workflows_is_paged_to_its_end():
    found = pages(workflows.get_workflows(limit=3))
    same([len(page.workflows) for page in found], [3, 3, 2])
    assert all(is_a(page.next_cursor, str) for page in found[:2])
    same(found[2].next_cursor, None)
    rows = [row for page in found for row in page.workflows]
    same(sorted(row.name for row in rows), sorted(NAMES))
    for row in rows:
        is_a(row, models.WorkflowBasicDefinition)
        is_uuid(row.id)
        is_a(row.archived, bool)
    greet = next(row for row in rows if row.name == "greet")
    same((greet.display_name, greet.description, greet.tags), ("Greet", "Says hello", ["a", "b"]))


@check
def a_last_page_that_is_full_is_the_end():
    same([len(page.workflows) for page in pages(workflows.get_workflows(limit=4))], [4, 4])
    same([len(page.workflows) for page in pages(workflows.get_workflows())], [8])


@check
def the_list_of_workflows_is_filtered():
    def names(**filters):
        found = pages(workflows.get_workflows(**filters))
        return sorted(row.name for page in found for row in page.workflows)

    same(names(search="hello"), ["greet"])
    same(names(tags=["a", "b"]), ["greet"])
    same(names(tags=["a", "c"]), [])
    same(names(deployment_status="inactive"), ["idle"])
    same(names(deployment_name=["kitchen", "left"]), ["greet", "twice"])
    same(names(archived=True), [])


@check
def a_workflow_is_got_by_name_and_by_uuid():
    by_name = is_a(workflows.get_workflow(workflow_identifier="greet"), models.WorkflowGetResponse).workflow
    is_a(by_name, models.WorkflowWithWorkerStatus)
    same(workflows.get_workflow(workflow_identifier=by_name.id).workflow, by_name)
    for identifier in [by_name.id, by_name.customer_id, by_name.workspace_id]:
        is_uuid(identifier)
    same((by_name.name, by_name.display_name, by_name.type), ("greet", "Greet", "code"))
    same((by_name.active, by_name.archived, by_name.is_technical), (True, False, False))
    same((by_name.shared_namespace, by_name.available_in_chat_assistant), (None, False))
    same(workflows.get_workflow(workflow_identifier="idle").workflow.active, False)


@check
def an_update_changes_what_it_mentions():
    before = workflows.get_workflow(workflow_identifier="slow").workflow
    same((before.display_name, before.description), ("slow", ""))
    answer = workflows.update_workflow(
        workflow_identifier="slow", display_name="Slow one", description="takes a while", tags=[" x ", "x", "y"],
    )
    changed = is_a(is_a(answer, models.WorkflowUpdateResponse).workflow, models.Workflow)
    same((changed.display_name, changed.description, changed.tags), ("Slow one", "takes a while", ["x", "y"]))
    answer = workflows.update_workflow(workflow_identifier=before.id, description="", tags=[])
    same((answer.workflow.display_name, answer.workflow.description, answer.workflow.tags), ("Slow one", "", []))
    same(workflows.add_workflow_tags(workflow_identifier="slow", tags=["z"]), None)
    same(workflows.get_workflow(workflow_identifier="slow").workflow.tags, ["z"])


@check
def a_workflow_is_archived_and_unarchived():
    for identifier in ["slow", workflows.get_workflow(workflow_identifier="slow").workflow.id]:
        for _ in range(2):
            answer = workflows.archive_workflow(workflow_identifier=identifier)
            same(is_a(answer, models.WorkflowArchiveResponse).workflow.archived, True)
        found = pages(workflows.get_workflows(archived=True))[0].workflows
        same([row.name for row in found], ["slow"])
        answer = workflows.unarchive_workflow(workflow_identifier=identifier)
        same(is_a(answer, models.WorkflowUnarchiveResponse).workflow.archived, False)


@check
def both_bulk_calls_tell_successes_from_failures():
    ids = [workflows.get_workflow(workflow_identifier=name).workflow.id for name in ["slow", "bad"]]
    answer = workflows.bulk_archive_workflows(workflow_ids=[ids[0], NO_WORKFLOW, ids[1]])
    is_a(answer, models.WorkflowBulkArchiveResponse)
    same([(is_a(row, models.Workflow).id, row.archived) for row in answer.archived], [(id, True) for id in ids])
    same([(row.workflow_id, row.workflow) for row in answer.errored], [(NO_WORKFLOW, None)])
    assert is_a(answer.errored[0].message, str)
    answer = workflows.bulk_unarchive_workflows(workflow_ids=[*ids, NO_WORKFLOW])
    is_a(answer, models.WorkflowBulkUnarchiveResponse)
    same([(row.id, row.archived) for row in answer.unarchived], [(id, False) for id in ids])
    same([row.workflow_id for row in answer.errored], [NO_WORKFLOW])


# Registrations


def all_registrations(**filters):
    """The client has no way to the next page of these: by hand."""
    found, cursor = [], None
    while True:
        page = workflows.get_workflow_registrations(cursor=cursor, **filters)
        found.append(is_a(page, models.WorkflowRegistrationListResponse))
        cursor = page.next_cursor
        if not cursor:
            return found


@check
def the_list_of_registrations_is_paged_to_its_end():
    found = all_registrations(limit=4, with_workflow=True)
    same([len(page.workflow_registrations) for page in found], [4, 4, 1])
    rows = [row for page in found for row in page.workflow_registrations]
    same(sorted({row.workflow.name for row in rows}), sorted(NAMES))
    same(len({row.id for row in rows}), 9)
    same([page.workflow_versions for page in found], [page.workflow_registrations for page in found])
    same(all_registrations(workflow_name="greet")[0].workflow_registrations[0].workflow, None)
    same(len(all_registrations(active_only=True)[0].workflow_registrations), 8)


@check
def a_registration_is_got_with_its_definition():
    row = all_registrations(workflow_name="greet")[0].workflow_registrations[0]
    answer = workflows.get_workflow_registration(workflow_registration_id=row.id, with_workflow=True)
    registration = is_a(answer, models.WorkflowRegistrationGetResponse).workflow_registration
    is_a(registration, models.WorkflowRegistrationWithWorkerStatus)
    same((registration.id, registration.workflow_id), (row.id, registration.workflow.id))
    same((registration.deployment_name, registration.active), ("kitchen", True))
    definition = is_a(registration.definition, models.WorkflowCodeDefinition)
    same((definition.input_schema, definition.output_schema), (SCHEMA, {"type": "object"}))
    same([signal.name for signal in definition.signals], ["nudge"])
    same((definition.queries, definition.updates, definition.on_behalf_of), ([], [], False))
    same(definition.execution_timeout, 3600.0)


# Executions


@check
def execute_by_name_answers_while_the_execution_runs():
    answer = start("greet", input={"name": "Ada"}, execution_id="by-name")
    same((answer.workflow_name, answer.execution_id, answer.root_execution_id), ("greet", "by-name", "by-name"))
    same((answer.status, answer.result, answer.end_time), ("RUNNING", None, None))
    same((answer.workflow_id, answer.run_id, answer.deployment_name, answer.user_id), (None, None, None, None))
    is_time(answer.start_time)


@check
def a_finished_execution_has_result_times_and_worker():
    done = executions.get_workflow_execution(execution_id="by-name")
    is_a(done, models.WorkflowExecutionResponse)
    same((done.status, done.result), ("COMPLETED", {"name": "Ada"}))
    same((done.deployment_name, done.parent_execution_id), ("kitchen", None))
    is_uuid(done.workflow_id)
    is_uuid(done.user_id)
    is_time(done.start_time)
    is_time(done.end_time)
    assert done.end_time >= done.start_time
    same(is_a(done.total_duration_ms, int), (done.end_time - done.start_time) // (MICROSECOND * 1000))
    same(done.search_keys, None)


@check
def execute_by_uuid_and_by_registration():
    workflow = workflows.get_workflow(workflow_identifier="greet").workflow
    answer = start(workflow.id, input={"name": "Bo"})
    same((answer.workflow_name, len(answer.execution_id)), ("greet", 64))
    row = all_registrations(workflow_name="twice")[0].workflow_registrations[1]
    answer = workflows.execute_workflow_registration(
        workflow_registration_id=row.id, execution_id="by-registration", input={"n": 1},
    )
    is_a(answer, models.WorkflowExecutionResponse)
    done = executions.get_workflow_execution(execution_id="by-registration")
    same((done.workflow_name, done.deployment_name, done.result), ("twice", row.deployment_name, {"n": 1}))


@check
def execute_and_wait_by_polling_and_by_the_api():
    same(workflows.execute_workflow_and_wait("slow", input={}, polling_interval=1), {"result": "done"})
    same(workflows.execute_workflow_and_wait("slow", input={}, use_api_sync=True), {"result": "done"})
    answer = workflows.execute_workflow(workflow_identifier="slow", execution_id="waited", wait_for_result=True)
    is_a(answer, models.WorkflowExecutionSyncResponse)
    same((answer.workflow_name, answer.execution_id, answer.result), ("slow", "waited", {"result": "done"}))


@check
def a_wait_for_a_failure_or_for_too_long_is_an_error():
    try:
        workflows.execute_workflow_and_wait("bad", polling_interval=1)
        raise AssertionError("no error")
    except RuntimeError as error:
        assert "FAILED" in str(error), error
    wait = {"call": workflows.execute_workflow, "wait_for_result": True}
    error = fails(errors.SDKError, 500, workflow_identifier="bad", **wait)
    same(json.loads(error.body), {"detail": "An error occurred", "code": "WF_1103"})
    error = fails(
        errors.SDKError, 504, workflow_identifier="hang", execution_id="too-long", timeout_seconds=0.1, **wait,
    )
    same(json.loads(error.body)["code"], "WF_1103")
    same(status_of("too-long"), "RUNNING")


@check
def a_failed_execution_has_a_null_result():
    start("bad", execution_id="failed")
    done = executions.get_workflow_execution(execution_id="failed")
    same((done.status, done.result), ("FAILED", None))


@check
def cancel_and_terminate_end_an_execution():
    start(execution_id="cancelled")
    same(executions.cancel_workflow_execution(execution_id="cancelled"), None)
    eventually("cancelled", "CANCELED")
    start(execution_id="terminated")
    same(executions.terminate_workflow_execution(execution_id="terminated"), None)
    same(status_of("terminated"), "TERMINATED")
    start("late", execution_id="timed-out")
    eventually("timed-out", "TIMED_OUT")


@check
def batches_tell_successes_from_failures():
    for call, status in [
        (executions.batch_cancel_workflow_executions, "CANCELED"),
        (executions.batch_terminate_workflow_executions, "TERMINATED"),
    ]:
        ids = [start().execution_id for _ in range(2)]
        answer = is_a(call(execution_ids=[*ids, "none", "by-name"]), models.BatchExecutionResponse)
        found = {id: (is_a(it, models.BatchExecutionResult).status, it.error) for id, it in answer.results.items()}
        same(found, {
            ids[0]: ("success", None),
            ids[1]: ("success", None),
            "none": ("failure", "Workflow execution not found"),
            "by-name": ("failure", "Workflow not running"),
        })
        for id in ids:
            eventually(id, status)


# Runs


@check
def runs_are_paged_to_their_end():
    for number in range(5):
        start("greet", execution_id=f"run-{number}", input={"name": "Cy"})
    arguments = {"search": "greet", "status": ["COMPLETED"], "sort_by": "start_time", "order": "asc"}
    found = pages(runs.list_runs(page_size=3, **arguments))
    same([len(page.executions) for page in found], [3, 3, 1])
    same(found[-1].next_page_token, None)
    rows = [is_a(row, models.WorkflowExecutionWithoutResultResponse) for page in found for row in page.executions]
    same([row.execution_id for row in rows][2:], [f"run-{number}" for number in range(5)])
    assert [row.start_time for row in rows] == sorted(row.start_time for row in rows)
    for row in rows:
        is_uuid(row.run_id)
        is_time(row.end_time)
    backwards = pages(runs.list_runs(page_size=7, **{**arguments, "order": "desc"}))
    same([row.run_id for row in backwards[0].executions], [row.run_id for row in rows][::-1])


@check
def a_run_is_got_by_its_id_with_its_result():
    row = runs.list_runs(root_execution_id="by-name").result.executions[0]
    run = is_a(runs.get_run(run_id=row.run_id), models.WorkflowExecutionResponse)
    same((run.run_id, run.execution_id, run.status, run.result), (row.run_id, "by-name", "COMPLETED", {"name": "Ada"}))


@check
def a_continued_execution_keeps_its_id_and_has_two_runs():
    start("onward", execution_id="onward")
    eventually("onward", "COMPLETED")
    found = runs.list_runs(root_execution_id="onward", order="asc").result.executions
    same([(row.execution_id, row.status) for row in found], [("onward", "CONTINUED_AS_NEW"), ("onward", "COMPLETED")])


@check
def every_status_of_an_execution_is_known_to_the_client():
    known = {"RUNNING", "COMPLETED", "FAILED", "CANCELED", "TERMINATED", "CONTINUED_AS_NEW", "TIMED_OUT"}
    same({row.status for row in runs.list_runs(page_size=1000).result.executions}, known)
    for word in [None, "RETRYING_AFTER_ERROR", "SLEEPING"]:
        sim("PUT", "switches", {"running_status": word})
        same(status_of("too-long"), word)
    sim("PUT", "switches", {})


# Events


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


# Deployments and schedules


@check
def deployments_are_listed_and_got():
    answer = is_a(workflows.deployments.list_deployments(), models.DeploymentListResponse)
    is_uuid(answer.workspace_id)
    assert "cellar" not in [row.name for row in answer.deployments]
    found, cursor = [], None
    while True:
        page = workflows.deployments.list_deployments(active_only=False, limit=4, cursor=cursor)
        found.append([is_a(row, models.DeploymentResponse) for row in page.deployments])
        cursor = page.next_cursor
        if not cursor:
            break
    same([len(page) for page in found], [4, 4, 1])
    rows = {row.name: row for page in found for row in page}
    same((rows["kitchen"].is_active, rows["cellar"].is_active), (True, False))
    detail = is_a(workflows.deployments.get_deployment(name="kitchen"), models.DeploymentDetailResponse)
    same((detail.id, detail.worker_count, detail.active_worker_count), (rows["kitchen"].id, 1, 1))
    is_uuid(detail.id)
    is_time(detail.created_at)
    is_time(detail.last_heartbeat)
    workers = is_a(workflows.deployments.list_deployment_workers(name="kitchen"), models.DeploymentWorkerListResponse)
    same(workers.workers, detail.workers)
    same((is_a(detail.workers[0], models.DeploymentWorkerResponse).is_active, workers.next_cursor), (True, None))


@check
def there_are_no_schedules():
    found = pages(workflows.schedules.get_schedules(page_size=10, status="active"))
    same([page.schedules for page in found], [[]])
    error = fails(errors.SDKError, 404, workflows.schedules.get_schedule, schedule_id="daily")
    same(json.loads(error.body)["code"], "WF_1201")


# Errors


@check
def what_does_not_exist_is_404():
    for call, arguments in [
        (workflows.get_workflow, {"workflow_identifier": "none"}),
        (workflows.get_workflow, {"workflow_identifier": NO_WORKFLOW}),
        (workflows.update_workflow, {"workflow_identifier": "none", "description": ""}),
        (workflows.archive_workflow, {"workflow_identifier": "none"}),
        (workflows.execute_workflow, {"workflow_identifier": "none"}),
        (workflows.get_workflow_registration, {"workflow_registration_id": NO_WORKFLOW}),
        (executions.get_workflow_execution, {"execution_id": "none"}),
        (executions.cancel_workflow_execution, {"execution_id": "none"}),
        (executions.terminate_workflow_execution, {"execution_id": "none"}),
        (executions.stream, {"execution_id": "none"}),
        (runs.get_run, {"run_id": NO_WORKFLOW}),
        (workflows.deployments.get_deployment, {"name": "none"}),
    ]:
        error = fails(errors.SDKError, 404, call, **arguments)
        same(json.loads(error.body)["code"], "WF_1100")


@check
def conflicts_are_409_and_say_what_about():
    start(execution_id="taken")
    error = fails(errors.SDKError, 409, workflows.execute_workflow, workflow_identifier="hang", execution_id="taken")
    same(json.loads(error.body)["code"], "WF_1101")
    error = fails(errors.SDKError, 409, executions.terminate_workflow_execution, execution_id="by-name")
    same(json.loads(error.body), {"detail": "Workflow not running", "code": "WF_1102", "status": "COMPLETED"})
    error = fails(errors.SDKError, 409, workflows.execute_workflow, workflow_identifier="twice")
    same(json.loads(error.body), {"code": "AMBIGUOUS_WORKFLOW", "deployments": ["left", "right"]})


@check
def invalid_requests_are_422_and_list_their_problems():
    for call, arguments, place in [
        (workflows.get_workflows, {"limit": 0}, ["query", "limit"]),
        (workflows.execute_workflow, {"workflow_identifier": "hang", "execution_id": "a b"}, ["body", "execution_id"]),
        (workflows.bulk_archive_workflows, {"workflow_ids": ["x"]}, ["body", "workflow_ids", 0]),
        (executions.batch_cancel_workflow_executions, {"execution_ids": []}, ["body", "execution_ids"]),
        (executions.stream, {"execution_id": "taken", "last_event_id": "x"}, ["header", "last-event-id"]),
    ]:
        error = fails(errors.HTTPValidationError, 422, call, **arguments)
        problem = is_a(error.data.detail[0], models.ValidationError)
        same(problem.loc, place)
        assert problem.msg and problem.type, problem


@check
def an_input_against_the_schema_is_422_in_a_shape_that_the_client_does_not_expect():
    error = fails(
        errors.ResponseValidationError, 422, workflows.execute_workflow, workflow_identifier="greet", input={"x": 1},
    )
    assert json.loads(error.body)["detail"].startswith("Invalid input: "), error.body


@check
def a_refused_token_is_401_and_a_server_in_trouble_is_an_error_of_its_status():
    sim("DELETE", "tokens/revoked")
    with Mistral(api_key="revoked", server_url=BASE) as refused:
        error = fails(errors.SDKError, 401, refused.workflows.get_workflows)
        same(json.loads(error.body), {"detail": "Unauthorized"})
    for status in [429, 500, 502, 503, 504]:
        sim("PUT", "faults", {"faults": [{"kind": {"error": {"status": status, "headers": {"retry-after": "1"}}}}]})
        error = fails(errors.SDKError, status, workflows.get_workflow, workflow_identifier="greet")
        same(error.headers["retry-after"], "1")
    sim("PUT", "faults", {})


@check
def no_endpoint_was_forgotten():
    rows = sim("GET", "calls")["calls"]
    succeeded = {f"{row['method']} {row['route']}" for row in rows if any(status < "300" for status in row["statuses"])}
    # There are no schedules to get.
    succeeded.add("GET /v1/workflows/schedules/{schedule_id}")
    same([route for route in ROUTES if route not in succeeded], [])
    same(sorted(f"{row['method']} {row['route']}" for row in rows if row["route"] == "unknown"), [])


def main():
    arrange()
    failed = 0
    for function in checks:
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAILED: {function.__name__}\n{traceback.format_exc()}", flush=True)
            for path in ["faults", "switches"]:
                sim("PUT", path, {})
    print(f"{len(checks)} checks, {failed} failed", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
