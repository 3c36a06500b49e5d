//! The routes of the API.

use percent_encoding::percent_decode_str;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    ListWorkflows,
    GetWorkflow,
    UpdateWorkflow,
    AddTags,
    Archive,
    Unarchive,
    BulkArchive,
    BulkUnarchive,
    ListRegistrations,
    GetRegistration,
    Execute,
    ExecuteRegistration,
    GetExecution,
    StreamExecution,
    Cancel,
    Terminate,
    BatchCancel,
    BatchTerminate,
    ListRuns,
    GetRun,
    ListEvents,
    StreamEvents,
    ListDeployments,
    GetDeployment,
    ListWorkers,
    ListSchedules,
    GetSchedule,
    WhoAmI,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) template: &'static str,
    pub(crate) endpoint: Endpoint,
}

const fn route(method: &'static str, template: &'static str, endpoint: Endpoint) -> Route {
    Route { method, template, endpoint }
}

/// Literal routes precede the parametrised routes that they shadow.
static ROUTES: &[Route] = &[
    route("GET", "/v1/workflows", Endpoint::ListWorkflows),
    route("GET", "/v1/workflows/workers/whoami", Endpoint::WhoAmI),
    route("GET", "/v1/workflows/registrations", Endpoint::ListRegistrations),
    route("GET", "/v1/workflows/registrations/{workflow_registration_id}", Endpoint::GetRegistration),
    route("POST", "/v1/workflows/registrations/{workflow_registration_id}/execute", Endpoint::ExecuteRegistration),
    route("PUT", "/v1/workflows/archive", Endpoint::BulkArchive),
    route("PUT", "/v1/workflows/unarchive", Endpoint::BulkUnarchive),
    route("GET", "/v1/workflows/runs", Endpoint::ListRuns),
    route("GET", "/v1/workflows/runs/{run_id}", Endpoint::GetRun),
    route("GET", "/v1/workflows/events/list", Endpoint::ListEvents),
    route("GET", "/v1/workflows/events/stream", Endpoint::StreamEvents),
    route("GET", "/v1/workflows/deployments", Endpoint::ListDeployments),
    route("GET", "/v1/workflows/deployments/{name}", Endpoint::GetDeployment),
    route("GET", "/v1/workflows/deployments/{name}/workers", Endpoint::ListWorkers),
    route("GET", "/v1/workflows/schedules", Endpoint::ListSchedules),
    route("GET", "/v1/workflows/schedules/{schedule_id}", Endpoint::GetSchedule),
    route("POST", "/v1/workflows/executions/cancel", Endpoint::BatchCancel),
    route("POST", "/v1/workflows/executions/terminate", Endpoint::BatchTerminate),
    route("GET", "/v1/workflows/executions/{execution_id}", Endpoint::GetExecution),
    route("GET", "/v1/workflows/executions/{execution_id}/stream", Endpoint::StreamExecution),
    route("POST", "/v1/workflows/executions/{execution_id}/cancel", Endpoint::Cancel),
    route("POST", "/v1/workflows/executions/{execution_id}/terminate", Endpoint::Terminate),
    route("GET", "/v1/workflows/{workflow_identifier}", Endpoint::GetWorkflow),
    route("PUT", "/v1/workflows/{workflow_identifier}", Endpoint::UpdateWorkflow),
    route("POST", "/v1/workflows/{workflow_identifier}/execute", Endpoint::Execute),
    route("PUT", "/v1/workflows/{workflow_identifier}/archive", Endpoint::Archive),
    route("PUT", "/v1/workflows/{workflow_identifier}/unarchive", Endpoint::Unarchive),
    route("POST", "/v1/workflows/{workflow_identifier}/tags", Endpoint::AddTags),
];

/// Route words. A workflow with one of these names can only be addressed by its UUID.
const ROUTE_WORDS: &[&str] = &[
    "archive",
    "deployments",
    "events",
    "executions",
    "register",
    "registrations",
    "runs",
    "schedules",
    "unarchive",
    "workers",
];

/// The destination of a request.
#[derive(Debug)]
pub(crate) enum Target {
    /// An endpoint, with the decoded parameters of the template in order.
    Endpoint { route: &'static Route, parameters: Vec<String> },
    /// The path exists, but not with this method.
    MethodNotAllowed { allow: String },
    /// No such path.
    NotFound,
}

/// Finds the endpoint of a request line.
pub(crate) fn find(method: &str, path: &str) -> Target {
    let segments = decode_segments(path);
    let mut allow: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(parameters) = match_template(route.template, &segments) else {
            continue;
        };
        if route.method == method {
            return Target::Endpoint { route, parameters };
        }
        if !allow.contains(&route.method) {
            allow.push(route.method);
        }
    }
    if allow.is_empty() { Target::NotFound } else { Target::MethodNotAllowed { allow: allow.join(", ") } }
}

/// The percent-decoded segments of a path. Bytes that are not UTF-8 cannot name anything and are replaced.
pub(crate) fn decode_segments(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect()
}

fn match_template(template: &str, segments: &[String]) -> Option<Vec<String>> {
    let mut parameters = Vec::new();
    let pattern: Vec<&str> = template.split('/').skip(1).collect();
    if pattern.len() != segments.len() {
        return None;
    }
    for (index, (expected, actual)) in pattern.iter().zip(segments).enumerate() {
        if !expected.starts_with('{') {
            if expected != actual {
                return None;
            }
            continue;
        }
        let shadowed = *expected == "{workflow_identifier}"
            && index + 1 == pattern.len()
            && ROUTE_WORDS.contains(&actual.as_str());
        if actual.is_empty() || shadowed {
            return None;
        }
        parameters.push(actual.clone());
    }
    Some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(method: &str, path: &str) -> Option<(Endpoint, Vec<String>)> {
        match find(method, path) {
            Target::Endpoint { route, parameters } => Some((route.endpoint, parameters)),
            _ => None,
        }
    }

    #[test]
    fn a_literal_route_wins_over_a_workflow_of_its_name() {
        assert_eq!(endpoint("PUT", "/v1/workflows/archive"), Some((Endpoint::BulkArchive, vec![])));
        assert!(matches!(find("GET", "/v1/workflows/archive"), Target::MethodNotAllowed { .. }));
        assert!(matches!(find("GET", "/v1/workflows/workers"), Target::NotFound));
    }

    #[test]
    fn parameters_are_percent_decoded() {
        assert_eq!(
            endpoint("GET", "/v1/workflows/executions/a%3A1%2F2"),
            Some((Endpoint::GetExecution, vec!["a:1/2".to_owned()]))
        );
    }

    #[test]
    fn an_empty_parameter_names_nothing() {
        assert!(matches!(find("GET", "/v1/workflows/"), Target::NotFound));
    }
}
