//! What has been found or done, on stdout: for people, as lines of JSON, or as scripts around `at_activate` read it.
//!
//! ```text
//!   noports enroll approve       approved c3a9f7d2-…
//!              … --json          {"event":"approved","id":"c3a9f7d2-…",…}
//!   at_activate approve          Found 1 matching enrollment records
//!                                Approved c3a9f7d2-…
//! ```
//! Source: at_client_sdk:packages/at_onboarding_cli/lib/src/cli/auth_cli.dart.

use miniserde::json;

use crate::{
    at::enrolment::Enrollment,
    cli::{Console, Outcome, print_out},
    text::{columns, json::Object},
};

use super::{action::Action, selection::Selection, show};

/// Where results go, and in which form.
pub(super) struct Results<'a> {
    /// Whoever asked for them.
    pub console: &'a Console,
    /// Lines of JSON.
    pub json: bool,
}

impl Results<'_> {
    /// As the classic program did.
    pub(super) fn is_classic(&self) -> bool {
        self.console.given().classic
    }

    /// Those that fit.
    pub(super) fn list(&self, all: &[Enrollment], selection: &Selection) {
        let fit: Vec<_> = all.iter().filter(|one| selection.fits(one)).collect();
        if self.json {
            for one in fit {
                let outcome = outcome("enrolment", one, &one.status);
                self.console.tell(true, outcome);
            }
            return;
        }
        self.found(fit.len());
        for row in table(self.is_classic(), &fit) {
            print_out(&row);
        }
    }

    /// The classic count; other programs say nothing.
    pub(super) fn found(&self, count: usize) {
        if self.is_classic() {
            print_out(&format!("Found {count} matching enrollment records"));
        }
    }

    /// One, whole: `at_activate fetch`.
    pub(super) fn fetched(&self, one: &Enrollment) {
        let record = Object::new()
            .text("enrollmentId", &one.id)
            .text("appName", &one.app)
            .text("deviceName", &one.device)
            .raw("namespace", json::to_string(&one.namespaces))
            .text("status", &one.status)
            .end();
        print_out(&format!("Fetched enrollment OK: {record}"));
    }

    /// What has become of one.
    pub(super) fn done(&self, action: Action, one: &Enrollment) {
        let (past, id) = (action.past(), &one.id);
        let mut outcome = outcome(action.done(), one, action.done())
            .plain(format!("{past} {id}"))
            .classic(format!("{} {id}", classic(action)));
        if matches!(action, Action::Approve | Action::Auto) {
            outcome = outcome.remark(format!(
                "granted {} to {} on {}",
                show::namespaces(&one.namespaces),
                show::shown(&one.app),
                show::shown(&one.device)
            ));
        }
        self.console.tell(self.json, outcome);
    }
}

fn table(classic: bool, of: &[&Enrollment]) -> Vec<String> {
    let head = if classic {
        [
            "Enrollment ID",
            "Status",
            "AppName",
            "DeviceName",
            "Namespaces",
        ]
    } else {
        ["id", "status", "program", "device", "namespaces"]
    };
    let cells = of.iter().map(|one| {
        let names = show::namespaces(&one.namespaces);
        [
            one.id.clone(),
            show::shown(&one.status),
            show::shown(&one.app),
            show::shown(&one.device),
            names,
        ]
    });
    let all: Vec<[String; 5]> = std::iter::once(head.map(str::to_owned))
        .chain(cells)
        .collect();
    // The classic columns begin at fixed places; scripts may cut there.
    let least = if classic {
        [36, 8, 18, 36]
    } else {
        [36, 8, 7, 6]
    };
    columns::lines(&all, &least)
}

fn outcome(event: &str, one: &Enrollment, status: &str) -> Outcome {
    Outcome::new(event)
        .with("id", &one.id)
        .with("code", &show::code(&one.id))
        .with("status", status)
        .with("app", &one.app)
        .with("device", &one.device)
        .raw("namespaces", json::to_string(&one.namespaces))
}

/// The first word of the classic line.
fn classic(action: Action) -> &'static str {
    match action {
        Action::List => "Found",
        Action::Approve | Action::Auto => "Approved",
        Action::Deny => "Denied",
        Action::Revoke => "Revoked",
        Action::Unrevoke => "Un-Revoked",
        Action::Delete => "Deleted",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::enroll::results::*;

    fn one(app: &str, device: &str) -> Enrollment {
        Enrollment {
            id: "c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234".into(),
            app: app.into(),
            device: device.into(),
            namespaces: show::parse_namespaces(show::NAMESPACES).unwrap(),
            status: "pending".into(),
            wrapped: None,
        }
    }

    #[test]
    fn the_table_fits_its_longest_cells() {
        let (a, b) = (one("noports", "pi"), one("a", "the one in the kitchen"));
        assert_eq!(
            table(false, &[&a, &b]),
            [
                "id                                    status    program  device                  namespaces",
                "c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234  pending   noports  pi                      sshnp:rw, sshrvd:rw",
                "c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234  pending   a        the one in the kitchen  sshnp:rw, sshrvd:rw",
            ]
        );
        let classic = table(true, &[&a]);
        for (name, column) in [
            ("Status", 38),
            ("AppName", 48),
            ("DeviceName", 68),
            ("Namespaces", 106),
        ] {
            assert_eq!(classic[0].find(name), Some(column), "{name}");
        }
    }
}
