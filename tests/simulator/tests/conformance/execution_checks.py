"""Executions and their runs."""

import datetime
import json

from mistralai.client import errors, models

from support import (
    check, eventually, executions, fails, is_a, is_time, is_uuid, pages, runs, same, sim, start, status_of, workflows,
)
from workflow_checks import all_registrations

MICROSECOND = datetime.timedelta(microseconds=1)


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
