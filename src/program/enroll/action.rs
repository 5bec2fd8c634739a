//! What can be done with an enrolment, and the words for it.

/// What is done with an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    List,
    Approve,
    Auto,
    Deny,
    Revoke,
    Unrevoke,
    Delete,
}

/// (word, action, states it applies to, what has become of it)
const ACTIONS: [(&str, Action, &[&str], &str); 7] = [
    ("list", Action::List, &[], ""),
    ("approve", Action::Approve, &["pending"], "approved"),
    ("auto", Action::Auto, &["pending"], "approved"),
    ("deny", Action::Deny, &["pending"], "denied"),
    ("revoke", Action::Revoke, &["approved"], "revoked"),
    ("unrevoke", Action::Unrevoke, &["revoked"], "approved"),
    ("delete", Action::Delete, &["denied", "revoked"], "deleted"),
];

impl Action {
    /// By its word on the command line.
    pub(super) fn named(word: &str) -> Option<Self> {
        ACTIONS.iter().find(|row| row.0 == word).map(|row| row.1)
    }

    pub(super) fn word(self) -> &'static str {
        ACTIONS[self as usize].0
    }

    pub(super) fn applies_to(self) -> &'static [&'static str] {
        ACTIONS[self as usize].2
    }

    /// The state it leads to.
    pub(super) fn done(self) -> &'static str {
        ACTIONS[self as usize].3
    }

    /// The same for people: there are two ways to get approved.
    pub(super) fn past(self) -> &'static str {
        match self {
            Self::Unrevoke => "unrevoked",
            _ => self.done(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::program::enroll::action::*;

    #[test]
    fn the_table_is_in_the_order_of_the_actions() {
        for (at, (word, action, ..)) in ACTIONS.iter().enumerate() {
            assert_eq!(*action as usize, at, "{word}");
            assert_eq!(Action::named(word), Some(*action));
        }
        assert_eq!(Action::named("@alice"), None);
    }
}
