//! What every request carries, and that an id stays at its place in the path.

use super::*;

#[tokio::test]
async fn requests_carry_the_key_and_say_who_asks_and_what_is_understood() {
    let tcp = Tcp::json(&json!({ "execution_id": "e", "namespace": "n" }));
    let client = client(&tcp.url);
    client.whoami().await.unwrap();
    client.cancel("e").await.unwrap();
    client.execute(echo(), &start("e")).await.unwrap();
    let requests = tcp.requests();
    for (request, (line, content_type, body)) in requests.iter().zip([
        ("GET /v1/workflows/workers/whoami HTTP/1.1", None, ""),
        ("POST /v1/workflows/executions/e/cancel HTTP/1.1", None, ""),
        ("POST /v1/workflows/echo/execute HTTP/1.1", Some("application/json"), r#"{"execution_id":"e"}"#),
    ]) {
        assert_eq!(request.lines().next(), Some(line));
        let agent = format!("mistral-workflows-operator/{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(header(request, "user-agent"), Some(agent.as_str()), "{request}");
        assert_eq!(header(request, "accept"), Some("application/json"), "{request}");
        assert_eq!(header(request, "authorization"), Some(format!("Bearer {KEY}").as_str()), "{request}");
        assert_eq!(header(request, "content-type"), content_type, "{request}");
        assert_eq!(request.split("\r\n\r\n").nth(1), Some(body), "{request}");
    }
    assert_eq!(requests.len(), 3);
}

/// Calls every endpoint that has `id` in its path.
async fn call_all(client: &Client, id: &str) {
    // The answers do not matter here.
    let _ = client.get_workflow(id).await;
    let _ = client.update_workflow(id, &UpdateRequest::default()).await;
    let _ = client.set_archived(id, true).await;
    let _ = client.execute(ExecuteTarget::Workflow(id), &start("e")).await;
    let _ = client.get_registration(id).await;
    let _ = client.execute(ExecuteTarget::Registration(id), &start("e")).await;
    let _ = client.get_execution(id).await;
    let _ = client.cancel(id).await;
    let _ = client.terminate(id).await;
    let _ = client.get_run(id).await;
}

/// The request lines of [`call_all`] for a path segment.
fn lines(segment: &str) -> Vec<String> {
    ["GET @", "PUT @", "PUT @/archive", "POST @/execute", "GET registrations/@", "POST registrations/@/execute"]
        .into_iter()
        .chain(["GET executions/@", "POST executions/@/cancel", "POST executions/@/terminate", "GET runs/@"])
        .map(|line| format!("{} HTTP/1.1", line.replacen(' ', " /v1/workflows/", 1).replace('@', segment)))
        .collect()
}

fn request_lines(tcp: &Tcp) -> Vec<String> {
    tcp.requests().iter().map(|request| request.lines().next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn no_id_can_leave_its_place_in_the_path() {
    let tcp = Tcp::json(&json!({}));
    for (id, segment) in [
        ("plain", "plain"),
        ("a/b", "a%2Fb"),
        ("../runs", "..%2Fruns"),
        ("a?b=c", "a%3Fb=c"),
        ("a#b", "a%23b"),
        ("a%2Fb", "a%252Fb"),
        ("%2e%2e", "%252e%252e"),
        ("a\\b", "a%5Cb"),
        ("a b", "a%20b"),
        // URLs drop line breaks. The rest of the id stays in its segment.
        ("a\r\nX-Header: b", "aX-Header:%20b"),
        ("ü", "%C3%BC"),
    ] {
        call_all(&client(&tcp.url), id).await;
        assert_eq!(request_lines(&tcp), lines(segment), "{id:?}");
    }
}

#[tokio::test]
async fn a_dot_or_two_as_an_id_cannot_reach_another_route() {
    let tcp = Tcp::json(&json!({}));
    let depths = |lines: Vec<String>| lines.iter().map(|line| line.matches('/').count()).collect::<Vec<_>>();
    for id in [".", "..", ".\t.", "\n.."] {
        call_all(&client(&tcp.url), id).await;
        let sent = request_lines(&tcp);
        // An unescaped `..` would turn the cancel of one execution into `POST …/executions/cancel`.
        assert!(sent.is_empty() || depths(sent.clone()) == depths(lines("x")), "{id:?}: {sent:#?}");
    }
}

#[tokio::test]
async fn a_client_knows_which_address_and_key_it_uses() {
    let client = client("http://127.0.0.1:1");
    let key = |text: &str| SecretString::from(text);
    assert!(client.uses(&"http://127.0.0.1:1/".parse().unwrap(), &key(KEY)));
    assert!(!client.uses(&"http://127.0.0.1:2".parse().unwrap(), &key(KEY)));
    assert!(!client.uses(&"http://127.0.0.1:1".parse().unwrap(), &key("another")));
}
