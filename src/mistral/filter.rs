//! Filters for lists, and their query parameters.

use k8s_openapi::jiff::Timestamp;

/// Which workflows to list.
#[derive(Clone, Debug, Default)]
pub struct WorkflowFilter {
    /// `None`: all workflows; false: without archived ones; true: only archived ones.
    pub archived: Option<bool>,
    /// A workflow must have all of these tags.
    pub tags: Vec<String>,
    /// Whether a live worker serves the workflow.
    pub active: Option<bool>,
    /// Whether the chat assistant offers the workflow.
    pub available_in_chat_assistant: Option<bool>,
    /// Approximate search in names, description and id.
    pub search: Option<String>,
    /// From the previous page.
    pub cursor: Option<String>,
    /// Rows per page, 1 to 1000.
    pub limit: u16,
}

impl WorkflowFilter {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.archived.map(|archived| ("archived", archived.to_string())));
        query.extend(self.tags.iter().map(|tag| ("tags", tag.clone())));
        let active = self.active.map(|active| if active { "active" } else { "inactive" });
        query.extend(active.map(|status| ("deployment_status", status.to_owned())));
        query.extend(self.available_in_chat_assistant.map(|is| ("available_in_chat_assistant", is.to_string())));
        query.extend(self.search.clone().map(|text| ("search", text)));
        query.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        query
    }
}

/// Which registrations to list.
#[derive(Clone, Debug, Default)]
pub struct RegistrationFilter {
    /// UUID of the workflow.
    pub workflow_id: Option<String>,
    /// Only registrations that a live worker serves.
    pub active_only: bool,
    /// From the previous page.
    pub cursor: Option<String>,
    /// Rows per page, 1 to 1000.
    pub limit: u16,
}

impl RegistrationFilter {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.workflow_id.clone().map(|id| ("workflow_id", id)));
        query.extend(self.active_only.then(|| ("active_only", "true".to_owned())));
        query.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        query
    }
}

/// Which runs to list, most recently ended first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// A run must have any of these statuses.
    pub statuses: Vec<String>,
    /// The whole tree below this execution.
    pub root_execution_id: Option<String>,
    /// Inclusive, by the API's clock. Leaves out runs that have not ended.
    pub end_time_after: Option<Timestamp>,
    /// From the previous page.
    pub page_token: Option<String>,
    /// Rows per page, 1 to 1000.
    pub page_size: u16,
}

impl RunFilter {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![
            ("include_internal", "false".to_owned()),
            ("page_size", self.page_size.to_string()),
            ("sort_by", "end_time".to_owned()),
            ("order", "desc".to_owned()),
        ];
        query.extend(self.statuses.iter().map(|status| ("status", status.clone())));
        query.extend(self.root_execution_id.clone().map(|id| ("root_execution_id", id)));
        query.extend(self.end_time_after.map(|time| ("end_time_after", time.to_string())));
        query.extend(self.page_token.clone().map(|token| ("next_page_token", token)));
        query
    }
}
