//! ○ What a connection may do that came with an enrolment: namespaces, and the keys in them.

use std::collections::BTreeMap;

use super::keys::{MANAGE, entity, own_data};
use crate::at::AtKey;

/// What a command wants to do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `r` or `rw`.
    Read,
    /// `rw`.
    Write,
}

/// What a connection may do that came with an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The enrolment.
    pub id: String,
    /// Namespace → `r` or `rw`.
    pub namespaces: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub expires_at: Option<u64>,
}

impl Grant {
    /// Whether it has ended.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it may approve and revoke enrolments.
    pub fn manages(&self) -> bool {
        self.has(MANAGE, Need::Write)
    }

    /// Whether it has at least this right in exactly this namespace.
    pub fn has(&self, namespace: &str, need: Need) -> bool {
        let right = self.namespaces.get(namespace);
        right.is_some_and(|right| need == Need::Read || right == "rw")
    }

    /// Whether it may do this to a key, as the store spells it.
    pub fn covers(&self, key: &str, need: Need) -> bool {
        if let Ok(key) = key.parse::<AtKey>()
            && key.is_reserved()
        {
            // Everybody needs the shared keys, and to read what is public anyway. What others know the atSign by is
            // for managers.
            let open = key.is_shared_key() || (key.is_public() && need == Need::Read);
            return open || self.manages();
        }
        let entity = entity(key);
        let inside = |namespace: &str| {
            entity == namespace
                || entity
                    .strip_suffix(namespace)
                    .is_some_and(|rest| rest.ends_with('.'))
        };
        if inside(MANAGE) {
            return self.has(MANAGE, need);
        }
        // What enrolments say about themselves is theirs, whatever else may be granted.
        if let Some((id, _)) = own_data(key) {
            return id == self.id;
        }
        let granted = |namespace: &String| namespace == "*" || inside(namespace);
        self.namespaces
            .keys()
            .any(|namespace| granted(namespace) && self.has(namespace, need))
    }

    /// Whether `scan` shows a key.
    pub fn shows(&self, key: &str) -> bool {
        key.starts_with("public:") || self.covers(key, Need::Read)
    }

    /// Whether it may hand these rights on.
    pub fn can_approve(&self, namespaces: &BTreeMap<String, String>) -> bool {
        self.manages()
            && namespaces.iter().all(|(namespace, right)| {
                let need = if right == "rw" {
                    Need::Write
                } else {
                    Need::Read
                };
                self.has(namespace, need) || (namespace != MANAGE && self.has("*", need))
            })
    }
}
