//! The calls to the API that a reconcile makes. Each outcome is added to what is known.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use crate::execution::claim::ClaimAnnotation;
use crate::execution::phase::is_started;
use crate::execution::plan::{Call, waiting};
use crate::execution::run_durations::LINGER;
use crate::execution::state::input;
use crate::execution::state::{ExecutionState, Remote, Sent, StopCall, Target};
use crate::execution::tracker::ApiAnswer;
use crate::mistral::wire::{Event, Page, is_terminal};
use crate::mistral::{self, ExecuteTarget, RegistrationFilter, Trouble, TroubleKind};
use crate::platform::failpoint;
use crate::platform::watch::reference;
use crate::throttle::Priority;

use crate::execution::controller::Reconciliation;
use crate::execution::state::Comparison;
use crate::execution::state::comparison::{self, is_claimed_alike};
use crate::json::{self, Json};
use crate::mistral::wire::{Execution, StartEvent};

/// Maximum pages of events read for one failure text or one comparison.
const MAX_EVENT_PAGES: usize = 5;
/// The most deployments that a message names.
const MAX_DEPLOYMENTS: usize = 10;
/// Events per page: the maximum of the API.
const EVENTS_PAGE: u16 = 1000;

impl Reconciliation<'_> {
    /// Makes one call to the API and adds its outcome to what is known.
    pub(crate) async fn call(&mut self, client: &mistral::Client, call: Call) {
        let client = &input::redacting(client, &self.state);
        let id = self.state.execution_id();
        match call {
            Call::GetTarget => {
                let outcome = probe(client, &self.state).await;
                self.state.target_fetched(outcome);
                if let Target::Unknown(trouble) = self.state.outcomes.target.clone() {
                    self.had_trouble(&trouble);
                }
            }
            Call::GetRun if failpoint::active!("failpoint-no-get-first") && !is_started(&self.state.status) => {
                self.state.outcomes.remote = Remote::Absent;
            }
            Call::GetRun => {
                self.state.fetched(client.get_execution(&id).await);
                if let Remote::Unknown(trouble) = self.state.outcomes.remote.clone() {
                    self.had_trouble(&trouble);
                }
            }
            Call::Compare => {
                let comparison = Box::pin(self.compare(client)).await;
                self.state.compared(comparison);
            }
            Call::Start => self.start(client).await,
            Call::ReadFailure => self.state.failure_read(read_events(client, &id).await),
            Call::Stop(stop) => {
                let outcome = match stop {
                    StopCall::Cancel => client.cancel(&id).await,
                    StopCall::Terminate => client.terminate(&id).await,
                };
                tracing::info!(execution_id = id, ?stop, ok = outcome.is_ok(), "asked the API to stop the run");
                self.state.stop_sent(stop, outcome, Timestamp::now());
            }
        }
    }

    /// Sends the call that starts the run, if the claim is still young enough and this process still leads.
    async fn start(&mut self, client: &mistral::Client) {
        let Some(request) = input::request(&self.state) else {
            tracing::error!("the input is missing; nothing was sent; this is a bug in the operator");
            return self.state.too_late();
        };
        failpoint::reach!("failpoint-claimed");
        let in_time = self.send_before.is_some_and(|before| Instant::now() < before)
            && matches!(&self.state.annotation, ClaimAnnotation::Claim(claim) if Timestamp::now() < claim.send_before);
        if !in_time || self.context.shared.term.is_over() {
            tracing::warn!("the claim grew too old before the call could be sent; nothing was sent");
            self.state.too_late();
            return;
        }
        let outcome = client.execute(self.state.target(), &request).await;
        failpoint::reach!("failpoint-answered");
        match &outcome {
            // At debug level only: once the status has the start, an Event reports it.
            Ok(_) => tracing::debug!(execution_id = request.execution_id, "started"),
            Err(error) => {
                // Logged as a string, which escapes line breaks: the text is from the API.
                let (execution_id, error) = (&request.execution_id, error.to_string());
                tracing::info!(execution_id, error, "the call to start the run failed");
            }
        }
        if let Err(mistral::Error::Unauthorized(_)) = &outcome {
            self.context.shared.connections.suspect(&self.key);
        }
        self.state.sent(outcome);
    }

    /// Waits briefly for the run that was just accepted to end. The tracker finds that out for many runs with one list.
    /// The wait is part of the reconcile, since the status write that follows also shows whether the resource still
    /// exists.
    pub(crate) async fn linger(&mut self) {
        let Sent::Accepted(run) = &self.state.outcomes.sent else { return self.state.lingered(None) };
        let started = run.start_time.unwrap_or_else(Timestamp::now);
        let execution_id = run.execution_id.clone();
        let workflow = self.state.target().name().to_owned();
        let deadline = self.state.spec.active_deadline_seconds.map_or(LINGER, |it| Duration::from_secs(it.into()));
        let limit = self.context.run_durations.linger(&self.key, &workflow).min(deadline);
        // An execution that has waited for its turn, and has not said so, does not stay blank for longer.
        let blank = waiting::blank_left(&self.state, Timestamp::now()).filter(|left| *left < limit);
        let limit = blank.map_or(limit, |left| left.max(self.report_turn()).min(limit));
        // Where few runs are active, nobody minds the write, and a person sees the run going on.
        let is_prompt = !self.ticket.others_wait() && self.context.prompt_starts.check().is_ok();
        if limit.is_zero() || is_prompt {
            return self.state.lingered(None);
        }
        let object = reference(self.object);
        let (tracker, stop) = (&self.context.tracker, &self.context.shared.term.stop);
        let until = Instant::now() + limit;
        let mut outcome = None;
        loop {
            tracker.track(&self.key, &object, &execution_id, started, ApiAnswer::Exists);
            self.ticket.give_back();
            let refresh = tracker.refresh(&object);
            let row = match stop.run_until_cancelled(tokio::time::timeout_at(until.into(), refresh)).await {
                Some(Ok(row)) => row,
                Some(Err(_)) => {
                    self.context.run_durations.goes_on_after(&self.key, &workflow, limit);
                    break;
                }
                None => break,
            };
            self.state.memory.listed(row);
            // Queued starts may take all of the time. The run then counts as not ended yet.
            let Some(live) = self.connection.clone() else { break };
            let permit = self.ticket.wait(&live, Priority::Watch);
            let Some(Ok(client)) = stop.run_until_cancelled(tokio::time::timeout_at(until.into(), permit)).await else {
                break;
            };
            let answer = Box::pin(client.get_execution(&execution_id)).await;
            // If only this run is due, it is fetched instead of listed, so it may still be in progress.
            let goes_on = answer.as_ref().is_ok_and(|run| !is_terminal(run.status.as_deref()));
            outcome = Some(answer);
            if !goes_on {
                break;
            }
        }
        self.state.lingered(outcome);
    }

    fn had_trouble(&self, trouble: &Trouble) {
        let lasting = self.context.tracker.had_trouble(&self.key, &reference(self.object), trouble.retry_after);
        if lasting || trouble.kind == TroubleKind::Unauthorized {
            self.context.shared.connections.suspect(&self.key);
        }
    }
}

impl Reconciliation<'_> {
    /// Whether the run found under an explicit id is what the spec asks for.
    async fn compare(&mut self, client: &mistral::Client) -> Comparison {
        let Remote::Found(run) = &self.state.outcomes.remote else { return Comparison::NotTried };
        match other_workflow(client, &self.state, run).await {
            Ok(None) => {}
            Ok(Some(name)) => return Comparison::OtherWorkflow(name),
            Err(error) => return Comparison::Unknown(error.to_string()),
        }
        if self.context.shared.executions.state().iter().any(|other| is_claimed_alike(&self.state, other)) {
            return Comparison::Same;
        }
        let Some(request) = input::request(&self.state) else {
            return Comparison::Unknown("part of this resource's input is missing".to_owned());
        };
        match read_arguments(client, &run.execution_id).await {
            Ok(arguments) => comparison::with_arguments(request.input.as_ref(), arguments.as_ref()),
            Err(error) => Comparison::Unknown(error.to_string()),
        }
    }
}

/// The workflow of the run, if the spec names a registration of another workflow.
async fn other_workflow(
    client: &mistral::Client,
    state: &ExecutionState,
    run: &Execution,
) -> Result<Option<String>, mistral::Error> {
    let ExecuteTarget::Registration(id) = state.target() else { return Ok(None) };
    let wanted = client.get_registration(id).await?.workflow_id;
    let name = run.workflow_name.clone().unwrap_or_else(|| "(unknown)".to_owned());
    let is_it = match (&run.workflow_id, &run.workflow_name) {
        (Some(id), _) => id.eq_ignore_ascii_case(&wanted),
        (None, Some(name)) => client.get_workflow(&wanted).await?.name == *name,
        (None, None) => true,
    };
    Ok((!is_it).then_some(name))
}

/// The arguments of the newest run with this id, from its first event. None if no event has them.
async fn read_arguments(client: &mistral::Client, execution_id: &str) -> Result<Option<Json>, mistral::Error> {
    let events: Vec<StartEvent> =
        read_pages(client, execution_id, |event: &StartEvent| event.event_type == "WORKFLOW_EXECUTION_STARTED").await?;
    let newest = events.into_iter().max_by_key(|event| event.event_timestamp);
    Ok(newest.and_then(|event| event.attributes?.input?.value))
}

async fn probe(client: &mistral::Client, state: &ExecutionState) -> Result<Target, mistral::Error> {
    let workflow_id = match state.target() {
        ExecuteTarget::Workflow(identifier) => client.get_workflow(identifier).await?.id,
        ExecuteTarget::Registration(id) => client.get_registration(id).await?.workflow_id,
    };
    let Some(name) = &state.spec.deployment_name else { return Ok(Target::Exists) };
    let filter = RegistrationFilter { workflow_id: Some(workflow_id), active_only: true, limit: 1000, cursor: None };
    let page = client.list_registrations_as::<DeploymentRow>(&filter).await;
    Ok(page.map_or(Target::DeploymentUnknown, |page| served_by(name, page)))
}

/// Whether a live worker of this deployment serves the workflow, by the first page of the workflow's active
/// registrations. A page that names the deployment shows that. Only a complete list shows that there is none: a
/// registration without the name of its deployment may be that of any.
fn served_by(name: &str, page: Page<DeploymentRow>) -> Target {
    let is_complete =
        page.next.is_none() && page.unreadable == 0 && page.items.iter().all(|row| row.deployment_name.is_some());
    let active: BTreeSet<String> = page.items.into_iter().filter_map(|row| row.deployment_name).collect();
    if active.contains(name) {
        return Target::Exists;
    }
    if !is_complete {
        return Target::DeploymentUnknown;
    }
    let more = active.len().saturating_sub(MAX_DEPLOYMENTS);
    let named = active.into_iter().take(MAX_DEPLOYMENTS).chain((more > 0).then(|| format!("and {more} more")));
    Target::NoDeployment { active: named.collect() }
}

/// As much of a registration as names its deployment.
#[derive(Deserialize)]
struct DeploymentRow {
    #[serde(default, deserialize_with = "json::lenient_string")]
    deployment_name: Option<String>,
}

async fn read_events(client: &mistral::Client, execution_id: &str) -> Result<Vec<Event>, mistral::Error> {
    read_pages(client, execution_id, |event: &Event| event.event_type.ends_with("_FAILED")).await
}

/// The events of interest within the first pages of an execution.
async fn read_pages<E: DeserializeOwned>(
    client: &mistral::Client,
    execution_id: &str,
    is_wanted: impl Fn(&E) -> bool,
) -> Result<Vec<E>, mistral::Error> {
    let mut events = Vec::new();
    let mut cursor: Option<String> = None;
    let mut limit = EVENTS_PAGE;
    let mut pages = 0;
    while pages < MAX_EVENT_PAGES {
        let page = match client.list_events(execution_id, cursor.as_deref(), limit).await {
            // Events quote inputs and results, each of which may be 2 MB.
            Err(mistral::Error::Unreadable { too_long: true, .. }) if limit > 1 => {
                limit /= 4;
                continue;
            }
            page => page?,
        };
        pages += 1;
        events.extend(page.items.into_iter().filter(&is_wanted));
        match page.next {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => break,
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn page(rows: Value, next: Option<&str>, unreadable: usize) -> Page<DeploymentRow> {
        Page { items: serde_json::from_value(rows).unwrap(), next: next.map(str::to_owned), unreadable }
    }

    #[test]
    fn only_a_complete_list_of_named_registrations_shows_that_a_deployment_serves_no_workflow() {
        let blue = |rows: Value, next, unreadable| served_by("blue", page(rows, next, unreadable));
        let red = json!([{ "deployment_name": "red" }]);
        assert_eq!(blue(red.clone(), None, 0), Target::NoDeployment { active: vec!["red".into()] });
        assert_eq!(blue(red.clone(), Some("more"), 0), Target::DeploymentUnknown);
        assert_eq!(blue(red, None, 1), Target::DeploymentUnknown, "a row cannot be read");
        for nameless in [json!({}), json!({ "deployment_name": null }), json!({ "deployment_name": 7 })] {
            let rows = json!([{ "deployment_name": "red" }, nameless]);
            assert_eq!(blue(rows, None, 0), Target::DeploymentUnknown, "it may be that of any deployment: {nameless}");
        }
        assert_eq!(blue(json!([{ "deployment_name": "blue" }, {}]), Some("more"), 1), Target::Exists);
    }

    #[test]
    fn of_many_deployments_ten_are_named() {
        let rows: Vec<Value> = (0..12).map(|n| json!({ "deployment_name": format!("d{n:02}") })).collect();
        let Target::NoDeployment { active } = served_by("blue", page(json!(rows), None, 0)) else { panic!("served") };
        assert_eq!((active.len(), active[0].as_str(), active[10].as_str()), (11, "d00", "and 2 more"));
    }
}
