"""Workflows and their registrations."""

from mistralai.client import models

from support import NAMES, SCHEMA, check, is_a, is_uuid, pages, same, workflows

NO_WORKFLOW = "019b2bd7-96e7-7219-8c0b-45a73da50088"


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
