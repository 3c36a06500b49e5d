//! The client against every endpoint, over HTTP. Failures are in `errors`.

mod endpoints;
mod errors;
mod requests;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use mistral_simulator::{Options, Simulator};
use mistral_workflows_operator::mistral::wire::{ExecuteRequest, UpdateRequest};
use mistral_workflows_operator::mistral::{
    Client, Error, ExecuteTarget, RegistrationFilter, RunFilter, WorkflowFilter,
};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::{KEY, SOON, Simulated, until};

/// A simulator, its controls, and a client for it.
struct Remote {
    client: Client,
    api: Simulated,
    _simulator: Simulator,
}

impl Remote {
    async fn start() -> Self {
        let simulator = Simulator::start(Options::default()).await.unwrap();
        // Installs the rustls provider.
        let api = Simulated::new(simulator.url());
        Self { client: client(&api.url), api, _simulator: simulator }
    }

    async fn register(&self, name: &str, behaviour: Value) -> Value {
        self.api.register(json!({ "name": name, "behaviour": behaviour })).await
    }
}

fn client(url: &str) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(url.parse().unwrap(), SecretString::from(KEY)).unwrap()
}

/// A start with only the required field.
fn start(execution_id: &str) -> ExecuteRequest {
    ExecuteRequest { execution_id: execution_id.into(), ..ExecuteRequest::default() }
}

fn echo() -> ExecuteTarget<'static> {
    ExecuteTarget::Workflow("echo")
}

/// A minimal server for answers that no API would give. It serves one request per connection, any number of times, and
/// records the requests.
struct Tcp {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Tcp {
    /// Answers each request with the bytes from `answer`, and closes the connection.
    fn start(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(request) = read_request(&mut stream) else { continue };
                let answer = answer(&request);
                seen.lock().unwrap().push(request);
                // The client may have left.
                let _ = stream.write_all(&answer);
            }
        });
        Self { url, requests }
    }

    /// Always answers with the same JSON and status 200.
    fn json(body: &Value) -> Self {
        let answer = http("200 OK", "Content-Type: application/json\r\n", body.to_string().as_bytes());
        Self::start(move |_| answer.clone())
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// Head and body of one request. `None` if the peer closed the connection first.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(text.into_owned());
            }
        }
    }
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let head = request.split("\r\n\r\n").next()?;
    let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}
