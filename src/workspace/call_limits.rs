//! Which Workspaces use which API key, and so share a budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use super::connections::{Connections, WorkspaceKey};
use crate::sync::lock;
use crate::throttle::Budget;
use crate::throttle::metrics::Waits;

/// Identifies an origin and a key without revealing the key.
type Fingerprint = [u8; 32];

#[derive(Debug)]
pub struct Budgets {
    /// The operator's limit for one key, in calls per second.
    cap: u32,
    waits: Waits,
    connections: Arc<Connections>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    budgets: HashMap<Fingerprint, Weak<Budget>>,
    members: HashMap<WorkspaceKey, Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    of: Fingerprint,
    limit: u32,
}

/// Which setting limits the rate of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOf {
    /// The Workspace itself.
    Workspace,
    /// Another Workspace with the same key.
    Other,
    /// The operator's flag.
    Operator,
}

impl Budgets {
    /// Starts empty. When the calls of Workspaces begin to wait, the Workspaces are notified through `connections`.
    pub fn new(cap: u32, waits: Waits, connections: Arc<Connections>) -> Self {
        Self { cap, waits, connections, shared: Arc::default() }
    }

    /// The budget of this key, which the Workspace uses from now on. Its `wish` counts for all that share the key.
    pub fn join(&self, key: &WorkspaceKey, address: &Url, token: &SecretString, wish: Option<u32>) -> Arc<Budget> {
        let of = fingerprint(address, token);
        let member = Member { of, limit: wish.unwrap_or(self.cap).min(self.cap) };
        let mut shared = lock(&self.shared);
        let before = shared.members.insert(key.clone(), member);
        if let Some(before) = before.filter(|before| before.of != of) {
            shared.adjust(before.of);
        }
        let known = shared.budgets.get(&of).and_then(Weak::upgrade);
        let budget = known.unwrap_or_else(|| {
            shared.budgets.retain(|_, budget| budget.strong_count() > 0);
            let budget = self.budget(of, member.limit);
            shared.budgets.insert(of, Arc::downgrade(&budget));
            budget
        });
        shared.adjust(of);
        budget
    }

    /// The rate that this Workspace shares with others of the same key, in calls per second, and the setting that
    /// limits it.
    pub fn limit(&self, key: &WorkspaceKey) -> (u32, LimitOf) {
        let shared = lock(&self.shared);
        let Some(member) = shared.members.get(key) else { return (self.cap, LimitOf::Operator) };
        match shared.limit(member.of) {
            Some(limit) if limit < member.limit => (limit, LimitOf::Other),
            _ if member.limit < self.cap => (member.limit, LimitOf::Workspace),
            _ => (self.cap, LimitOf::Operator),
        }
    }

    /// Forgets all Workspaces except those that exist.
    pub fn forget_all_but(&self, exists: impl Fn(&WorkspaceKey) -> bool) {
        let mut shared = lock(&self.shared);
        let gone: Vec<Member> =
            shared.members.iter().filter(|(key, _)| !exists(key)).map(|(_, member)| *member).collect();
        shared.members.retain(|key, _| exists(key));
        gone.iter().for_each(|member| shared.adjust(member.of));
    }

    fn budget(&self, of: Fingerprint, limit: u32) -> Arc<Budget> {
        let (shared, connections) = (Arc::downgrade(&self.shared), Arc::clone(&self.connections));
        Budget::new(limit, self.waits.clone(), move || {
            let Some(shared) = shared.upgrade() else { return };
            let members = lock(&shared).members.clone();
            members.iter().filter(|(_, member)| member.of == of).for_each(|(key, _)| connections.look_again(key));
        })
    }
}

impl Shared {
    /// The lowest rate that the users of the key wish for; `None` if the key has no users any more.
    fn limit(&self, of: Fingerprint) -> Option<u32> {
        self.members.values().filter(|member| member.of == of).map(|member| member.limit).min()
    }

    fn adjust(&self, of: Fingerprint) {
        let budget = self.budgets.get(&of).and_then(Weak::upgrade);
        if let (Some(limit), Some(budget)) = (self.limit(of), budget) {
            budget.set_limit(limit);
        }
    }
}

fn fingerprint(address: &Url, token: &SecretString) -> Fingerprint {
    let origin = address.origin().ascii_serialization();
    // An origin has no line break, so the separator is unambiguous.
    Sha256::new().chain_update(origin).chain_update("\n").chain_update(token.expose_secret()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(cap: u32) -> Budgets {
        let (suspect, _) = tokio::sync::mpsc::unbounded_channel();
        Budgets::new(cap, crate::throttle::metrics::Waits::default(), Arc::new(Connections::new(Vec::new(), suspect)))
    }

    fn key(name: &str) -> WorkspaceKey {
        WorkspaceKey { namespace: "team".into(), name: name.into() }
    }

    fn join(budgets: &Budgets, name: &str, address: &str, token: &str, wish: Option<u32>) -> Arc<Budget> {
        budgets.join(&key(name), &address.parse().unwrap(), &SecretString::from(token), wish)
    }

    #[test]
    fn one_origin_and_key_have_one_budget_whoever_uses_them() {
        let budgets = budgets(50);
        let first = join(&budgets, "a", "https://api.mistral.ai", "one", None);
        for (address, token, same) in [
            ("https://api.mistral.ai/", "one", true),
            ("https://api.mistral.ai:443", "one", true),
            ("https://api.mistral.ai", "two", false),
            ("https://api.eu.mistral.ai", "one", false),
            ("http://api.mistral.ai", "one", false),
        ] {
            let second = join(&budgets, "b", address, token, None);
            assert_eq!(first.id() == second.id(), same, "{address} {token}");
        }
    }

    #[test]
    fn the_smallest_wish_wins_until_its_workspace_goes() {
        let budgets = budgets(50);
        let address = "https://api.mistral.ai";
        let _budget = join(&budgets, "a", address, "one", Some(20));
        assert_eq!(budgets.limit(&key("a")), (20, LimitOf::Workspace));
        let _other = join(&budgets, "b", address, "one", Some(1000));
        assert_eq!(budgets.limit(&key("b")), (20, LimitOf::Other));
        join(&budgets, "c", address, "one", Some(3));
        assert_eq!(budgets.limit(&key("a")), (3, LimitOf::Other));
        assert_eq!(budgets.limit(&key("c")), (3, LimitOf::Workspace));
        // With another key, its wish no longer counts for this one.
        join(&budgets, "c", address, "two", Some(3));
        assert_eq!(budgets.limit(&key("a")), (20, LimitOf::Workspace));
        budgets.forget_all_but(|key| key.name == "b");
        assert_eq!(budgets.limit(&key("b")), (50, LimitOf::Operator));
    }

    #[test]
    fn what_is_written_out_does_not_tell_the_key() {
        let budgets = budgets(50);
        let budget = join(&budgets, "a", "https://api.mistral.ai", "the-token", None);
        let text = format!("{budgets:?} {budget:?}");
        assert!(!text.contains("the-token"), "{text}");
    }
}
