//! A faithful in-memory Mistral Workflows API, for tests and demonstrations.
//!
//! The simulator serves the API over HTTP. It has its own wire types, so that a mistake in a client's types shows.
//! Behind the API are virtual workflows that take some time and then complete, fail, time out or hang, as a test
//! decides ([`Behaviour`]). All state is in memory and ends with the [`Simulator`].
//!
//! The behaviour follows Mistral's OpenAPI document and observations of the live API. Where both are silent, a switch
//! selects the answer (`/__sim/switches`). Each bearer token opens a workspace; unlisted tokens share the workspace
//! `default`.
//!
//! # Controls
//!
//! - `GET /__sim/calls`: counts per workspace, method and route: arrivals, effects (calls that changed something) and
//!   statuses. `DELETE` resets them.
//! - `GET /__sim/executions`: the workflow, input, number of starts and status of each execution id.
//! - `GET /__sim/streams`: `{"open"}`, the number of open event streams in all workspaces.
//! - `POST /__sim/executions/{id}/finish`: ends a running execution. The body is `{"outcome", "result"?, "error"?}`.
//! - `DELETE /__sim/executions/{id}`: forgets an execution, as if its retention had passed.
//! - `POST /__sim/workflows`: registers a [`WorkflowSpec`], or registers it again.
//! - `PATCH /__sim/workflows/{name}`: changes the given fields, as an edit in Mistral's console would, or as workers do
//!   when they come and go (`"deployments": [{"name", "active"}]`). `DELETE` removes the workflow.
//! - `PUT /__sim/faults`: replaces all faults and releases all held requests. The body is `{"faults",
//!   "hide_new_executions_ms"?, "seed"?}`. `GET` returns the faults.
//! - `GET /__sim/held`: lists the requests that a fault holds. `POST /__sim/held/{id}/release` releases one, `POST
//!   /__sim/held/release` all.
//! - `PUT /__sim/switches`: selects answers that are documented nowhere; an absent field means its default. `GET`
//!   returns the switches.
//! - `PUT /__sim/tokens/{token}`: admits a token. The body is `{"workspace"}`. `DELETE` revokes the token.
//!
//! Lists cover all workspaces, or only that of `?workspace=NAME`. Workflows belong to `?workspace=NAME`, by default
//! `default`.
//!
//! # Faults
//!
//! `{"name"?, "workspace"?, "method"?, "route"?, "execution_id"?, "times"?, "rate"?, "kind"}`. `route` is a template
//! (`/v1/workflows/{workflow_identifier}/execute`), a literal path, or a path prefix that ends in `*`. `kind` is one
//! of:
//!
//! - `{"latency_ms": 100}`: wait before the effect.
//! - `{"error": {"status", "body"?, "content_type"?, "headers"?, "after_effect"?}}`: answer with an error. `body`
//!   defaults to the usual one for the status.
//! - `{"hold": "before_effect" | "after_effect"}`: wait for a release.
//! - `{"close": "before_effect" | "after_effect"}`: close the connection without an answer.
//! - `{"truncate": true}`: send half of the answer's body and close the connection.
//! - `{"cut_stream_after_ms": 100}`: break an event stream off.
//! - `{"fail_stream_after_ms": 100}`: end an event stream with an error frame.
//!
//! `hide_new_executions_ms` hides every execution that starts from now on. For that long, reads, cancels and terminates
//! do not find the execution, even if it has ended by then. Its id is taken nevertheless, and event streams, which have
//! another source, report it. `GET /__sim/faults` also returns totals since the simulator started: `struck` counts
//! strikes per fault name, or per kind for unnamed faults; `concealed` counts gets, cancels and terminates of hidden
//! executions. Faults strike in list order, those before the effect first. A request whose client disconnects before
//! the effect has no effect.
//!
//! # Switches
//!
//! Each default is in parentheses.
//!
//! - `unknown_workflow_code` (`"WF_1100"`): another code in the `404`; `null` for none.
//! - `execute_archived` (`"accept"`): `"reject"` answers `409`.
//! - `execute_without_worker` (`"not_found"`): `404` where no live worker serves the workflow. With `"accept"`, the run
//!   waits for a worker; `"reject"` answers `409`.
//! - `cancel_finished` (`409`): or `204`.
//! - `reuse_finished_id` (`"new_run"`): `"conflict"` answers `409 WF_1101`.
//! - `put_null` (`"untouched"`): or `"clear"`.
//! - `reregistration` (`"keep"`): a client's updates of a workflow survive another registration. With `"overwrite"`,
//!   display name and description are the worker's again, and the workflow is not archived.
//! - `repeated_archive` (`200`): or `409`, also for unarchiving a workflow that is not archived. Bulk calls never
//!   answer `409`: their documentation allows repetition.
//! - `null_workflow` (`false`): with `true`, updates, archiving and unarchiving answer with `null` in place of the
//!   workflow.
//! - `running_status` (`"RUNNING"`): any word, such as `"RETRYING_AFTER_ERROR"`, or `null`.
//! - `failed_result` (`null`): any JSON.
//! - `archived_as_string` (`false`): with `true`, `"true"` and `"false"`.
//! - `encoded_payloads` (`false`): with `true`, events show inputs and results as opaque text.
//! - `drop_terminal_events` (`false`): with `true`, COMPLETED, FAILED and CANCELED events get lost, in the list and in
//!   the streams.
//! - `unscoped_stream` (`"accept"`): `"reject"` answers `422` to an event stream that names no execution, root or
//!   parent, as newer documents say.
//! - `stream_ids` (`false`): with `true`, frames have an `id`, the `broker_sequence`.
//! - `execution_stream_ends` (`true`): with `false`, the stream of an execution stays open after its end.
//! - `heartbeat_ms` (`15000`): how long a stream is silent before it sends a comment.
//! - `wait_timeout_status`, `wait_failure_status` (`504`, `500`): other statuses of a `wait_for_result`.
//! - `wait_default_timeout_s` (`60`): how long `wait_for_result` waits when the client does not say.
//!
//! # Event streams
//!
//! `GET /v1/workflows/events/stream` replays the events of the workspace from `start_seq`, or after the
//! `Last-Event-ID`, and then continues live without end. `GET /v1/workflows/executions/{execution_id}/stream` reports
//! the newest start of that id and all its continuations. Its `event_source` selects stored events (`DATABASE`), future
//! events (`LIVE`) or both. `broker_sequence` counts the events of a workspace from 1 and never reuses a number. No
//! event reports that a run timed out or was terminated, so the stream of such an execution ends without a final event.
//!
//! # Limits
//!
//! Schedules cannot be created: their list is empty and every id is unknown. There are no signals, queries, updates,
//! resets, histories, traces, logs or managed deployments. A deployment exists because a workflow was registered with
//! it, and has one worker.
//!
//! The limit of 2 MB of input is taken as 2 MiB of compact JSON; more is a `422`. A body above 4 MiB is a `413`,
//! also of a control. The size of results is not limited.

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

/// Configuration of a simulator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The listen address; port 0 picks a free port.
    pub listen: SocketAddr,
    /// Names of workspaces, each with a token. A name may occur several times.
    pub workspaces: Vec<(String, String)>,
    /// Whether tokens that `workspaces` does not list are refused.
    pub only_listed_tokens: bool,
    /// The initial workflows of every workspace.
    pub workflows: Vec<WorkflowSpec>,
    /// Seed of the random numbers for fault rates.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            workspaces: Vec::new(),
            only_listed_tokens: false,
            workflows: Vec::new(),
            seed: 0,
        }
    }
}

/// A simulator could not start, or a workflow could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The specification of a workflow is invalid.
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
        if options.only_listed_tokens {
            tokens.admit_only_listed();
        }
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
