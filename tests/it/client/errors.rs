//! How the client classifies failures: by what a caller can do next.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimePrinter};
use mistral_workflows_operator::mistral::REQUEST_TIMEOUT;
use mistral_workflows_operator::mistral::call_metrics::Calls;
use mistral_workflows_operator::mistral::wire::{Event, Execution};
use proptest::prelude::*;

use super::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Transient,
    UnknownOutcome,
    Unreadable,
    NotFound,
    Conflict,
    Rejected,
    Unauthorized,
}

use Kind::{Conflict, NotFound, Rejected, Transient, Unauthorized, UnknownOutcome, Unreadable};

fn kind<T: std::fmt::Debug>(outcome: &Result<T, Error>) -> Kind {
    match outcome {
        Err(Error::Transient { .. }) => Transient,
        Err(Error::UnknownOutcome { .. }) => UnknownOutcome,
        Err(Error::Unreadable { .. }) => Unreadable,
        Err(Error::NotFound(_)) => NotFound,
        Err(Error::Conflict(_)) => Conflict,
        Err(Error::Rejected(_)) => Rejected,
        Err(Error::Unauthorized(_)) => Unauthorized,
        Ok(answer) => panic!("no error but {answer:?}"),
    }
}

/// A simulator with `echo`, which one execution has already run.
async fn remote() -> Remote {
    let remote = Remote::start().await;
    remote.register("echo", json!({})).await;
    remote.client.execute(echo(), &start("there")).await.unwrap();
    remote
}

/// Sends one read and one start under this fault. Checks that the start arrived once, and returns how often it took
/// effect.
async fn strike(remote: &Remote, fault: Value) -> (Result<Execution, Error>, Result<Execution, Error>, u64) {
    remote.api.forget_calls().await;
    remote.api.faults(json!({ "faults": [{ "kind": fault }] })).await;
    let read = remote.client.get_execution("there").await;
    let started = remote.client.execute(echo(), &start("new")).await;
    remote.api.heal().await;
    assert_eq!(remote.api.arrivals(Some(EXECUTE)).await, 1, "{fault}");
    assert_eq!(remote.api.arrivals(None).await, 2, "{fault}");
    (read, started, remote.api.effects(Some(EXECUTE)).await)
}

#[tokio::test]
async fn an_http_error_is_sorted_by_what_it_means_for_a_read_and_for_a_start() {
    let remote = remote().await;
    let html = "<html><body>nginx</body></html>";
    for (status, body, read, started) in [
        (400, None, Rejected, Rejected),
        (401, None, Unauthorized, Unauthorized),
        (401, Some(html), Unauthorized, Unauthorized),
        (403, None, Rejected, Rejected),
        (404, None, NotFound, NotFound),
        (404, Some(html), Transient, UnknownOutcome),
        (404, Some(""), Transient, UnknownOutcome),
        (405, None, Rejected, Rejected),
        (409, None, Conflict, Conflict),
        (409, Some(html), Transient, UnknownOutcome),
        (413, None, Rejected, Rejected),
        (422, None, Rejected, Rejected),
        (429, None, Transient, Transient),
        (429, Some(html), Transient, Transient),
        (500, None, Transient, UnknownOutcome),
        (500, Some(html), Transient, UnknownOutcome),
        (502, None, Transient, UnknownOutcome),
        (503, None, Transient, UnknownOutcome),
        (503, Some(""), Transient, UnknownOutcome),
        (504, None, Transient, UnknownOutcome),
        (504, Some(r#"{"detail":"An error occurred","code":"WF_1103"}"#), Transient, UnknownOutcome),
        (520, Some(html), Transient, UnknownOutcome),
    ] {
        for after_effect in [false, true] {
            let fault = json!({ "error": {
                "status": status, "body": body, "content_type": "text/html", "after_effect": after_effect,
            }});
            let (read_outcome, start_outcome, effects) = strike(&remote, fault).await;
            let case = format!("{status} with {body:?}: {read_outcome:?}, {start_outcome:?}");
            assert_eq!((kind(&read_outcome), kind(&start_outcome)), (read, started), "{case}");
            assert_eq!(effects, u64::from(after_effect), "{case}");
            let text = start_outcome.unwrap_err().to_string();
            assert!(text.contains(&format!("HTTP {status}")), "{text}");
        }
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_api_said() {
    let remote = remote().await;
    remote.register("hang", json!({ "outcome": "hang" })).await;
    let deployments = ["b", "a"].map(|name| json!({ "name": name }));
    remote.api.register(json!({ "name": "many", "deployments": deployments })).await;
    let schema = json!({ "type": "object", "required": ["customer"] });
    remote.api.register(json!({ "name": "strict", "input_schema": schema })).await;
    let client = &remote.client;
    let execute =
        async |name: &str, id: &str| client.execute(ExecuteTarget::Workflow(name), &start(id)).await.unwrap_err();

    client.execute(ExecuteTarget::Workflow("hang"), &start("running")).await.unwrap();
    let Error::Conflict(said) = execute("hang", "running").await else { panic!() };
    assert!(said.is_already_started() && !said.is_ambiguous_workflow());
    let Error::Conflict(said) = execute("many", "run").await else { panic!() };
    assert!(said.is_ambiguous_workflow() && !said.is_already_started());
    assert_eq!(said.deployments, ["a", "b"]);

    // The API reports a list of problems, then a sentence.
    let Error::Rejected(said) = execute("echo", "no spaces").await else { panic!() };
    assert_eq!(said.to_string(), "body.execution_id: String should match pattern '^[a-zA-Z0-9_-]+$' (HTTP 422)");
    let Error::Rejected(said) = execute("strict", "run").await else { panic!() };
    assert_eq!(said.to_string(), "Invalid input: \"customer\" is a required property (HTTP 422)");

    for error in [
        execute("nobody", "run").await,
        client.execute(ExecuteTarget::Registration(KEY_SHAPED), &start("run")).await.unwrap_err(),
        client.get_workflow("nobody").await.unwrap_err(),
        client.get_execution("nobody").await.unwrap_err(),
        client.cancel("nobody").await.unwrap_err(),
        client.terminate("nobody").await.unwrap_err(),
        client.get_run(KEY_SHAPED).await.unwrap_err(),
    ] {
        assert!(matches!(&error, Error::NotFound(said) if said.code.as_deref() == Some("WF_1100")), "{error:?}");
    }
    remote.api.revoke(KEY).await;
    assert_eq!(kind(&client.whoami().await), Unauthorized);
    assert_eq!(execute("echo", "run").await.to_string(), "Unauthorized (HTTP 401)");
}

/// A UUID that does not exist.
const KEY_SHAPED: &str = "0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a";

#[tokio::test]
async fn retry_after_is_understood_in_seconds_and_as_a_date() {
    let remote = remote().await;
    let date = |seconds| {
        let time = Timestamp::now() + SignedDuration::from_secs(seconds);
        DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap()
    };
    let seconds = Duration::from_secs;
    for (text, expected) in [
        ("7".to_owned(), Some(seconds(7)..=seconds(7))),
        (" 0 ".to_owned(), Some(seconds(0)..=seconds(0))),
        (date(100), Some(seconds(60)..=seconds(100))),
        (date(-100), Some(seconds(0)..=seconds(0))),
        // The client cuts long delays to ten minutes.
        ("86400".to_owned(), Some(seconds(600)..=seconds(600))),
        (date(86400), Some(seconds(600)..=seconds(600))),
        ("soon".to_owned(), None),
        ("-7".to_owned(), None),
        (String::new(), None),
    ] {
        for status in [429, 503] {
            let fault = json!({ "error": { "status": status, "headers": { "retry-after": text } } });
            let (read, started, _) = strike(&remote, fault).await;
            assert_eq!(kind(&read), Transient);
            let wait = read.unwrap_err().retry_after();
            let good = match (&expected, wait) {
                (Some(range), Some(wait)) => range.contains(&wait),
                (None, None) => true,
                _ => false,
            };
            assert!(good, "{status} {text:?}: {wait:?}");
            if status == 429 {
                assert_eq!(kind(&started), Transient);
                assert_eq!(started.unwrap_err().retry_after().is_some(), wait.is_some());
            }
        }
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_the_outcome_of_a_start_open_and_is_not_asked_for_again() {
    let remote = remote().await;
    for (fault, effects) in [
        (json!({ "close": "before_effect" }), 0),
        (json!({ "close": "after_effect" }), 1),
        (json!({ "truncate": true }), 1),
    ] {
        let case = fault.to_string();
        let (read, started, took_effect) = strike(&remote, fault).await;
        assert_eq!((kind(&read), kind(&started)), (Transient, UnknownOutcome), "{case}: {read:?}, {started:?}");
        assert_eq!(took_effect, effects, "{case}");
    }
}

#[tokio::test]
async fn an_api_that_hangs_is_given_up_and_a_start_that_hung_may_have_happened() {
    let mut remote = remote().await;
    let calls = Calls::default();
    remote.client = remote.client.counted_in(calls.clone());
    let holds =
        ["before", "after"].map(|when| json!({ "kind": { "hold": format!("{when}_effect") }, "execution_id": when }));
    let there = json!({ "kind": { "hold": "before_effect" }, "execution_id": "there" });
    remote.api.faults(json!({ "faults": [holds[0], holds[1], there] })).await;
    let began = std::time::Instant::now();
    let (before, after) = (start("before"), start("after"));
    let (read, before, after) = tokio::join!(
        remote.client.get_execution("there"),
        remote.client.execute(echo(), &before),
        remote.client.execute(echo(), &after),
    );
    assert!(began.elapsed() >= REQUEST_TIMEOUT && began.elapsed() < 2 * REQUEST_TIMEOUT, "{:?}", began.elapsed());
    assert_eq!((kind(&read), kind(&before), kind(&after)), (Transient, UnknownOutcome, UnknownOutcome));
    let text = read.unwrap_err().to_string();
    assert_eq!(text, format!("{} did not answer in time", remote.api.url));
    let ids: Vec<_> = remote.api.executions().await.iter().map(|it| it["execution_id"].clone()).collect();
    assert_eq!(ids, ["there", "after"]);
    let counted = counted(&calls);
    let execute = "/v1/workflows/{workflow_identifier}/execute";
    for (route, method, count) in [("/v1/workflows/executions/{execution_id}", "GET", 1), (execute, "POST", 2)] {
        let line = format!("calls_count{{route=\"{route}\",method=\"{method}\",status=\"timeout\"}} {count}\n");
        assert!(counted.contains(&line), "{line} in {counted}");
    }
}

/// The metrics as they are exposed.
fn counted(calls: &Calls) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("calls", "Calls", calls.durations.clone());
    registry.register("in_flight", "Calls under way", calls.in_flight.clone());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test]
async fn calls_are_counted_by_route_and_outcome_and_the_same_whatever_is_named() {
    let remote = remote().await;
    let calls = Calls::default();
    let client = remote.client.clone().counted_in(calls.clone());
    for name in ["specimen-1", "specimen-2"] {
        client.execute(ExecuteTarget::Workflow("echo"), &start(name)).await.unwrap();
        client.get_execution(name).await.unwrap();
        client.get_workflow(name).await.unwrap_err();
    }
    let hold = json!({ "method": "PUT", "kind": { "hold": "before_effect" } });
    let cut = json!({ "route": "/v1/workflows/executions/*", "kind": { "truncate": true } });
    let close = json!({ "route": "/v1/workflows/registrations", "kind": { "close": "before_effect" } });
    remote.api.faults(json!({ "faults": [hold, cut, close] })).await;
    client.get_execution("specimen-1").await.unwrap_err();
    client.list_registrations(&RegistrationFilter { limit: 10, ..RegistrationFilter::default() }).await.unwrap_err();
    {
        let held = client.set_archived("specimen-1", true);
        let mut held = std::pin::pin!(held);
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), &mut held).await.is_err());
        assert!(counted(&calls).contains("in_flight 1\n"));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    super::client(&url).counted_in(calls.clone()).whoami().await.unwrap_err();

    let text = counted(&calls);
    // A call that was dropped before its end is no longer in flight.
    assert!(text.contains("in_flight 0\n"), "{text}");
    for (route, method, status, count) in [
        ("/v1/workflows/{workflow_identifier}/execute", "POST", "200", 2),
        ("/v1/workflows/executions/{execution_id}", "GET", "200", 2),
        ("/v1/workflows/executions/{execution_id}", "GET", "broken", 1),
        ("/v1/workflows/{workflow_identifier}", "GET", "404", 2),
        ("/v1/workflows/registrations", "GET", "broken", 1),
        ("/v1/workflows/workers/whoami", "GET", "connect", 1),
    ] {
        let line = format!("calls_count{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(!text.contains("specimen") && !text.contains("echo"), "{text}");
}

#[tokio::test]
async fn where_nobody_listens_nothing_can_have_started() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = client(&url);
    let (read, started) = (client.get_execution("e").await, client.execute(echo(), &start("e")).await);
    assert_eq!((kind(&read), kind(&started)), (Transient, Transient));
    let text = started.unwrap_err().to_string();
    assert!(text.starts_with(&format!("{url} cannot be reached: ")) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_refusal_whose_text_breaks_off_proves_nothing() {
    let answer = Arc::new(Mutex::new(String::new()));
    let said = Arc::clone(&answer);
    let tcp = Tcp::start(move |_| said.lock().unwrap().clone().into_bytes());
    let client = client(&tcp.url);
    for (status, read, started) in [
        ("200 OK", Transient, UnknownOutcome),
        ("401 Unauthorized", Unauthorized, Unauthorized),
        ("404 Not Found", Transient, UnknownOutcome),
        ("409 Conflict", Transient, UnknownOutcome),
        ("422 Unprocessable Entity", Transient, UnknownOutcome),
        ("429 Too Many Requests", Transient, Transient),
        ("503 Service Unavailable", Transient, UnknownOutcome),
    ] {
        *answer.lock().unwrap() = format!("HTTP/1.1 {status}\r\nContent-Length: 100\r\n\r\n{{\"detail\":");
        let outcomes = (client.get_execution("e").await, client.execute(echo(), &start("e")).await);
        assert_eq!((kind(&outcomes.0), kind(&outcomes.1)), (read, started), "{status}: {outcomes:?}");
    }
    for nonsense in ["", "HTTP/1.1", "SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 999999 No\r\n\r\n", "\u{0}\u{0}\r\n\r\n"] {
        nonsense.clone_into(&mut answer.lock().unwrap());
        let outcomes = (client.get_execution("e").await, client.execute(echo(), &start("e")).await);
        assert_eq!((kind(&outcomes.0), kind(&outcomes.1)), (Transient, UnknownOutcome), "{nonsense}: {outcomes:?}");
    }
}

/// A server whose answer can be replaced, and a client for it.
fn puppet() -> (Tcp, Client, impl Fn(u16, &[u8])) {
    let answer = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&answer);
    let tcp = Tcp::start(move |_| said.lock().unwrap().clone());
    let client = client(&tcp.url);
    let say = move |status: u16, body: &[u8]| *answer.lock().unwrap() = http(&format!("{status} Some"), "", body);
    (tcp, client, say)
}

/// The errors of all calls but the start, and the error of the start.
async fn errors(client: &Client) -> (Vec<Error>, Option<Error>) {
    let (workflows, runs) = (WorkflowFilter::default(), RunFilter::default());
    let others = [
        client.whoami().await.err(),
        client.list_workflows(&workflows).await.err(),
        client.list_registrations(&RegistrationFilter { limit: 1, ..RegistrationFilter::default() }).await.err(),
        client.get_workflow("w").await.err(),
        client.get_registration("r").await.err(),
        client.update_workflow("w", &UpdateRequest::default()).await.err(),
        client.set_archived("w", true).await.err(),
        client.set_archived_many(&["w".to_owned()], false).await.err(),
        client.get_execution("e").await.err(),
        client.cancel("e").await.err(),
        client.terminate("e").await.err(),
        client.list_runs(&runs).await.err(),
        client.get_run("r").await.err(),
        client.list_events::<Event>("e", None, 1000).await.err(),
    ];
    let started = client.execute(echo(), &start("e")).await.err();
    (others.into_iter().flatten().collect(), started)
}

/// Asserts what holds for every answer, however odd.
fn check(status: u16, body: &[u8], others: &[Error], started: Option<&Error>) {
    let case =
        || format!("{status} {:?}: {others:?}, {started:?}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    assert!(!others.iter().any(|error| matches!(error, Error::UnknownOutcome { .. })), "{}", case());
    let transient = matches!(started, Some(Error::Transient { .. }));
    assert_eq!(transient, status == 429, "{}", case());
    if !(200..300).contains(&status) {
        assert!(others.len() == 14 && started.is_some(), "{}", case());
    } else {
        assert!(matches!(started, None | Some(Error::UnknownOutcome { .. })), "{}", case());
    }
}

#[tokio::test]
async fn any_body_is_read_without_a_panic_and_no_success_is_made_up() {
    let (_tcp, client, say) = puppet();
    let deep = "[".repeat(100_000);
    let many = format!(r#"{{"detail":"{}"}}"#, "é".repeat(100_000));
    let bodies: [&[u8]; 25] = [
        b"",
        b" ",
        b"null",
        b"true",
        b"7",
        b"1e999",
        b"\"text\"",
        b"[]",
        b"[null]",
        b"{}",
        b"{",
        b"{\"a\":1}{\"a\":2}",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe\x00",
        b"\x1f\x8b\x08\x00",
        br#"{"detail":"\ud800"}"#,
        br#"{"detail":null,"code":{}}"#,
        br#"{"detail":[[[]],{"loc":7,"msg":[]}],"deployments":"a"}"#,
        br#"{"execution_id":7}"#,
        br#"{"execution_id":"e","status":7}"#,
        br#"{"workflow":7,"workflows":{},"executions":null,"events":7}"#,
        br#"{"namespace":[],"workflow_registrations":{},"archived":"yes","unarchived":[7]}"#,
        b"<html>502</html>",
        deep.as_bytes(),
        many.as_bytes(),
    ];
    for status in [200, 201, 202, 204, 299, 300, 304, 400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503, 504, 599] {
        for body in bodies {
            say(status, body);
            let (others, started) = errors(&client).await;
            check(status, body, &others, started.as_ref());
            assert!(started.is_some(), "{status} {body:?} is no started run");
            // Of these calls, all but `cancel` and `terminate` need a body. `whoami` and the updates need few of its
            // fields.
            assert!(others.len() >= 8, "{status} {:?}: {others:?}", String::from_utf8_lossy(body));
            for error in others.iter().chain(&started) {
                assert!(error.to_string().len() < 2048, "{error}");
            }
        }
    }
}

#[test]
fn any_answer_at_all_is_sorted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_tcp, client, say) = puppet();
    let text = "[{}\\[\\]\",:a-z0-9 \\\\é]{0,60}".prop_map(String::into_bytes);
    let body = prop_oneof![proptest::collection::vec(any::<u8>(), 0..60), text];
    let config = ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(status in 200u16..600, body in body)| {
        say(status, &body);
        let (others, started) = runtime.block_on(errors(&client));
        check(status, &body, &others, started.as_ref());
    });
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_stays_at_its_origin() {
    let elsewhere = Tcp::json(&json!({ "execution_id": "e" }));
    let place = elsewhere.url.clone();
    let status = Arc::new(Mutex::new(0));
    let wanted = Arc::clone(&status);
    let here = Tcp::start(move |_| {
        let location = format!("Location: {place}/v1/workflows/executions/e\r\n");
        http(&format!("{} Moved", wanted.lock().unwrap()), &location, b"")
    });
    let client = client(&here.url);
    for redirect in [301, 302, 303, 307, 308] {
        *status.lock().unwrap() = redirect;
        let outcomes = (client.get_execution("e").await, client.execute(echo(), &start("e")).await);
        // Something on the way may have passed the start on.
        assert_eq!((kind(&outcomes.0), kind(&outcomes.1)), (Rejected, UnknownOutcome), "{redirect}: {outcomes:?}");
        assert_eq!(here.requests().len(), 2, "{redirect}");
        assert_eq!(elsewhere.requests(), Vec::<String>::new(), "{redirect}");
    }
}

#[tokio::test]
async fn the_key_shows_nowhere_even_if_the_api_echoes_it() {
    let (tcp, client, say) = puppet();
    assert!(!format!("{client:?} {client:#?}").contains("canary"));
    let bodies = [
        format!(r#"{{"detail":"bad key {KEY}"}}"#),
        format!(r#"{{"message":"Bearer {KEY}","code":"{KEY}","deployments":["{KEY}"]}}"#),
        format!(r#"{{"detail":[{{"loc":["header","{KEY}"],"msg":"{KEY}","input":"{KEY}"}}]}}"#),
        format!(r#"{{"detail":{{"headers":{{"authorization":"Bearer {KEY}"}}}}}}"#),
        format!(r#"{{"execution_id":{{"{KEY}":1}},"workflow":"{KEY}"}}"#),
        format!("\"{KEY}\""),
        format!("<html>{KEY}</html>"),
        format!("{{\"{KEY}"),
    ];
    for status in [200, 302, 400, 401, 403, 404, 409, 422, 429, 500, 503] {
        for body in &bodies {
            say(status, body.as_bytes());
            let (others, started) = errors(&client).await;
            assert!(started.is_some());
            for error in others.iter().chain(&started) {
                assert!(!format!("{error} {error:?}").contains("canary"), "{status} {body}: {error:?}");
            }
        }
    }
    assert!(tcp.requests().iter().all(|request| header(request, "authorization").unwrap().contains(KEY)));
}

#[tokio::test]
async fn a_key_at_the_place_where_a_long_text_is_cut_does_not_show_in_part() {
    let (_tcp, client, say) = puppet();
    for before in 1024 - KEY.len()..1024 {
        say(400, format!(r#"{{"detail":"{}{KEY}"}}"#, "x".repeat(before)).as_bytes());
        let error = client.whoami().await.unwrap_err().to_string();
        assert!(error.contains("xxx") && !error.contains("xca"), "with {before} before it: …{}", &error[1000..]);
    }
}
