//! One connection to the API: an origin, a key, and the permits to call.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::call_metrics::Calls;
use super::error::with_causes;
use super::pages::Pages;
use super::redactor::Redactor;
use crate::answer_memory::Room;
use crate::throttle::{Budget, Permit, Priority};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for a whole call, from connecting to the last byte of the response.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one Mistral workspace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) http: reqwest::Client,
    pub(super) base: Url,
    pub(super) token: Arc<SecretString>,
    /// Redacts the API key.
    pub(super) key_redactor: Arc<Redactor>,
    /// Redacts values of Secrets.
    pub(super) redactor: Arc<Redactor>,
    pub(super) calls: Calls,
    pub(super) call_mode: CallMode,
    pub(super) room: Room,
    pages: Pages,
}

/// How the calls of a client get their permits.
#[derive(Clone, Debug, Default)]
pub(super) enum CallMode {
    /// Calls need no permit.
    #[default]
    Free,
    /// All calls use this permit.
    In(Arc<Permit>),
    /// Each call waits for a permit of its own.
    Waiting { budget: Arc<Budget>, priority: Priority, flow: String },
}

impl CallMode {
    /// The permit of a call that is about to be sent.
    ///
    /// # Errors
    /// If nothing may be sent, with the time that is left until then.
    pub(super) async fn permit(&self) -> Result<Option<Arc<Permit>>, Duration> {
        match self {
            Self::Free => Ok(None),
            Self::In(permit) => permit.spend().map(|()| Some(Arc::clone(permit))),
            Self::Waiting { budget, priority, flow } => loop {
                let permit = budget.take(*priority, flow).await;
                if permit.spend().is_ok() {
                    return Ok(Some(Arc::new(permit)));
                }
            },
        }
    }
}

impl Client {
    /// Makes a client for the API at `base` (scheme, host and port) with an API key.
    ///
    /// Honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` from the environment. Follows no redirect, so the key never
    /// reaches another origin. The process must have installed a rustls provider first.
    ///
    /// # Errors
    /// When the HTTP client cannot be built, for example without any trusted certificate authority.
    pub fn new(base: Url, token: SecretString) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("mistral-workflows-operator/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            // By default, reqwest repeats requests that an HTTP/2 server refuses. Only the operator may repeat a start.
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| with_causes(&error))?;
        let key_redactor = Arc::new(Redactor::new([token.expose_secret()]));
        let (token, redactor, calls) = (Arc::new(token), Arc::default(), Calls::default());
        let (room, pages) = (Room::default(), Pages::default());
        Ok(Self { http, base, token, key_redactor, redactor, calls, call_mode: CallMode::Free, room, pages })
    }

    /// Counts the calls of this client in `calls`.
    #[must_use]
    pub fn counted_in(self, calls: Calls) -> Self {
        Self { calls, ..self }
    }

    /// Redacts these values in the errors of this client.
    #[must_use]
    pub fn hiding(self, values: Redactor) -> Self {
        Self { redactor: Arc::new(values), ..self }
    }

    /// Makes all calls of this client with this permit.
    #[must_use]
    pub fn with_permit(self, permit: Arc<Permit>) -> Self {
        Self { call_mode: CallMode::In(permit), ..self }
    }

    /// Makes each call of this client wait for a permit of its own: for tasks, never for reconciles.
    #[must_use]
    pub fn waiting(self, budget: Arc<Budget>, priority: Priority, flow: String) -> Self {
        Self { call_mode: CallMode::Waiting { budget, priority, flow }, ..self }
    }

    /// The memory limit for long responses and inputs of this key.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The page size of each list.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Returns a client for one call. If the calls of this client wait for permits, waits for the permit of that call.
    pub async fn with_its_permit(&self) -> Self {
        match &self.call_mode {
            CallMode::Waiting { budget, priority, flow } => {
                let permit = budget.take(*priority, flow).await;
                self.clone().with_permit(Arc::new(permit))
            }
            CallMode::Free | CallMode::In(_) => self.clone(),
        }
    }

    /// Whether this client calls this address with this key.
    pub fn uses(&self, base: &Url, token: &SecretString) -> bool {
        self.base == *base && self.token.expose_secret() == token.expose_secret()
    }

    /// Whether `other` calls the same address with the same key.
    pub fn is_as(&self, other: &Self) -> bool {
        self.uses(&other.base, &other.token)
    }
}
