//! A faithful in-memory Mistral Workflows API, for tests and demonstrations.
//!
//! The simulator serves the API over HTTP with wire types of its own, so that a mistake in a client's types shows. Behind it are
//! virtual workflows that take a while and complete, fail, time out or hang, as a test decides ([`Behaviour`]). Everything is in
//! memory and ends with the [`Simulator`].
//!
//! What it does follows Mistral's OpenAPI document and what was seen live; where both are silent, a switch picks the answer
//! (`/__sim/switches`). Each bearer token opens a workspace; tokens that nobody listed share the workspace `default`.
//!
//! # Controls
//!
//! | Request | What it does |
//! |---|---|
//! | `GET /__sim/calls`, `DELETE` | per workspace, method and route: arrivals, effects (calls that changed something) and statuses; resets them |
//! | `GET /__sim/executions` | per execution id: workflow, input, how often it was started, status |
//! | `GET /__sim/streams` | `{"open"}`: how many event streams of all workspaces are open |
//! | `POST /__sim/executions/{id}/finish` | ends a running execution: `{"outcome", "result"?, "error"?}` |
//! | `DELETE /__sim/executions/{id}` | forgets an execution, as if its retention had passed |
//! | `POST /__sim/workflows` | registers a [`WorkflowSpec`], or registers it again |
//! | `PATCH`, `DELETE /__sim/workflows/{name}` | changes the mentioned fields, as a person in Mistral's console would, or as its workers come and go (`"deployments": [{"name", "active"}]`); removes it |
//! | `PUT /__sim/faults`, `GET` | replaces all faults and releases all held requests: `{"faults", "hide_new_executions_ms"?, "seed"?}` |
//! | `GET /__sim/held`, `POST /__sim/held/{id}/release`, `POST /__sim/held/release` | requests that a fault holds; lets them go on |
//! | `PUT /__sim/switches`, `GET` | the answers to what is documented nowhere; an absent field means its default |
//! | `PUT /__sim/tokens/{token}`, `DELETE` | `{"workspace"}` lets a token in; revokes it |
//!
//! The lists cover all workspaces, or that of `?workspace=NAME`. Workflows are those of `?workspace=NAME`, by default `default`.
//!
//! # Faults
//!
//! `{"name"?, "workspace"?, "method"?, "route"?, "execution_id"?, "times"?, "rate"?, "kind"}`, where `route` is a template
//! (`/v1/workflows/{workflow_identifier}/execute`), a literal path, or with a final `*` the beginning of a path, and `kind` one of
//!
//! - `{"latency_ms": 100}`: wait before the effect;
//! - `{"error": {"status", "body"?, "content_type"?, "headers"?, "after_effect"?}}`: answer with an error; without `body` one that
//!   is usual for the status;
//! - `{"hold": "before_effect" | "after_effect"}`: wait for a release;
//! - `{"close": "before_effect" | "after_effect"}`: close the connection without an answer;
//! - `{"truncate": true}`: send half of the answer's body and close the connection;
//! - `{"cut_stream_after_ms": 100}`: break an event stream off;
//! - `{"fail_stream_after_ms": 100}`: end an event stream with an error frame.
//!
//! `hide_new_executions_ms` keeps executions that start from now on out of reads, cancels and terminates for so long, also when
//! they have ended by then; their ids are taken all the same, and event streams, which come from elsewhere, tell of them.
//! `GET /__sim/faults` also tells what came of all orders so far: `struck`, how often faults have struck, by their names or else
//! their kinds, and `concealed`, how often a hidden execution was asked for, canceled or terminated.
//! Faults strike in the order of the list, those before the effect first. A client that leaves before the effect has had none.
//!
//! # Switches
//!
//! | Switch | Default | Else |
//! |---|---|---|
//! | `unknown_workflow_code` | `"WF_1100"` | another code in the `404`; `null` for none |
//! | `execute_archived`, `execute_without_worker` | `"accept"` | `"reject"`: `409` |
//! | `cancel_finished` | `409` | `204` |
//! | `reuse_finished_id` | `"new_run"` | `"conflict"`: `409 WF_1101` |
//! | `put_null` | `"untouched"` | `"clear"` |
//! | `reregistration` | `"keep"`: a client's updates of a workflow outlive that it is registered again | `"overwrite"`: display name and description are the worker's again, and the workflow is not archived |
//! | `repeated_archive` | `200` | `409`, also for unarchiving what is not archived; never for the bulk calls, which are documented to allow it |
//! | `null_workflow` | `false` | `true`: updates, archiving and unarchiving answer with `null` in place of the workflow |
//! | `running_status` | `"RUNNING"` | any word, such as `"RETRYING_AFTER_ERROR"`, or `null` |
//! | `failed_result` | `null` | any JSON |
//! | `archived_as_string` | `false` | `true`: `"true"` and `"false"` |
//! | `drop_terminal_events` | `false` | `true`: COMPLETED, FAILED and CANCELED events get lost, in the list and in the streams |
//! | `unscoped_stream` | `"accept"` | `"reject"`: `422` for an event stream that names no execution, root or parent; newer documents say so |
//! | `stream_ids` | `false` | `true`: frames have an `id`, the `broker_sequence` |
//! | `execution_stream_ends` | `true` | `false`: the stream of an execution stays open after its end |
//! | `heartbeat_ms` | `15000` | another time after which a silent stream sends a comment |
//! | `wait_timeout_status`, `wait_failure_status` | `504`, `500` | other statuses of a `wait_for_result` |
//! | `wait_default_timeout_s` | `60` | how long it waits when the client does not say |
//!
//! # Event streams
//!
//! `GET /v1/workflows/events/stream` replays the events of the workspace from `start_seq` on, or after the `Last-Event-ID`, and
//! then goes on live without an end. `GET /v1/workflows/executions/{execution_id}/stream` tells of the newest start of that id with
//! all continuations; its `event_source` means what is stored (`DATABASE`), what is still to come (`LIVE`) or both. A
//! `broker_sequence` counts the events of a workspace from 1, and no number is ever used again. As no event tells that a run timed
//! out or was terminated, the stream of such an execution ends without a word.
//!
//! # Limits
//!
//! Schedules cannot be created: their list is empty and every id is unknown. Signals, queries, updates, resets, histories, traces
//! and logs are not there, nor are managed deployments; a deployment is there because a workflow was registered with it, and has
//! one worker.
//!
//! 2 MB of input are 2 MiB of compact JSON, and more is a `422`; a body above 4 MiB is a `413`. The size of results is not limited.

mod api;
mod books;
mod calls;
mod catalog;
mod clock;
mod control;
mod deployments;
mod events;
mod executions;
mod faults;
mod fields;
mod held;
mod live;
mod page;
mod query;
mod registrations;
mod reply;
mod request;
mod route;
mod run;
mod runs;
mod schedules;
mod server;
mod spec;
mod state;
mod stream;
mod switches;
mod validate;
mod wire;
mod workflows;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use crate::spec::{Behaviour, DeploymentSpec, Outcome, WorkflowSpec};

use crate::catalog::Catalog;
use crate::state::{Shared, State, Tokens};
use crate::switches::Reregistration;

/// How a simulator begins.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Names of workspaces and a token of each; a name may stand several times.
    pub workspaces: Vec<(String, String)>,
    /// The workflows that every workspace begins with.
    pub workflows: Vec<WorkflowSpec>,
    /// Seed of the random numbers that fault rates are drawn with.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), workspaces: Vec::new(), workflows: Vec::new(), seed: 0 }
    }
}

/// Why a simulator could not start, or a workflow not be registered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not free, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The specification of a workflow makes no sense.
    #[error("workflow: {0}")]
    Workflow(String),
}

/// A running simulator. Dropping it stops the server and closes its connections.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Starts a simulator on the current Tokio runtime; it is ready when this returns.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let mut trial = Catalog::default();
        for spec in &options.workflows {
            trial.register(spec.clone(), Reregistration::Keep)?;
        }
        let mut tokens = Tokens::default();
        for (workspace, token) in options.workspaces {
            tokens.grant(token, workspace);
        }
        let failed = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = State::new(tokens, options.workflows, options.seed);
        let shared = Arc::new(Shared::new(state));
        let server = tokio::spawn(server::serve(listener, shared));
        Ok(Self { address, server })
    }

    /// The base URL of the API, without a final slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}
