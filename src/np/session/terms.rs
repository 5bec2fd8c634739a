//! ○ What a session must have, and in which generation's words it is asked for.

/// What protects a session, and in whose words it is asked for. What is false is not done, even where the peer
/// could; but for authentication, which is done wherever it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// We log in at the rendezvous.
    pub admit_client: bool,
    /// The device logs in there.
    pub admit_device: bool,
    /// What passes it is encrypted by us, whatever runs inside.
    pub encrypt: bool,
    /// Nobody on the way can change that unseen, either.
    pub authenticate: bool,
    /// How we ask.
    pub generation: Generation,
}

/// How a session is asked for. The ones before [`Self::V5`] know neither logins nor encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// The device logs in to us by ssh: [`crate::np::reverse`]. Answered with a bare word.
    V3,
    /// The device meets us, and answers with a bare word: 4.0's release candidate 2.
    V4Rc2,
    /// The same; the answer is signed and holds a temporary ssh key.
    V4,
    /// Everything.
    V5,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            admit_client: true,
            admit_device: true,
            encrypt: true,
            authenticate: false,
            generation: Generation::V5,
        }
    }
}

impl Terms {
    /// A generation as it was: the earlier ones without any protection of their own.
    pub const fn of(generation: Generation) -> Self {
        let protected = matches!(generation, Generation::V5);
        Self {
            admit_client: protected,
            admit_device: protected,
            encrypt: protected,
            authenticate: false,
            generation,
        }
    }

    /// With less protection, as the person wants it: not encrypted, not logged in at the rendezvous by us, nor by
    /// the device.
    pub fn without(mut self, encryption: bool, client: bool, device: bool) -> Self {
        self.encrypt &= !encryption;
        self.admit_client &= !client;
        self.admit_device &= !device;
        self
    }

    /// What can be: a generation that knows no protection is not asked for any.
    pub(super) fn possible(self) -> Self {
        match self.generation {
            Generation::V5 => self,
            other => Self::of(other),
        }
    }

    /// Whether the daemon must say what it can do before it is asked for a session.
    pub fn need_heartbeat(&self) -> bool {
        let terms = self.possible();
        terms.admit_device || terms.encrypt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_can_only_be_taken_away() {
        for (encryption, client, device) in [(true, false, false), (false, true, true)] {
            let terms = Terms::default().without(encryption, client, device);
            assert_eq!(
                (terms.encrypt, terms.admit_client, terms.admit_device),
                (!encryption, !client, !device)
            );
        }
        let old = Terms::of(Generation::V4);
        assert_eq!(old.without(false, false, false), old);
    }
}
