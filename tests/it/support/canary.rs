//! The secrets of the tests, searched for wherever they must not be. Each [`World`](super::World) searches when its
//! test ends, so no test has to do so itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Request};
use kube::{Api, Client, Resource};
use mistral_workflows_operator::api::crds;
use mistral_workflows_operator::json::Json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The beginning of every test secret, as plain text and as Base64 in a Secret's data.
const MARKS: [&str; 2] = ["canary-", "Y2FuYXJ5L"];

/// A secret in the text, with the text around it.
pub fn find(source: &str, text: &str) -> Option<String> {
    let at = MARKS.iter().filter_map(|mark| text.find(mark)).min()?;
    let from = text.floor_char_boundary(at.saturating_sub(300));
    let to = text.floor_char_boundary(at + 40);
    Some(format!("a secret in {source}: …{}…", &text[from..to]))
}

/// Log lines that contain a secret. Other lines are dropped.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<Vec<String>>>);

impl Watched {
    pub fn found(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Watched {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let found = find("the log of an operator in this process", &String::from_utf8_lossy(line));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Watched {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A subscriber for the logs of operators in this process, at the finest levels.
pub fn subscriber(watched: &Watched) -> impl tracing::Subscriber + Send + Sync + use<> {
    let filter = EnvFilter::new("mistral_workflows_operator=trace,kube=debug,kube_runtime=debug,reqwest=debug");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(watched.clone()).finish()
}

/// The logs of all operators in this process, since the first call.
pub fn logs() -> &'static Watched {
    static LOGS: OnceLock<Watched> = OnceLock::new();
    LOGS.get_or_init(|| {
        let watched = Watched::default();
        tracing::subscriber::set_global_default(subscriber(&watched)).unwrap();
        watched
    })
}

/// Finds secrets in everything that people and programs can read in a namespace, except its Secrets: Events,
/// ConfigMaps, and the status and metadata of all resources of the CRDs' kinds.
pub async fn in_objects(client: &Client, namespace: &str) -> Vec<String> {
    let all = ListParams::default();
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let events = events.list(&all).await.unwrap().items;
    let mut found: Vec<String> =
        events.iter().filter_map(|event| find("an Event", &serde_json::to_string(event).unwrap())).collect();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for object in config_maps.list(&all).await.unwrap().items {
        found.extend(find("a ConfigMap", &serde_json::to_string(&object).unwrap()));
    }
    for crd in crds() {
        let kind = &crd.spec.names.kind;
        let gvk = GroupVersionKind::gvk(&crd.spec.group, &crd.spec.versions[0].name, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, &crd.spec.names.plural);
        // As text, because objects may be nested too deep for any type.
        let list = Request::new(DynamicObject::url_path(&resource, Some(namespace))).list(&all).unwrap();
        let list = Json::from_text(client.request_text(list).await.unwrap()).unwrap();
        let items: Vec<Json> = serde_json::from_str(list.field("items").unwrap().text()).unwrap();
        for object in items {
            for part in ["metadata", "status"] {
                let text = object.field(part).map(|part| part.text().to_owned()).unwrap_or_default();
                found.extend(find(&format!("{part} of a {kind}"), &text));
            }
        }
    }
    found
}

/// Finds secrets in the logs of operators that ran as separate processes.
pub fn in_files(folder: &Path, prefix: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let ours = files.filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    ours.filter_map(|file| find(&file.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&file).unwrap())))
        .collect()
}

/// Finds a secret in the metrics of the operator at this address. `None` if nothing listens there.
pub fn in_metrics(address: SocketAddr) -> Option<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = Vec::new();
    // A stopped operator does not answer.
    let _ = stream.read_to_end(&mut text);
    find("metrics", &String::from_utf8_lossy(&text))
}

/// Fails the test if a secret was found. A test that has already failed is left alone.
pub fn assert_none(found: &[String]) {
    if !std::thread::panicking() {
        assert!(found.is_empty(), "{found:#?}");
    }
}
