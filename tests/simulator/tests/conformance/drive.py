"""Drives Mistral's Python client through a simulator and checks what the client made of the answers.

    drive.py http://127.0.0.1:PORT

Each check states one fact. They build on each other, in the order of these imports and then of this file; all of them run, and
the exit status tells whether all hold.
"""

import json
import sys
import traceback

from mistralai.client import Mistral, errors, models

from support import (
    BASE, arrange, check, checks, events, executions, fails, is_a, is_time, is_uuid, pages, runs, same, sim, start,
    workflows,
)
from workflow_checks import NO_WORKFLOW
import execution_checks  # noqa: F401
import event_checks  # noqa: F401

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
