//! Readers of the Mistral API's answers.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::time::Duration;

use mistral_workflows_operator::api;
use mistral_workflows_operator::execution::state::failure_text;
use mistral_workflows_operator::json::Json;
use mistral_workflows_operator::mistral::answer::{self, Repeat};
use mistral_workflows_operator::mistral::wire::{
    BulkOutcome, Event, Execution, Id, MAX_DESCRIPTION, Page, Registration, RegistrationRow, WhoAmI, Workflow,
    WorkflowRow, fingerprint, is_terminal,
};
use mistral_workflows_operator::mistral::{ApiError, Error, Redactor};
use mistral_workflows_operator::workflow::versions::{Gathering, MAX_REGISTRATIONS, as_written};
use mistral_workflows_operator::workflow::{discovery, fields, import};
use mistral_workflows_operator::workspace::plan::judge;
use reqwest::StatusCode;

use super::{KEY, SECRET, Target, from_texts, shows};

pub const TARGETS: &[Target] = &[
    Target { name: "workflows", seeds: || with_rows("workflows", "next_cursor", WORKFLOWS), check: workflows },
    Target {
        name: "registrations",
        seeds: || {
            let mut seeds = with_rows("workflow_registrations", "next_cursor", REGISTRATIONS);
            seeds.extend(with_rows("workflow_versions", "next_cursor", REGISTRATIONS));
            seeds
        },
        check: registrations,
    },
    Target { name: "runs", seeds: || with_rows("executions", "next_page_token", RUNS), check: runs },
    Target { name: "execution", seeds: || from_texts(RUNS), check: execution },
    Target { name: "events", seeds: || with_rows("events", "next_cursor", EVENTS), check: events },
    Target {
        name: "change",
        seeds: || {
            let mut seeds = with_rows("archived", "next", WORKFLOWS);
            let workflow = WORKFLOWS[0];
            let error = BULK_ERROR;
            seeds.extend([
                format!(r#"{{"archived":[{workflow},null],"errored":[{error}]}}"#).into_bytes(),
                format!(r#"{{"unarchived":[{workflow}],"errored":[]}}"#).into_bytes(),
                format!(r#"{{"workflow":{workflow}}}"#).into_bytes(),
                br#"{"workflow":null}"#.to_vec(),
                error.into(),
            ]);
            seeds
        },
        check: change,
    },
    Target {
        name: "whoami",
        seeds: || {
            from_texts(&[
                r#"{"namespace":"2f0f6d1c-6c1e-4c55-8a53-1f0f6d1c2b3a:0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a","x":1}"#,
                r#"{"namespace":":"}"#,
                r#"{"namespace":null}"#,
            ])
        },
        check: whoami,
    },
    Target { name: "refusal", seeds: || from_texts(REFUSALS), check: refusal },
];

const WORKFLOWS: &[&str] = &[
    r#"{"id":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a","name":"invoices","display_name":"Send invoices","description":"Sends\nthem.","type":"code","customer_id":"c","workspace_id":"w","shared_namespace":null,"available_in_chat_assistant":true,"is_technical":false,"archived":"false","active":true,"tags":["finance"," b "],"metadata":{"shared_namespace":null}}"#,
    r#"{"id":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3b","name":"__parallel_execution__","display_name":"","description":"caf\udce9","type":null,"archived":true,"is_technical":true}"#,
    r#"{"id":"2","name":"Été_Ⅳ","tags":null,"metadata":{"shared_namespace":"other"},"active":"true"}"#,
];

const REGISTRATIONS: &[&str] = &[
    r#"{"id":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b01","workflow_id":"w","deployment_name":"blue","active":true,"definition":{"input_schema":{"type":"object","properties":{"n":{"maximum":1.0,"minimum":-0,"title":"\u00e9<b>"}}},"output_schema":null,"signals":[{"name":"stop","input_schema":{}}],"queries":[{"name":"state"}],"updates":[],"execution_timeout":3600.0,"on_behalf_of":false,"plugin_metadata":{}},"workflow":{"id":"w"}}"#,
    r#"{"id":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b02","workflow_id":"w","definition":{"input_schema":{"maximum":1e400},"output_schema":{"title":"\udce9"},"signals":[7,{"name":null}],"execution_timeout":1e400,"on_behalf_of":"true"}}"#,
    r#"{"id":"a","workflow_id":"w","definition":null,"active":"false"}"#,
];

const RUNS: &[&str] = &[
    r#"{"execution_id":"run-1","workflow_name":"echo","workflow_id":null,"root_execution_id":"run-1","run_id":"7","status":"RUNNING","start_time":"2026-09-06T19:58:30.688462Z","end_time":null,"total_duration_ms":null,"result":null}"#,
    r#"{"execution_id":"run-2","status":"COMPLETED","start_time":"2026-09-06 19:58:30.688462+00:00","end_time":"2026-09-06T21:58:30.688462","total_duration_ms":12.5,"result":{"a":[1,1E2,"\udce9",null,{"b":{}}]}}"#,
    r#"{"execution_id":"run-3","status":"FAILED","result":"s3cret-value-0123","total_duration_ms":1e400}"#,
    r#"{"execution_id":"run-4","status":"COMPLETED","result":{"b64payload":"AAAA","encoding_options":["offloaded","encrypted"]}}"#,
];

const EVENTS: &[&str] = &[
    r#"{"event_type":"WORKFLOW_EXECUTION_FAILED","event_timestamp":1757188710688462000,"workflow_exec_id":"run-1","attributes":{"failure":{"message":"Activity task failed","type":"x"}}}"#,
    r#"{"event_type":"ACTIVITY_TASK_FAILED","event_timestamp":-1,"attributes":{"failure":{"message":"card \udce9 declined"}}}"#,
    r#"{"event_type":"ACTIVITY_TASK_FAILED","event_timestamp":1e400,"attributes":null}"#,
];

const BULK_ERROR: &str = r#"{"workflow_id":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3b","message":"is shared"}"#;

/// The first byte selects the status.
const REFUSALS: &[&str] = &[
    r#"0{"detail":"Workflow execution not found","code":"WF_1100"}"#,
    r#"1{"code":"AMBIGUOUS_WORKFLOW","deployments":["a","sk-live-0123456789abcdef",7]}"#,
    r#"2{"detail":[{"loc":["body","input",0],"msg":"sk-live-0123456789abcdef","type":"x","input":"s3cret-value-0123"}]}"#,
    r#"3{"detail":{"message":"nested s3cret-value-0123"}}"#,
    r#"4{"detail":{"header":"Bearer sk-live-0123456789abcdef","v":"s3cret-value-0123"},"code":1300}"#,
    r#"5{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}"#,
    "6<html>Bad Gateway: sk-live-0123456789abcdef</html>",
    r#"7{"detail":"Invalid input: 's3cret-value-...' is a required property"}"#,
    "8",
    "9[]",
];

const STATUSES: &[u16] = &[404, 409, 422, 400, 401, 429, 502, 403, 503, 500, 300, 302, 405, 408, 413, 504, 520, 599];

/// Rows, and pages of them.
fn with_rows(list: &str, token: &str, rows: &[&str]) -> Vec<Vec<u8>> {
    let mut seeds = from_texts(rows);
    let all = rows.join(",");
    seeds.push(format!(r#"{{"{list}":[{all}],"{token}":"page-2","total":3}}"#).into_bytes());
    seeds.push(format!(r#"{{ "{list}": [ {} , 7 ] , "{token}": null }}"#, rows[0]).into_bytes());
    seeds.push(format!(r#"{{"{list}":[],"{token}":""}}"#).into_bytes());
    seeds
}

/// An unreadable answer must say where it is unreadable, and quote nothing.
fn readable<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Ok(read) => Some(read),
        Err(Error::Unreadable { too_long: false, message }) => {
            assert!(message.len() < 160, "{message:.200}");
            None
        }
        Err(other) => panic!("an answer that cannot be read is {other:?}"),
    }
}

/// Reads the bytes as a page, and as a row between two good rows, which must stay readable.
fn page<T: Debug + PartialEq>(
    bytes: &[u8],
    (list, token, good): (&str, &str, &str),
    read: impl Fn(&[u8]) -> Result<Page<T>, Error>,
) -> Vec<T> {
    let mut rows = Vec::new();
    if let Some(page) = readable(read(bytes)) {
        assert!(page.next.is_none_or(|next| !next.is_empty()), "a page goes on with an empty token");
        rows = page.items;
    }
    let Some(row) = Json::from_text(String::from_utf8_lossy(bytes).into_owned()) else { return rows };
    let alone = read(format!(r#"{{"{list}":[{good}],"{token}":"t"}}"#).as_bytes()).expect("a good row is read");
    let body = format!(r#"{{"{list}":[{good},{row},{good}],"{token}":"t"}}"#);
    let page = read(body.as_bytes()).expect("a page is read whatever one of its rows is");
    assert_eq!(page.items.len() + page.unreadable, 3, "the rows of a page");
    assert_eq!((page.items.first(), page.items.last()), (alone.items.first(), alone.items.first()), "a good row");
    assert_eq!(page.next.as_deref(), Some("t"), "the way to the next page");
    if page.items.len() == 3 {
        rows.extend(page.items.into_iter().nth(1));
    }
    rows
}

fn workflows(bytes: &[u8]) -> bool {
    let form = ("workflows", "next_cursor", WORKFLOWS[0]);
    let rows = page(bytes, form, answer::workflows::<Workflow>);
    let lean = page(bytes, form, answer::workflows::<WorkflowRow>);
    page(bytes, form, answer::workflows::<Id>);
    if rows.len() == lean.len() {
        for (row, lean) in rows.iter().zip(&lean) {
            let texts = fingerprint(row.display_name.as_deref(), row.description.as_deref(), row.tags.as_deref());
            assert_eq!((&row.id, &row.name, texts), (&lean.id, &lean.name, lean.texts), "the lean row");
            assert_eq!(row.is_internal(), lean.is_internal());
        }
    }
    rows.iter().for_each(can_be_named);
    if let Some(workflow) = readable(answer::workflow(bytes)) {
        can_be_named(&workflow);
    }
    !rows.is_empty()
}

/// Checks the names and manifests made from a workflow: Kubernetes must accept them, and they must change nothing.
fn can_be_named(row: &Workflow) {
    let is_name = |name: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        edge(name.as_bytes().first()) && edge(name.as_bytes().last()) && name.bytes().all(inner) && name.len() <= 253
    };
    let name = discovery::safe_name(&row.name, &row.id);
    // An id that is not a UUID cannot become a Workflow's identifier. The API server then reports that.
    if row.id.bytes().any(|byte| byte.is_ascii_hexdigit()) {
        assert!(is_name(&name), "discovery names a resource {name:.300}");
    }
    let target = import::Target { workspace: "default".into(), namespace: None };
    let in_chat = Some(row.available_in_chat_assistant == Some(true));
    let (_, manifest) = import::manifest(row, in_chat, &target, &mut Vec::new());
    let resource: api::Workflow = serde_json::from_value(manifest).expect("a manifest is a Workflow");
    let differing = fields::differing(&resource.spec, row);
    assert!(differing.is_empty(), "to apply the manifest changes {}", fields::names(&differing));
}

fn registrations(bytes: &[u8]) -> bool {
    let form = ("workflow_registrations", "next_cursor", REGISTRATIONS[0]);
    let rows = page(bytes, form, answer::registrations::<Registration>);
    page(bytes, form, answer::registrations::<RegistrationRow>);
    readable(answer::registration(bytes));
    let read = !rows.is_empty();
    let mut gathering = Gathering::new(HashSet::from_iter(rows.first().map(|row| row.id.clone())));
    let ids: BTreeSet<String> = rows.iter().map(|row| row.id.clone()).collect();
    rows.into_iter().for_each(|row| gathering.add(row));
    let versions = gathering.versions();
    assert_eq!(versions.newest.len(), ids.len().min(MAX_REGISTRATIONS));
    let Some(definition) = versions.definition else { return read };
    let schemas = [&definition.input_schema, &definition.output_schema];
    for schema in schemas.into_iter().flatten() {
        assert_eq!(schema.is_keepable(), Ok(()), "a schema that Kubernetes cannot hold is in the status");
    }
    assert!(schemas.into_iter().flatten().map(|schema| schema.text().len()).sum::<usize>() <= 32 << 10);
    for names in [&definition.signals, &definition.queries, &definition.updates] {
        assert!(names.len() <= 100 && names.iter().all(|name| name.len() <= 256), "names in the status");
    }
    // As the API server returns it.
    let value = serde_json::to_value(&definition).expect("a status is JSON");
    let stored: api::workflow::Definition = serde_json::from_value(value).expect("a status is read again");
    assert_eq!(as_written(*definition, Some(&stored)), stored, "what the API server has stored is written again");
    read
}

fn runs(bytes: &[u8]) -> bool {
    let rows = page(bytes, ("executions", "next_page_token", RUNS[0]), answer::runs);
    rows.iter().for_each(is_sound);
    !rows.is_empty()
}

fn execution(bytes: &[u8]) -> bool {
    let Some(run) = readable(answer::read::<Execution>(bytes)) else { return false };
    is_sound(&run);
    true
}

fn is_sound(run: &Execution) {
    is_terminal(run.status.as_deref());
    assert!(run.total_duration_ms.is_none_or(f64::is_finite));
    if let Some(result) = &run.result {
        assert!(!result.is_null() && Json::from_text(result.text().to_owned()).is_some(), "a result is no JSON");
    }
}

fn events(bytes: &[u8]) -> bool {
    let rows = page(bytes, ("events", "next_cursor", EVENTS[0]), answer::events::<Event>);
    assert!(failure_text(&rows).is_none_or(|text| !text.trim().is_empty()), "a failure without words");
    !rows.is_empty()
}

fn change(bytes: &[u8]) -> bool {
    let read = readable(answer::read::<BulkOutcome>(bytes)).is_some_and(|it| !it.done.is_empty())
        | readable(answer::changed_workflow(bytes)).flatten().is_some();
    let Some(odd) = Json::from_text(String::from_utf8_lossy(bytes).into_owned()) else { return read };
    let (good, error) = (WORKFLOWS[0], BULK_ERROR);
    let bulk = |archived: &str, errored: &str| {
        let body = format!(r#"{{"archived":{archived},"errored":{errored}}}"#);
        answer::read::<BulkOutcome>(body.as_bytes()).expect("a change that was made is read")
    };
    let odd = odd.text();
    let between = bulk(&format!("[{good},{odd},{good}]"), &format!("[{error},{odd},{error}]"));
    let alone = bulk(&format!("[{good}]"), &format!("[{error}]"));
    assert_eq!((between.done.first(), between.done.last()), (alone.done.first(), alone.done.first()));
    assert_eq!((between.errored.first(), between.errored.last()), (alone.errored.first(), alone.errored.first()));
    assert_eq!(bulk(&format!("[{good}]"), odd).done, alone.done, "beside another list");
    assert_eq!(bulk(odd, &format!("[{error}]")).errored, alone.errored, "beside another list");
    answer::changed_workflow(format!(r#"{{"workflow":{odd}}}"#).as_bytes()).expect("a change that was made is read");
    read
}

fn whoami(bytes: &[u8]) -> bool {
    let answer = answer::read::<WhoAmI>(bytes);
    let read = answer.is_ok();
    let empty = |id: &Option<String>| id.as_deref() == Some("");
    match judge(answer, "key") {
        Ok(accepted) => assert!(read && !empty(&accepted.workspace_id) && !empty(&accepted.customer_id)),
        Err(problem) => assert!(!read && problem.passing, "an answer that cannot be read refuses a key"),
    }
    read
}

fn refusal(bytes: &[u8]) -> bool {
    let Some((first, body)) = bytes.split_first() else { return false };
    let status = STATUSES[usize::from(first.wrapping_sub(b'0')) % STATUSES.len()];
    let status = StatusCode::from_u16(status).expect("a status");
    let is_json = Json::from_text(String::from_utf8_lossy(body).into_owned()).is_some();
    let mask = Redactor::new([SECRET]);
    let own = Redactor::new([KEY]);
    let clean = |text: &str| answer::clean(text, KEY, &own, &mask);
    let asked = Some(Duration::from_secs(7));
    for repeat in [Repeat::Harmless, Repeat::Harmful] {
        let error = answer::redact(answer::refusal(status, asked, body, repeat, clean), clean);
        let text = error.to_string();
        assert!(!shows(&text, KEY) && !shows(&text, SECRET), "an error shows a secret: {text}");
        assert!(text.len() < 1300, "an error of {} bytes", text.len());
        match &error {
            Error::NotFound(said) | Error::Conflict(said) | Error::Rejected(said) | Error::Unauthorized(said) => {
                is_short_and_clean(said);
                let by_status = status == StatusCode::UNAUTHORIZED || status.is_redirection();
                assert!(is_json || by_status, "a page that is not the API's own decides: {text}");
            }
            Error::Transient { retry_after, .. } => {
                let is_limit = status == StatusCode::TOO_MANY_REQUESTS;
                assert!(repeat == Repeat::Harmless || is_limit, "a start in doubt counts as not made: {text}");
                assert!(!is_limit || *retry_after == asked);
            }
            Error::UnknownOutcome { .. } => assert_eq!(repeat, Repeat::Harmful, "a question in doubt: {text}"),
            Error::Unreadable { .. } => panic!("a refusal counts as success: {text}"),
        }
    }
    is_json
}

fn is_short_and_clean(said: &ApiError) {
    assert!(said.code.as_ref().is_none_or(|code| code.len() <= 80));
    assert!(said.deployments.len() <= 100);
    for text in said.deployments.iter().chain(&said.code) {
        assert!(!shows(text, KEY) && !shows(text, SECRET), "an error shows a secret: {text}");
    }
    assert!(said.detail.len() <= 1100 && said.detail.len() < MAX_DESCRIPTION);
}
