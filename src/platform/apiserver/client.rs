//! The connection to the API server: what the operator changes in kube's defaults.

use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use kube::runtime::watcher;
use reqwest::header::{self, HeaderValue};
use tower::limit::ConcurrencyLimitLayer;

use crate::platform::names::USER_AGENT;

/// Longest silence of the API server on a connection with a pending response. Longer than any [watch](watching).
const SILENCE: Duration = Duration::from_secs(60);

/// Adapts kube's defaults for calls to the API server.
///
/// By default, kube does not identify the operator, and repeats writes up to 15 times. It sends requests to the cluster
/// through the proxy that HTTPS_PROXY names for other servers. It waits forever for the response to a list or watch
/// whose other end is gone: a leader would go on renewing its Lease and see no more changes.
pub fn tuned(mut config: kube::Config) -> kube::Config {
    config.default_retry = false;
    config.proxy_url = None;
    config.read_timeout = Some(SILENCE);
    // The timeout counts from the request, not from when the connection fell idle.
    config.reset_reader_on_write = true;
    config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    config
}

/// Requests to the API server that may be in flight at a time. Each has a connection of its own. By default, an API
/// server takes as many changes from all its clients (`--max-mutating-requests-inflight`).
const AT_ONCE: usize = 200;

/// A client whose requests queue when too many are in flight. A watch counts until it begins.
///
/// # Errors
/// When the certificates cannot be used.
pub fn client(config: kube::Config) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&ConcurrencyLimitLayer::new(AT_ONCE)).build())
}

/// Objects in a page of a list, at most: objects that are decoded together are in memory together.
pub const PAGE: u32 = 100;

/// Configures a watch: the API server ends it before its silent connection would count as dead.
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(50).page_size(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ten_thousand_writes_do_not_open_ten_thousand_connections() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let client = client(tuned(kube::Config::new(address.parse().unwrap()))).unwrap();
        let writes: Vec<_> = (0..3 * AT_ONCE)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.apiserver_version().await })
            })
            .collect();
        let mut opened = Vec::new();
        let more = async |opened: &mut Vec<_>| opened.push(silent.accept().await.unwrap());
        while opened.len() < AT_ONCE {
            tokio::time::timeout(Duration::from_secs(60), more(&mut opened)).await.expect("fewer than are allowed");
        }
        assert!(
            tokio::time::timeout(Duration::from_secs(1), more(&mut opened)).await.is_err(),
            "more than are allowed"
        );
        // Requests that are given up make room for others.
        writes[..AT_ONCE].iter().for_each(|write| write.abort());
        tokio::time::timeout(Duration::from_secs(60), more(&mut opened)).await.expect("nobody goes on");
    }
}
