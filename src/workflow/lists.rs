//! The API's lists of workflows, and whether they agree with a status.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::DeserializeOwned;

use super::versions::MAX_REGISTRATIONS;
use crate::api::WorkflowStatus;
use crate::mistral::wire::{Id, RegistrationRow, WorkflowRow, fingerprint};
use crate::mistral::{Client, Error, Gap, RegistrationFilter, WorkflowFilter};

/// Rows per page; the API's maximum.
const PAGE_SIZE: u16 = 1000;
/// Registrations per page: few, because each comes with its schemas.
const REGISTRATIONS_PAGE: u16 = 200;
/// Lists that a sweep reads: workflows, those with a worker, those in the chat assistant, registrations.
pub(super) const LISTS: usize = 4;

/// What is known of a workflow, to be compared with the lists.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LastObserved {
    /// As in the status.
    Found(Box<WorkflowStatus>),
    /// The API had no workflow with this name or UUID.
    Absent(String),
}

/// The result of a sweep. A list that the API refuses, or that was not read to its end, is `None` and is not compared.
/// The main list is an exception: the rows that were read are kept.
#[derive(Debug, Default)]
pub(super) struct ListSnapshot {
    pub rows: Option<HashMap<String, WorkflowRow>>,
    /// Why rows are missing, or why there are none, as a message.
    pub without_rows: Option<String>,
    /// Messages about lists that were not read to their ends, if not reported yet.
    pub gaps: Vec<String>,
    pub names: HashSet<String>,
    pub active: Option<HashSet<String>>,
    pub in_chat: Option<HashSet<String>>,
    /// Active registrations by the workflow's UUID.
    pub registrations: Option<HashMap<String, BTreeSet<String>>>,
    /// Calls that the sweep took.
    pub calls: usize,
}

impl ListSnapshot {
    /// Whether the list of workflows was read to its end, so that what is not in it does not exist.
    pub fn is_complete(&self) -> bool {
        self.rows.is_some() && self.without_rows.is_none()
    }

    /// Whether the lists differ from what is known, or do not show it.
    pub fn differs(&self, seen: &LastObserved) -> bool {
        let Some(rows) = &self.rows else { return true };
        let status = match seen {
            LastObserved::Absent(identifier) => {
                let listed = rows.contains_key(identifier) || self.names.contains(identifier);
                return listed || !self.is_complete();
            }
            LastObserved::Found(status) => status,
        };
        let id = status.workflow_id.as_deref().unwrap_or_default();
        let Some(row) = rows.get(id) else { return true };
        let seen = fingerprint(status.display_name.as_deref(), status.description.as_deref(), status.tags.as_deref());
        let is_in = |list: &Option<HashSet<String>>, known: Option<bool>| match (list, known) {
            (Some(list), Some(known)) => list.contains(id) == known,
            (None, _) | (_, None) => true,
        };
        row.texts != seen
            || row.archived.unwrap_or(false) != status.archived.unwrap_or(false)
            || !is_in(&self.active, status.active)
            || !is_in(&self.in_chat, status.available_in_chat_assistant)
            || self.registrations.as_ref().is_some_and(|all| !has_registrations(status, all.get(id)))
    }

    /// A hash of what the lists say about this workflow; none if they do not have it.
    pub fn fingerprint(&self, seen: &LastObserved) -> Option<u64> {
        let LastObserved::Found(status) = seen else { return None };
        let id = status.workflow_id.as_ref()?;
        let row = self.rows.as_ref()?.get(id)?;
        let mut hasher = DefaultHasher::new();
        (row.texts, row.archived).hash(&mut hasher);
        self.active.as_ref().map(|list| list.contains(id)).hash(&mut hasher);
        self.in_chat.as_ref().map(|list| list.contains(id)).hash(&mut hasher);
        self.registrations.as_ref().map(|all| all.get(id)).hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// Whether the active registrations of a list are those of a status, which holds only the newest.
fn has_registrations(status: &WorkflowStatus, listed: Option<&BTreeSet<String>>) -> bool {
    let oldest = match status.registrations.last() {
        Some(last) if status.registrations.len() >= MAX_REGISTRATIONS => last.id.as_str(),
        Some(_) | None => "",
    };
    let seen = status.registrations.iter().filter(|it| it.active).map(|it| it.id.as_str());
    let listed = listed.into_iter().flatten().map(String::as_str).filter(|id| *id >= oldest);
    seen.collect::<BTreeSet<&str>>() == listed.collect::<BTreeSet<&str>>()
}

/// Reads all lists to their ends.
pub(super) async fn read(client: &Client) -> Result<ListSnapshot, Error> {
    let mut swept = ListSnapshot::default();
    let all = WorkflowFilter { limit: PAGE_SIZE, ..WorkflowFilter::default() };
    let mut rows = HashMap::new();
    let outcome = read_workflows(client, "workflows", &all, &mut swept.calls, |row: WorkflowRow| {
        swept.names.insert(row.name.clone());
        rows.insert(row.id.clone(), row);
    });
    match outcome.await {
        Ok(gap) => {
            swept.rows = Some(rows);
            swept.without_rows = gap.as_ref().map(|gap| format!("it {}", gap.why));
            swept.say("workflows", gap);
        }
        Err(error @ (Error::Rejected(_) | Error::NotFound(_))) => swept.without_rows = Some(error.to_string()),
        Err(error) => return Err(error),
    }

    let mut ids = HashSet::new();
    let filter = WorkflowFilter { active: Some(true), ..all.clone() };
    let add = |row: Id| ids.extend([row.id]);
    let outcome = read_workflows(client, "active workflows", &filter, &mut swept.calls, add).await;
    swept.active = swept.known("active workflows", outcome)?.then(|| std::mem::take(&mut ids));

    ids.clear();
    let filter = WorkflowFilter { available_in_chat_assistant: Some(true), ..all };
    let add = |row: Id| ids.extend([row.id]);
    let outcome = read_workflows(client, "workflows in the chat assistant", &filter, &mut swept.calls, add).await;
    swept.in_chat = swept.known("workflows in the chat assistant", outcome)?.then_some(ids);

    let filter = RegistrationFilter { active_only: true, ..RegistrationFilter::default() };
    let mut registrations: HashMap<String, BTreeSet<String>> = HashMap::new();
    let add = |row: RegistrationRow| registrations.entry(row.workflow_id).or_default().extend([row.id]);
    let outcome = read_registrations(client, &filter, &mut swept.calls, add).await;
    swept.registrations = swept.known("active registrations", outcome)?.then_some(registrations);
    Ok(swept)
}

impl ListSnapshot {
    /// Whether a list is known to its end: not if the API refuses it, nor if it was not read to its end.
    fn known(&mut self, list: &str, outcome: Result<Option<Gap>, Error>) -> Result<bool, Error> {
        match outcome {
            Ok(gap) => {
                let complete = gap.is_none();
                self.say(list, gap);
                Ok(complete)
            }
            Err(Error::Rejected(_) | Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn say(&mut self, list: &str, gap: Option<Gap>) {
        let news = gap.filter(|gap| gap.is_new);
        self.gaps.extend(news.map(|gap| format!("the list of {list} {}", gap.why)));
    }
}

/// Reads a list of workflows to its end, under a name that identifies it, and counts the calls.
///
/// # Errors
/// See [`Error`].
pub(super) async fn read_workflows<R: DeserializeOwned>(
    client: &Client,
    name: &str,
    filter: &WorkflowFilter,
    calls: &mut usize,
    each: impl FnMut(R),
) -> Result<Option<Gap>, Error> {
    let page = |cursor, limit| {
        let filter = WorkflowFilter { cursor, limit, ..filter.clone() };
        async move { client.list_workflows_as(&filter).await }
    };
    client.pages().read(name, PAGE_SIZE, calls, page, each).await
}

/// Reads a list of registrations to its end, and counts the calls.
///
/// # Errors
/// See [`Error`].
pub(super) async fn read_registrations<R: DeserializeOwned>(
    client: &Client,
    filter: &RegistrationFilter,
    calls: &mut usize,
    each: impl FnMut(R),
) -> Result<Option<Gap>, Error> {
    let name = format!("registrations {} {}", filter.workflow_id.as_deref().unwrap_or_default(), filter.active_only);
    let page = |cursor, limit| {
        let filter = RegistrationFilter { cursor, limit, ..filter.clone() };
        async move { client.list_registrations_as(&filter).await }
    };
    client.pages().read(&name, REGISTRATIONS_PAGE, calls, page, each).await
}
