//! Dispatches a request to its endpoint.

use hyper::StatusCode;

use crate::reply::{ApiError, Reply};
use crate::request::{Answer, Handled, Request};
use crate::route::{Endpoint, Target};
use crate::state::State;
use crate::{deployments, events, executions, registrations, runs, schedules, stream, workflows};

/// Checks the token, then calls the endpoint.
pub(crate) fn dispatch(state: &mut State, request: &Request) -> Handled {
    let token = request.token.as_deref();
    let token = token.filter(|token| !state.tokens.is_refused(token));
    let token = token.ok_or_else(|| ApiError::plain(StatusCode::UNAUTHORIZED, "Unauthorized"))?;
    let (route, parameters) = match &request.target {
        Target::Endpoint { route, parameters } => (route, parameters),
        Target::NotFound => return Err(ApiError::plain(StatusCode::NOT_FOUND, "Not Found")),
        Target::MethodNotAllowed { allow } => return method_not_allowed(allow),
    };
    if request.oversized {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(ApiError::plain(status, "Request Entity Too Large"));
    }
    let name = state.tokens.workspace(token).to_owned();
    let (ws, cx) = &mut state.open(&name);
    let id = parameters.first().map_or("", String::as_str);
    match route.endpoint {
        Endpoint::ListWorkflows => workflows::list(ws, cx, request),
        Endpoint::GetWorkflow => workflows::get(ws, cx, id),
        Endpoint::UpdateWorkflow => workflows::update(ws, cx, id, request),
        Endpoint::AddTags => workflows::add_tags(ws, cx, id, request),
        Endpoint::Archive => workflows::set_archived(ws, cx, id, true),
        Endpoint::Unarchive => workflows::set_archived(ws, cx, id, false),
        Endpoint::BulkArchive => workflows::set_archived_in_bulk(ws, cx, request, true),
        Endpoint::BulkUnarchive => workflows::set_archived_in_bulk(ws, cx, request, false),
        Endpoint::ListRegistrations => registrations::list(ws, cx, request),
        Endpoint::GetRegistration => registrations::get(ws, cx, id, request),
        Endpoint::Execute => executions::execute(ws, cx, id, request),
        Endpoint::ExecuteRegistration => executions::execute_registration(ws, cx, id, request),
        Endpoint::GetExecution => executions::get(ws, cx, id, request),
        Endpoint::Cancel => executions::cancel(ws, cx, id),
        Endpoint::Terminate => executions::terminate(ws, cx, id),
        Endpoint::BatchCancel => executions::cancel_batch(ws, cx, request),
        Endpoint::BatchTerminate => executions::terminate_batch(ws, cx, request),
        Endpoint::StreamExecution => stream::of_execution(ws, cx, id, request),
        Endpoint::ListRuns => runs::list(ws, cx, request),
        Endpoint::GetRun => runs::get(ws, cx, id),
        Endpoint::ListEvents => events::list(ws, cx, request),
        Endpoint::StreamEvents => stream::of_workspace(cx, request),
        Endpoint::ListDeployments => deployments::list(ws, request),
        Endpoint::GetDeployment => deployments::get(ws, cx, id, request),
        Endpoint::ListWorkers => deployments::list_workers(ws, cx, id, request),
        Endpoint::ListSchedules => schedules::list(request),
        Endpoint::GetSchedule => schedules::get(),
        Endpoint::WhoAmI => registrations::whoami(ws),
    }
}

fn method_not_allowed(allow: &str) -> Handled {
    let error = ApiError::plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let mut reply = Reply::from(error);
    reply.headers.push(("allow".to_owned(), allow.to_owned()));
    Answer::read(reply)
}
