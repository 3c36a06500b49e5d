//! Each endpoint: what is sent, and what is read from the answer.

use std::collections::BTreeMap;

use mistral_workflows_operator::json::Json;
use mistral_workflows_operator::mistral::wire::{Event, EventFailure, Page};

use super::*;

/// All rows of a list, and the number of its pages.
async fn all<T>(mut page: impl AsyncFnMut(Option<String>) -> Result<Page<T>, Error>) -> (Vec<T>, usize) {
    let (mut rows, mut pages, mut next) = (Vec::new(), 0, None);
    loop {
        let page = page(next).await.unwrap();
        rows.extend(page.items);
        pages += 1;
        assert!(pages < 100, "the list has no end");
        match page.next {
            Some(token) => next = Some(token),
            None => return (rows, pages),
        }
    }
}

#[tokio::test]
async fn the_list_of_workflows_is_read_to_its_end_and_filtered() {
    let remote = Remote::start().await;
    for (name, tags, archived) in [
        ("a", json!(["x"]), false),
        ("b", json!(["x", "y"]), false),
        ("c", json!([]), true),
        ("d", json!(["y"]), false),
        ("e", json!(["x", "y"]), true),
    ] {
        remote.api.register(json!({ "name": name, "tags": tags, "archived": archived })).await;
    }
    let list = async |archived, tags: &[&str]| {
        let (rows, pages) = all(async |cursor| {
            let tags = tags.iter().map(ToString::to_string).collect();
            let filter = WorkflowFilter { archived, tags, cursor, limit: 2, ..WorkflowFilter::default() };
            remote.client.list_workflows(&filter).await
        })
        .await;
        let mut names: Vec<String> = rows.into_iter().map(|workflow| workflow.name).collect();
        names.sort();
        (names.concat(), pages)
    };
    assert_eq!(list(None, &[]).await, ("abcde".into(), 3));
    assert_eq!(list(Some(false), &[]).await, ("abd".into(), 2));
    assert_eq!(list(Some(true), &[]).await, ("ce".into(), 1));
    assert_eq!(list(None, &["x", "y"]).await, ("be".into(), 1));
    assert_eq!(list(Some(false), &["x", "y"]).await, ("b".into(), 1));
}

#[tokio::test]
async fn a_workflow_is_found_by_its_name_and_by_its_uuid() {
    let remote = Remote::start().await;
    let made = remote.api.register(json!({ "name": "echo", "display_name": "Echo", "tags": ["b", "a"] })).await;
    let by_name = remote.client.get_workflow("echo").await.unwrap();
    assert_eq!(by_name.id, made["id"]);
    assert_eq!(by_name.display_name.as_deref(), Some("Echo"));
    assert_eq!((by_name.active, by_name.archived), (Some(true), Some(false)));
    assert_eq!(by_name.tags, Some(vec!["b".to_owned(), "a".to_owned()]));
    assert_eq!(remote.client.get_workflow(&by_name.id).await.unwrap(), by_name);
}

#[tokio::test]
async fn an_update_changes_the_given_fields_only_and_never_sends_null() {
    let remote = Remote::start().await;
    remote
        .api
        .register(json!({ "name": "echo", "display_name": "Echo", "description": "says it again", "tags": ["a"] }))
        .await;
    let update = UpdateRequest { description: Some(String::new()), ..UpdateRequest::default() };
    let updated = remote.client.update_workflow("echo", &update).await.unwrap().unwrap();
    assert_eq!(updated.description.as_deref(), Some(""));
    assert_eq!(updated.display_name.as_deref(), Some("Echo"));
    assert_eq!(updated.tags, Some(vec!["a".to_owned()]));

    let tcp = Tcp::json(&json!({ "workflow": null }));
    for (update, body) in [
        (UpdateRequest::default(), json!({})),
        (update, json!({ "description": "" })),
        (UpdateRequest { tags: Some(Vec::new()), ..UpdateRequest::default() }, json!({ "tags": [] })),
        (
            UpdateRequest {
                display_name: Some("E".into()),
                available_in_chat_assistant: Some(false),
                ..UpdateRequest::default()
            },
            json!({ "display_name": "E", "available_in_chat_assistant": false }),
        ),
    ] {
        assert_eq!(client(&tcp.url).update_workflow("echo", &update).await, Ok(None));
        let request = tcp.requests().pop().unwrap();
        assert!(request.starts_with("PUT /v1/workflows/echo HTTP/1.1\r\n"), "{request}");
        let sent: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(sent, body);
    }
}

#[tokio::test]
async fn workflows_are_archived_one_by_one_and_in_bulk() {
    let remote = Remote::start().await;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        ids.push(remote.register(name, json!({})).await["id"].as_str().unwrap().to_owned());
    }
    for archived in [true, true, false, false] {
        let workflow = remote.client.set_archived("a", archived).await.unwrap().unwrap();
        assert_eq!((workflow.archived, workflow.name.as_str()), (Some(archived), "a"));
    }
    let unknown = "0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a";
    ids.insert(1, unknown.to_owned());
    for archived in [true, false] {
        let outcome = remote.client.set_archived_many(&ids, archived).await.unwrap();
        let done: Vec<_> = outcome.done.into_iter().flatten().map(|it| (it.name, it.archived)).collect();
        assert_eq!(done, [("a".to_owned(), Some(archived)), ("b".to_owned(), Some(archived))]);
        let [error] = &outcome.errored[..] else { panic!("{:?}", outcome.errored) };
        assert_eq!((error.workflow_id.as_str(), error.message.as_deref()), (unknown, Some("Workflow not found")));
    }
}

#[tokio::test]
async fn registrations_are_listed_to_the_end_and_found_by_uuid() {
    let remote = Remote::start().await;
    let deployments = ["x", "y", "z"].map(|name| json!({ "name": name, "active": name != "y" }));
    let many = remote.api.register(json!({ "name": "many", "deployments": deployments })).await;
    remote.register("other", json!({})).await;
    let list = async |workflow: Option<&str>| {
        let client = &remote.client;
        all(async |cursor| {
            let workflow_id = workflow.map(str::to_owned);
            let filter = RegistrationFilter { workflow_id, cursor, limit: 2, ..RegistrationFilter::default() };
            client.list_registrations(&filter).await
        })
        .await
    };
    let (rows, pages) = list(None).await;
    assert_eq!((rows.len(), pages), (4, 2));
    let (mut rows, pages) = list(many["id"].as_str()).await;
    rows.sort_by(|a, b| a.deployment_name.cmp(&b.deployment_name));
    assert_eq!((rows.len(), pages), (3, 2));
    for (row, expected) in rows.iter().zip(many["registrations"].as_array().unwrap()) {
        assert_eq!((&json!(row.id), &json!(row.deployment_name)), (&expected["id"], &expected["deployment_name"]));
        let one = remote.client.get_registration(&row.id).await.unwrap();
        assert_eq!(one.active.map(Value::Bool).as_ref(), Some(&expected["active"]));
        assert_eq!(one.workflow_id, many["id"]);
        let schema = one.definition.unwrap().input_schema.unwrap();
        assert_eq!(schema.field("type").and_then(|type_| type_.string()).as_deref(), Some("object"));
    }
}

#[tokio::test]
async fn a_run_is_started_by_name_by_uuid_and_by_registration() {
    let remote = Remote::start().await;
    let made = remote.register("echo", json!({})).await;
    let (id, registration) = (made["id"].as_str().unwrap(), made["registrations"][0]["id"].as_str().unwrap());
    let request = ExecuteRequest {
        execution_id: "name".into(),
        input: Some(Json::from(&json!({ "a": { "b": [null, "ü"] } }))),
        deployment_name: Some("echo-deployment".into()),
        custom_tracing_attributes: Some(BTreeMap::from([("team".into(), "blue".into())])),
        extensions: Some(Json::from(&json!({ "x": 1 }))),
    };
    let started = remote.client.execute(echo(), &request).await.unwrap();
    assert_eq!((started.execution_id.as_str(), started.workflow_name.as_deref()), ("name", Some("echo")));
    assert_eq!(started.root_execution_id.as_deref(), Some("name"));
    assert!(started.start_time.is_some());
    remote.client.execute(ExecuteTarget::Workflow(id), &start("uuid")).await.unwrap();
    remote.client.execute(ExecuteTarget::Registration(registration), &start("registration")).await.unwrap();

    let books = remote.api.executions().await;
    let ids: Vec<_> = books.iter().map(|it| it["execution_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["name", "uuid", "registration"]);
    assert!(books.iter().all(|it| it["starts"] == 1 && it["registration_id"] == registration), "{books:?}");
    assert_eq!(books[0]["input"], json!({ "a": { "b": [null, "ü"] } }));
    assert_eq!(books[0]["custom_tracing_attributes"], json!({ "team": "blue" }));
    assert_eq!(books[0]["extensions"], json!({ "x": 1 }));
    let done = remote.client.get_execution("name").await.unwrap();
    assert_eq!((done.status.as_deref(), done.workflow_id.as_deref()), (Some("COMPLETED"), Some(id)));
    assert_eq!(done.result.unwrap(), json!({ "a": { "b": [null, "ü"] } }));
    assert!(done.end_time >= done.start_time && done.total_duration_ms.is_some());
}

#[tokio::test]
async fn a_run_can_be_cancelled_and_terminated() {
    let remote = Remote::start().await;
    remote.register("hang", json!({ "outcome": "hang" })).await;
    for id in ["cancelled", "terminated"] {
        remote.client.execute(ExecuteTarget::Workflow("hang"), &start(id)).await.unwrap();
        assert_eq!(remote.client.get_execution(id).await.unwrap().status.as_deref(), Some("RUNNING"));
    }
    assert_eq!(remote.client.cancel("cancelled").await, Ok(()));
    assert_eq!(remote.client.terminate("terminated").await, Ok(()));
    for (id, status) in [("cancelled", "CANCELED"), ("terminated", "TERMINATED")] {
        until(SOON, status, async || {
            let now = remote.client.get_execution(id).await.unwrap().status;
            (now.as_deref() == Some(status)).then_some(())
        })
        .await;
        for outcome in [remote.client.cancel(id).await, remote.client.terminate(id).await] {
            assert!(
                matches!(&outcome, Err(Error::Conflict(said)) if said.code.as_deref() == Some("WF_1102")),
                "{outcome:?}"
            );
        }
    }
}

#[tokio::test]
async fn runs_are_listed_newest_end_first_to_the_last_page_and_filtered() {
    let remote = Remote::start().await;
    remote.register("echo", json!({})).await;
    remote.register("fail", json!({ "outcome": "fail" })).await;
    remote.register("hang", json!({ "outcome": "hang" })).await;
    remote.api.register(json!({ "name": "internal", "is_technical": true })).await;
    for (workflow, id) in
        [("echo", "e1"), ("fail", "f1"), ("internal", "i1"), ("hang", "h1"), ("echo", "e2"), ("echo", "e3")]
    {
        remote.client.execute(ExecuteTarget::Workflow(workflow), &start(id)).await.unwrap();
    }
    let list = async |filter: RunFilter| {
        all(async |page_token| remote.client.list_runs(&RunFilter { page_token, page_size: 2, ..filter.clone() }).await)
            .await
    };
    let ids = async |filter| list(filter).await.0.into_iter().map(|run| run.execution_id).collect::<Vec<_>>();
    let (rows, pages) = list(RunFilter::default()).await;
    assert_eq!((rows.len(), pages), (5, 3));
    let statuses = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let ended = RunFilter { statuses: statuses(&["COMPLETED", "FAILED"]), ..RunFilter::default() };
    assert_eq!(ids(ended).await, ["e3", "e2", "f1", "e1"]);
    assert_eq!(ids(RunFilter { statuses: statuses(&["RUNNING"]), ..RunFilter::default() }).await, ["h1"]);
    assert_eq!(ids(RunFilter { root_execution_id: Some("f1".into()), ..RunFilter::default() }).await, ["f1"]);
    let e2 = rows.iter().find(|run| run.execution_id == "e2").unwrap();
    assert_eq!(ids(RunFilter { end_time_after: e2.end_time, ..RunFilter::default() }).await, ["e3", "e2"]);

    assert_eq!(e2.result, None);
    let run = remote.client.get_run(e2.run_id.as_deref().unwrap()).await.unwrap();
    assert_eq!((run.execution_id.as_str(), run.status.as_deref()), ("e2", Some("COMPLETED")));
    assert_eq!((run.run_id, run.end_time), (e2.run_id.clone(), e2.end_time));
}

#[tokio::test]
async fn events_are_read_to_the_last_page_and_tell_why_a_run_failed() {
    let remote = Remote::start().await;
    remote.register("fail", json!({ "outcome": "fail", "activity_error": "no such customer" })).await;
    // Each run has three events, and a page has a thousand.
    for _ in 0..334 {
        remote.client.execute(ExecuteTarget::Workflow("fail"), &start("again")).await.unwrap();
    }
    remote.client.execute(ExecuteTarget::Workflow("fail"), &start("other")).await.unwrap();
    let (events, pages) =
        all(async |cursor| remote.client.list_events::<Event>("again", cursor.as_deref(), 1000).await).await;
    assert_eq!((events.len(), pages), (1002, 2));
    assert!(events.iter().all(|event| event.workflow_exec_id.as_deref() == Some("again")));
    assert!(events.is_sorted_by_key(|event| event.event_timestamp.unwrap()));
    let last: Vec<_> = events[999..]
        .iter()
        .map(|it| (it.event_type.as_str(), it.attributes.as_ref().and_then(|it| it.failure.clone())))
        .collect();
    let failed = |message: &str| Some(EventFailure { message: Some(message.into()) });
    assert_eq!(last[0].0, "WORKFLOW_EXECUTION_STARTED");
    assert_eq!(last[1], ("ACTIVITY_TASK_FAILED", failed("no such customer")));
    assert_eq!(last[2], ("WORKFLOW_EXECUTION_FAILED", failed("Activity task failed")));
}

#[tokio::test]
async fn whoami_tells_the_organization_and_the_workspace() {
    let remote = Remote::start().await;
    let namespace = remote.client.whoami().await.unwrap().namespace.unwrap();
    let ids: Vec<_> = namespace.split(':').map(|id| uuid::Uuid::parse_str(id).unwrap()).collect();
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn answers_with_the_quirks_of_the_published_examples_are_understood() {
    let remote = Remote::start().await;
    remote.register("echo", json!({})).await;
    remote.register("hang", json!({ "outcome": "hang" })).await;
    remote.api.switches(json!({ "archived_as_string": true, "running_status": null })).await;
    for archived in [true, false] {
        assert_eq!(remote.client.set_archived("echo", archived).await.unwrap().unwrap().archived, Some(archived));
        assert_eq!(remote.client.get_workflow("echo").await.unwrap().archived, Some(archived));
    }
    let list = remote.client.list_workflows(&WorkflowFilter { limit: 10, ..WorkflowFilter::default() }).await.unwrap();
    assert!(list.items.iter().all(|workflow| workflow.archived == Some(false)), "{list:?}");
    let started = remote.client.execute(ExecuteTarget::Workflow("hang"), &start("run")).await.unwrap();
    assert_eq!(started.status, None);
    assert_eq!(remote.client.get_execution("run").await.unwrap().status, None);

    // Names and spellings in other versions of the API, present or announced.
    let registration = json!({ "id": "r", "workflow_id": "w" });
    for (body, next) in [
        (json!({ "workflow_versions": [registration] }), None),
        (json!({ "workflow_versions": [registration], "next_cursor": "" }), None),
        (json!({ "workflow_versions": [], "workflow_registrations": [registration], "next_cursor": "n" }), Some("n")),
    ] {
        let page = client(&Tcp::json(&body).url)
            .list_registrations(&RegistrationFilter { limit: 1, ..RegistrationFilter::default() })
            .await
            .unwrap();
        assert_eq!((page.items.len(), page.items[0].id.as_str(), page.next.as_deref()), (1, "r", next), "{body}");
    }
    let filter = RunFilter { page_size: 1, ..RunFilter::default() };
    let page = client(&Tcp::json(&json!({ "runs": [{ "execution_id": "e" }] }).clone()).url).list_runs(&filter).await;
    assert_eq!(page.unwrap().items[0].execution_id, "e");
    let bulk = client(&Tcp::json(&json!({ "archived": [null] })).url).set_archived_many(&[], true).await.unwrap();
    assert_eq!((bulk.done.as_slice(), bulk.errored.as_slice()), (&[None][..], &[][..]));
}

#[tokio::test]
async fn a_large_result_is_read_whole() {
    let remote = Remote::start().await;
    remote.register("echo", json!({})).await;
    let input = json!({ "text": "x".repeat(2_000_000) });
    let request = ExecuteRequest { input: Some(Json::from(&input)), ..start("large") };
    remote.client.execute(echo(), &request).await.unwrap();
    assert!(remote.client.get_execution("large").await.unwrap().result.unwrap() == input);
}
