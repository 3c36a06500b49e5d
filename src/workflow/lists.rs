//! The API's lists of workflows, and whether they say what a status says.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::DeserializeOwned;

use super::observed::MAX_REGISTRATIONS;
use crate::api::WorkflowStatus;
use crate::mistral::wire::{Id, Page, RegistrationRow, WorkflowRow};
use crate::mistral::{Client, Error, RegistrationFilter, WorkflowFilter};

/// Rows a page; what the API gives at most.
const PAGE_SIZE: u16 = 1000;
/// Registrations a page: each comes with its schemas.
pub(super) const REGISTRATIONS_PAGE: u16 = 200;
/// Pages of one list that are read at most.
const MAX_PAGES: usize = 50;
/// Lists that a sweep reads: workflows, those with a worker, those in the chat assistant, registrations.
pub(super) const LISTS: usize = 4;

/// What is known of a workflow, to be compared with the lists.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// As in the status.
    Found(Box<WorkflowStatus>),
    /// The API had no workflow of this name or UUID.
    Absent(String),
}

/// What a sweep found. A list that the API refuses, or that is too long, is none: then nothing is known
/// from it, and it is not compared.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub rows: Option<HashMap<String, WorkflowRow>>,
    /// Why there are no rows, for a person.
    pub without_rows: Option<String>,
    pub names: HashSet<String>,
    pub active: Option<HashSet<String>>,
    pub in_chat: Option<HashSet<String>>,
    /// Active registrations by the workflow's UUID.
    pub registrations: Option<HashMap<String, BTreeSet<String>>>,
    /// Calls that it took.
    pub calls: usize,
}

impl Swept {
    /// Whether the lists say otherwise.
    pub fn differs(&self, seen: &Seen) -> bool {
        let Some(rows) = &self.rows else { return true };
        let status = match seen {
            Seen::Absent(identifier) => return rows.contains_key(identifier) || self.names.contains(identifier),
            Seen::Found(status) => status,
        };
        let id = status.workflow_id.as_deref().unwrap_or_default();
        let Some(row) = rows.get(id) else { return true };
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let is_in = |list: &Option<HashSet<String>>, known: Option<bool>| match (list, known) {
            (Some(list), Some(known)) => list.contains(id) == known,
            (None, _) | (_, None) => true,
        };
        text(&row.display_name) != status.display_name
            || text(&row.description) != status.description
            || row.tags.clone().filter(|tags| !tags.is_empty()) != status.tags
            || row.archived.unwrap_or(false) != status.archived.unwrap_or(false)
            || !is_in(&self.active, status.active)
            || !is_in(&self.in_chat, status.available_in_chat_assistant)
            || self.registrations.as_ref().is_some_and(|all| !has_registrations(status, all.get(id)))
    }

    /// What the lists say of this workflow, in short; none if they do not have it.
    pub fn fingerprint(&self, seen: &Seen) -> Option<u64> {
        let Seen::Found(status) = seen else { return None };
        let id = status.workflow_id.as_ref()?;
        let row = self.rows.as_ref()?.get(id)?;
        let mut hasher = DefaultHasher::new();
        (&row.display_name, &row.description, &row.tags, row.archived).hash(&mut hasher);
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
pub(super) async fn read(client: &Client) -> Result<Swept, Error> {
    let mut swept = Swept::default();
    let all = WorkflowFilter { limit: PAGE_SIZE, ..WorkflowFilter::default() };
    match read_list::<WorkflowRow>(client, &all, &mut swept.calls).await {
        Ok(Listed { items, complete: true }) => {
            swept.names = items.iter().map(|row| row.name.clone()).collect();
            swept.rows = Some(items.into_iter().map(|row| (row.id.clone(), row)).collect());
        }
        Ok(Listed { items, .. }) => {
            swept.without_rows = Some(format!("it is read up to {} workflows, and has more", items.len()));
        }
        Err(error @ (Error::Rejected(_) | Error::NotFound(_))) => swept.without_rows = Some(error.to_string()),
        Err(error) => return Err(error),
    }
    let ids = |rows: Vec<Id>| rows.into_iter().map(|row| row.id).collect();
    let active = WorkflowFilter { active: Some(true), ..all.clone() };
    swept.active = known(read_list(client, &active, &mut swept.calls).await)?.map(ids);
    let in_chat = WorkflowFilter { available_in_chat_assistant: Some(true), ..all };
    swept.in_chat = known(read_list(client, &in_chat, &mut swept.calls).await)?.map(ids);

    let filter = RegistrationFilter { active_only: true, limit: REGISTRATIONS_PAGE, ..RegistrationFilter::default() };
    let registrations = known(read_registrations::<RegistrationRow>(client, &filter, &mut swept.calls).await)?;
    swept.registrations = registrations.map(|rows| {
        let mut all: HashMap<String, BTreeSet<String>> = HashMap::new();
        for registration in rows {
            all.entry(registration.workflow_id).or_default().insert(registration.id);
        }
        all
    });
    Ok(swept)
}

/// A list as far as it can be had: one that is refused, or longer than is read, is none.
fn known<T>(outcome: Result<Listed<T>, Error>) -> Result<Option<Vec<T>>, Error> {
    match outcome {
        Ok(Listed { items, complete }) => Ok(complete.then_some(items)),
        Err(Error::Rejected(_) | Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The rows of a list.
pub(super) struct Listed<T> {
    /// In the API's order.
    pub items: Vec<T>,
    /// Whether these are all.
    complete: bool,
}

/// Reads a list of workflows to its end, counting the calls.
pub(super) async fn read_list<R: DeserializeOwned>(
    client: &Client,
    filter: &WorkflowFilter,
    calls: &mut usize,
) -> Result<Listed<R>, Error> {
    let page = |cursor| {
        let filter = WorkflowFilter { cursor, ..filter.clone() };
        async move { client.list_workflows_as(&filter).await }
    };
    read_pages(calls, page).await
}

/// Reads a list of registrations to its end, counting the calls.
pub(super) async fn read_registrations<R: DeserializeOwned>(
    client: &Client,
    filter: &RegistrationFilter,
    calls: &mut usize,
) -> Result<Listed<R>, Error> {
    let page = |cursor| {
        let filter = RegistrationFilter { cursor, ..filter.clone() };
        async move { client.list_registrations_as(&filter).await }
    };
    read_pages(calls, page).await
}

/// Reads page after page, to the end or to [`MAX_PAGES`].
async fn read_pages<T, F>(calls: &mut usize, page: impl Fn(Option<String>) -> F) -> Result<Listed<T>, Error>
where
    F: Future<Output = Result<Page<T>, Error>>,
{
    let (mut items, mut cursor) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = page(cursor.clone()).await?;
        *calls += 1;
        items.extend(page.items);
        match page.next {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(Listed { items, complete: true }),
        }
    }
    Ok(Listed { items, complete: false })
}
