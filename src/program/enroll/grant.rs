//! What may be granted, and what is said against more.

use std::collections::BTreeMap;

use crate::{at::enrolment::Enrollment, cli::Failure};

use super::show;

/// What may be granted without anybody looking.
pub(super) enum GrantLimit {
    /// Somebody looks at each and says yes; or named the very one, as with the classic program.
    Nothing,
    /// No more than this.
    Most(BTreeMap<String, String>),
    /// Anything that does not reach all of the atSign: the classic program is for others' namespaces, too.
    Ordinary,
}

impl GrantLimit {
    /// Whether this may be granted; what is said against it.
    pub(super) fn admits(&self, one: &Enrollment) -> Result<(), Failure> {
        let (far, hint) = match self {
            Self::Nothing => return Ok(()),
            Self::Most(most) => (
                beyond(one, most),
                "approve it by its short id without --yes; or allow it with --grant".to_owned(),
            ),
            Self::Ordinary => {
                let far = |name: &str| matches!(name, "*" | "__manage");
                let asked = one.namespaces.iter().filter(|(name, _)| far(name));
                let asked = asked.map(|(name, right)| (name.clone(), right.clone()));
                (
                    asked.collect(),
                    format!("to grant it anyway: approve -i {}", one.id),
                )
            }
        };
        if far.is_empty() {
            return Ok(());
        }
        Err(Failure::plain(format!(
            "{} ({} on {}) asks for {}, which is not granted without asking",
            show::code(&one.id),
            show::shown(&one.app),
            show::shown(&one.device),
            show::namespaces(&far)
        ))
        .hint(hint))
    }
}

/// What of a request is more than this. `*` is everything but deciding about others.
fn beyond(one: &Enrollment, most: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let allows = |name: &str, right: &str| {
        let granted = most.get(name).or_else(|| {
            let all = most.get("*");
            all.filter(|_| name != "__manage")
        });
        granted
            .is_some_and(|most| matches!((most.as_str(), right), ("rw", "r" | "rw") | ("r", "r")))
    };
    let asked = one.namespaces.iter();
    asked
        .filter(|(name, right)| !allows(name, right))
        .map(|(name, right)| (name.clone(), right.clone()))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::enroll::{grant::*, selection::tests::one};

    #[test]
    fn nothing_beyond_what_was_named_is_granted_unseen() {
        let named = |text: &str| GrantLimit::Most(show::parse_namespaces(text).unwrap());
        for (limit, asked, want) in [
            (named(show::NAMESPACES), "sshnp:rw,sshrvd:rw", true),
            (named(show::NAMESPACES), "sshrvd:r, sshnp:rw,sshnp:r", true),
            (named(show::NAMESPACES), "*:rw", false),
            (named(show::NAMESPACES), "*:r", false),
            (named(show::NAMESPACES), "sshnp:rw,__manage:r", false),
            (named(show::NAMESPACES), "sshnp:rw,SSHRVD:rw", false),
            (named(show::NAMESPACES), "sshnp:rw,sshnp.x:r", false),
            (named("sshnp:r"), "sshnp:rw", false),
            (named("*:rw"), "sshnp:rw,x:r,*:rw", true),
            (named("*:r"), "x:rw", false),
            (named("*:rw"), "__manage:r", false),
            (named("*:rw,__manage:rw"), "__manage:rw", true),
            (GrantLimit::Ordinary, "buzz:rw", true),
            (GrantLimit::Ordinary, "buzz:rw,__manage:r", false),
            (GrantLimit::Ordinary, "*:r", false),
            (GrantLimit::Nothing, "*:rw,__manage:rw", true),
        ] {
            let mut request = one("aaaa1111-0000", "pi", "pending");
            request.namespaces = show::parse_namespaces(asked).unwrap();
            assert_eq!(limit.admits(&request).is_ok(), want, "{asked}");
        }
        // Rights that nobody knows are no less than others.
        let mut request = one("aaaa1111-0000", "pi", "pending");
        request.namespaces.insert("sshnp".into(), "rwx".into());
        let failure = named(show::NAMESPACES).admits(&request).unwrap_err();
        assert_eq!(
            failure.message,
            "aaaa-1111 (noports on pi) asks for sshnp:rwx, which is not granted without asking"
        );
    }
}
