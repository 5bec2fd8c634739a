//! What has been found or done, on stdout: for people, as lines of JSON, or as scripts around `at_activate` read it.
//!
//! ```text
//!   noports enroll approve       approved c3a9f7d2-…
//!              … --json          {"event":"approved","id":"c3a9f7d2-…",…}
//!   at_activate approve          Found 1 matching enrollment records
//!                                Approved c3a9f7d2-…
//! ```
//! Source: at_client_sdk:packages/at_onboarding_cli/lib/src/cli/auth_cli.dart.

use std::collections::BTreeMap;

use miniserde::json;

use crate::{at::enrolment::Enrollment, cli};

use super::{
    decide::{Action, Choice},
    show,
};

/// How results are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Lines of JSON.
    pub json: bool,
    /// As the classic program did.
    pub classic: bool,
}

#[derive(miniserde::Serialize)]
struct Line<'a> {
    event: &'a str,
    id: &'a str,
    code: &'a str,
    status: &'a str,
    app: &'a str,
    device: &'a str,
    namespaces: &'a BTreeMap<String, String>,
}

/// The words of the classic program.
#[derive(miniserde::Serialize)]
#[allow(non_snake_case)]
struct Record<'a> {
    enrollmentId: &'a str,
    appName: &'a str,
    deviceName: &'a str,
    namespace: &'a BTreeMap<String, String>,
    status: &'a str,
}

impl Told {
    /// Those that fit.
    pub(super) fn list(self, all: &[Enrollment], choice: &Choice) {
        let fit: Vec<_> = all.iter().filter(|one| choice.fits(one)).collect();
        if self.json {
            for one in fit {
                cli::print_out(&line("enrolment", one, &one.status));
            }
            return;
        }
        if self.classic {
            self.found(fit.len());
        }
        for row in self.table(&fit) {
            cli::print_out(&row);
        }
    }

    /// The classic count; other programs say nothing.
    pub(super) fn found(self, count: usize) {
        if self.classic {
            cli::print_out(&format!("Found {count} matching enrollment records"));
        }
    }

    /// One, whole: `at_activate fetch`.
    pub(super) fn fetched(self, one: &Enrollment) {
        let record = Record {
            enrollmentId: &one.id,
            appName: &one.app,
            deviceName: &one.device,
            namespace: &one.namespaces,
            status: &one.status,
        };
        cli::print_out(&format!(
            "Fetched enrollment OK: {}",
            json::to_string(&record)
        ));
    }

    fn table(self, of: &[&Enrollment]) -> Vec<String> {
        let head = if self.classic {
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
        let least = if self.classic {
            [36, 8, 18, 36]
        } else {
            [36, 8, 7, 6]
        };
        let wide: Vec<usize> = least
            .iter()
            .enumerate()
            .map(|(i, &least)| {
                let cells = all.iter().map(|row| row[i].chars().count());
                cells.max().unwrap_or(0).max(least)
            })
            .collect();
        all.iter()
            .map(|row| {
                let cells = row.iter().zip(&wide);
                let front: String = cells
                    .map(|(cell, &wide)| format!("{cell:<wide$}  "))
                    .collect();
                front + &row[4]
            })
            .collect()
    }

    /// What has become of one.
    pub(super) fn done(self, action: Action, one: &Enrollment) {
        let (done, past) = (action.done(), action.past());
        // In JSON it is part of the line.
        if !self.json && matches!(action, Action::Approve | Action::Auto) {
            cli::print_err(&format!(
                "granted {} to {} on {}",
                show::namespaces(&one.namespaces),
                show::shown(&one.app),
                show::shown(&one.device)
            ));
        }
        cli::print_out(&match (self.json, self.classic) {
            (true, _) => line(done, one, done),
            (false, true) => format!("{} {}", classic(action), one.id),
            (false, false) => format!("{past} {}", one.id),
        });
    }
}

fn line(event: &str, one: &Enrollment, status: &str) -> String {
    json::to_string(&Line {
        event,
        id: &one.id,
        code: &show::code(&one.id),
        status,
        app: &one.app,
        device: &one.device,
        namespaces: &one.namespaces,
    })
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
    use crate::program::enroll::told::*;

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
        let told = |classic| Told {
            json: false,
            classic,
        };
        assert_eq!(
            told(false).table(&[&a, &b]),
            [
                "id                                    status    program  device                  namespaces",
                "c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234  pending   noports  pi                      sshnp:rw, sshrvd:rw",
                "c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234  pending   a        the one in the kitchen  sshnp:rw, sshrvd:rw",
            ]
        );
        let classic = told(true).table(&[&a]);
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
