//! The server of health checks and metrics, which no client in the cluster can exhaust.
//!
//! Any client that reaches the port may open connections and leave them idle. Each takes a file descriptor and memory,
//! and a process without descriptors reaches neither the cluster nor other servers. So connections are few and short,
//! and there is always room for another: the oldest is closed. A probe sends its request as soon as it is connected, and
//! is answered at once.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

/// Limit of a request's line and headers, in bytes: the lowest that hyper allows.
const HEAD: usize = 8 * 1024;
/// Limit of the number of headers.
const HEADERS: usize = 64;
/// Pause after a connection could not be accepted, for example for lack of file descriptors.
const REST: Duration = Duration::from_millis(100);
/// How often to log that no connection can be accepted.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
struct Limits {
    /// Connections that are open at a time.
    connections: usize,
    /// Time from the connection to the end of the request's headers.
    head: Duration,
    /// Time from the connection to the end of the response.
    whole: Duration,
}

/// A kubelet and one or two Prometheus servers hold a connection each, for milliseconds.
const LIMITS: Limits = Limits { connections: 64, head: Duration::from_secs(5), whole: Duration::from_secs(10) };

/// Answers one request on each connection, for as long as the process lives.
pub async fn serve(listener: TcpListener, routes: Router) {
    serve_within(LIMITS, || listener.accept(), routes).await;
}

async fn serve_within<F>(limits: Limits, mut accept: impl FnMut() -> F, routes: Router)
where
    F: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD).max_headers(HEADERS);
    // A client connects anew for each request. An idle connection would take the place of another client.
    http.keep_alive(false);
    let mut open = Connections::default();
    let mut complained: Option<Instant> = None;
    loop {
        let (stream, peer) = match accept().await {
            Ok(accepted) => accepted,
            // The client ended this connection; the server is unaffected.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => continue,
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    tracing::warn!(%error, "the health server cannot accept connections, and tries again");
                }
                // The oldest connection may hold the missing descriptor.
                open.close_one();
                sleep(REST).await;
                continue;
            }
        };
        open.make_room(limits.connections);
        let (http, routes) = (http.clone(), routes.clone());
        let connection = tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| routes.clone().oneshot(request));
            let connection = http.serve_connection(TokioIo::new(stream), service);
            match timeout(limits.whole, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::trace!(%peer, %error, "a connection to the health server broke off"),
                Err(_) => tracing::trace!(%peer, "a connection to the health server took too long"),
            }
        });
        open.0.push((peer.ip().to_canonical(), connection.abort_handle()));
        // A request that came with the connection is answered before other connections can take its place.
        tokio::task::yield_now().await;
    }
}

/// Open connections, the oldest first, and their addresses.
#[derive(Default)]
struct Connections(Vec<(IpAddr, AbortHandle)>);

impl Connections {
    /// Closes connections until fewer than `most` are open.
    fn make_room(&mut self, most: usize) {
        self.0.retain(|(_, connection)| !connection.is_finished());
        while self.0.len() >= most {
            self.close_one();
        }
    }

    /// Closes the oldest connection of the address that has the most. So a flood from one pod costs the kubelet
    /// nothing. If all connections come from one address, such as a proxy's, the oldest of all is closed.
    fn close_one(&mut self) {
        let of = |address: &IpAddr| self.0.iter().filter(|(other, _)| other == address).count();
        let most = self.0.iter().map(|(address, _)| of(address)).max();
        if let Some(oldest) = self.0.iter().position(|(address, _)| Some(of(address)) == most) {
            self.0.remove(oldest).1.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Limits =
        Limits { connections: 4, head: Duration::from_millis(300), whole: Duration::from_millis(600) };
    /// Time limit, on a busy machine, for what should happen soon.
    const SOON: Duration = Duration::from_secs(20);

    /// A server with these limits, which answers at `/` and never at `/never`.
    async fn server(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", get(async || "here\n")).route("/never", get(pending::<String>));
        tokio::spawn(async move { serve_within(limits, || listener.accept(), routes).await });
        address
    }

    /// Everything that a connection brings until it is closed.
    async fn read(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        // A connection that is closed before everything was read from it ends with an error.
        let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("it is closed");
        String::from_utf8(bytes).unwrap()
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        read(&mut stream).await
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_or_slowly_is_closed_and_so_is_one_whose_answer_never_comes() {
        let address = server(SHORT).await;
        let begun = Instant::now();
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let (idle, slow, never) = futures::join!(read(&mut idle), read(&mut slow), ask(address, "/never"));
        for answer in [&idle, &slow] {
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
        assert_eq!(never, "");
        assert!(begun.elapsed() >= SHORT.whole);
    }

    #[tokio::test]
    async fn a_connection_is_for_one_request_and_closed_after_its_answer() {
        let whole = Duration::from_secs(3600);
        let address = server(Limits { connections: 4, head: whole, whole }).await;
        let answer = ask(address, "/").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here\n"), "{answer}");
    }

    #[tokio::test]
    async fn headers_that_are_too_long_or_too_many_are_refused() {
        let address = server(Limits { head: SOON, whole: SOON, ..SHORT }).await;
        for head in [format!("x: {}\r\n", "y".repeat(2 * HEAD)), "x: y\r\n".repeat(HEADERS + 1)] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET / HTTP/1.1\r\n{head}\r\n").as_bytes()).await.unwrap();
            let mut begin = [0; 12];
            timeout(SOON, stream.read_exact(&mut begin)).await.unwrap().unwrap();
            assert_eq!(str::from_utf8(&begin).unwrap(), "HTTP/1.1 431");
        }
    }

    #[tokio::test]
    async fn however_many_idle_connections_there_are_a_new_one_is_answered_and_the_oldest_are_closed() {
        let whole = Duration::from_secs(3600);
        let address = server(Limits { connections: 4, head: whole, whole }).await;
        let mut idle = Vec::new();
        for _ in 0..50 {
            idle.push(TcpStream::connect(address).await.unwrap());
            assert!(ask(address, "/").await.ends_with("here\n"));
        }
        // The client does not know which connections are left, nor which one took the place of an answered one.
        for connection in &mut idle[..46] {
            assert_eq!(read(connection).await, "");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_accept_is_not_the_servers_end_and_not_repeated_at_once() {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let mut failures = 0..50;
        let accept = move || {
            let (failure, listener) = (failures.next(), Arc::clone(&listener));
            async move {
                match failure {
                    // EMFILE, which has no `ErrorKind`.
                    Some(_) => Err(io::Error::from_raw_os_error(24)),
                    None => listener.accept().await,
                }
            }
        };
        let begun = Instant::now();
        let routes = Router::new().route("/", get(async || "here\n"));
        tokio::spawn(serve_within(LIMITS, accept, routes));
        sleep(49 * REST).await;
        assert!(begun.elapsed() < 50 * REST);
        assert!(ask(address, "/").await.ends_with("here\n"));
        assert!(begun.elapsed() >= 50 * REST, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_flood_from_one_address_costs_the_others_nothing() {
        let task = || tokio::spawn(pending::<()>()).abort_handle();
        let [kubelet, flood] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse::<IpAddr>().unwrap());
        let mut open = Connections(vec![(kubelet, task())]);
        for _ in 0..100 {
            open.make_room(4);
            open.0.push((flood, task()));
        }
        assert_eq!(open.0.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [kubelet, flood, flood, flood]);
        open.make_room(1);
        assert!(open.0.is_empty());
        // With nothing to close, this does not fail.
        open.close_one();
    }
}
