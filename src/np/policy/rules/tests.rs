use super::*;

fn at(text: &str) -> AtSign {
    text.parse().unwrap()
}

/// `users | daemons | device=patterns … | group=patterns …`
fn group(name: &str, text: &str) -> Group {
    let mut parts = text.split('|').map(str::trim);
    let mut words = || -> Vec<&str> { parts.next().unwrap().split_whitespace().collect() };
    let patterns = |list: &str| -> Vec<String> {
        list.split(',')
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let entry = |word: &&str| -> (String, Vec<String>) {
        let (key, list) = word.split_once('=').unwrap();
        (key.to_owned(), patterns(list))
    };
    Group {
        name: name.to_owned(),
        users: words().into_iter().map(at).collect(),
        daemons: words().into_iter().map(at).collect(),
        devices: words()
            .iter()
            .map(entry)
            .map(|(k, v)| (k.parse().unwrap(), v))
            .collect(),
        device_groups: words()
            .iter()
            .map(entry)
            .map(|(k, v)| (k.parse().unwrap(), v))
            .collect(),
        ..Group::default()
    }
}

fn groups() -> Vec<Group> {
    vec![
        group("api", "@alice @bob | @z @d | h2g2=localhost:3000 empty= |"),
        group("rdp", "@charlie @bob | @z | | office=*:3389"),
        group(
            "ssh",
            "@bob | @z | h2g2=*:22,localhost:3000 | office=*:22 void=",
        ),
        group("idle", "@idle | | |"),
    ]
}

fn decide(combine: Combine, client: &str, daemon: &str, device: &str, dg: &str) -> Decision {
    let rules = Rules {
        groups: groups(),
        combine,
    };
    rules.decide(&AuthCheck {
        client: at(client),
        daemon: at(daemon),
        device: device.parse().unwrap(),
        group: dg.parse().unwrap(),
    })
}

#[test]
fn a_file_answers_by_the_name_first() {
    for (client, daemon, device, dg, want, message) in [
        (
            "@nobody",
            "@z",
            "h2g2",
            "office",
            None,
            "No permissions for @nobody",
        ),
        (
            "@alice",
            "@y",
            "h2g2",
            "office",
            None,
            "No permissions for @alice at @y",
        ),
        (
            "@idle",
            "@z",
            "h2g2",
            "office",
            None,
            "No permissions for @idle at @z",
        ),
        (
            "@alice",
            "@z",
            "other",
            "office",
            None,
            "No permissions for @alice at @z for either the device other or the deviceGroup office",
        ),
        (
            "@alice",
            "@d",
            "h2g2",
            "office",
            Some("localhost:3000"),
            "@alice has permission for device h2g2 at daemon @d",
        ),
        // Two groups name the device: they add up, once each. The device group is not looked at.
        (
            "@bob",
            "@z",
            "h2g2",
            "office",
            Some("localhost:3000 *:22"),
            "@bob has permission for device h2g2 at daemon @z",
        ),
        (
            "@bob",
            "@z",
            "other",
            "office",
            Some("*:3389 *:22"),
            "@bob has permission for device group office at daemon @z",
        ),
        // An entry without patterns is an entry.
        (
            "@alice",
            "@z",
            "empty",
            "office",
            Some(""),
            "@alice has permission for device empty at daemon @z",
        ),
        (
            "@bob",
            "@z",
            "other",
            "void",
            Some(""),
            "@bob has permission for device group void at daemon @z",
        ),
    ] {
        let got = decide(Combine::NameFirst, client, daemon, device, dg).answer;
        let row = format!("{client} {daemon} {device} {dg}");
        let permit = got.authorized.then(|| got.permit_open.join(" "));
        assert_eq!(permit.as_deref(), want, "{row}");
        assert_eq!(got.message.as_deref(), Some(message), "{row}");
    }
}

#[test]
fn records_add_up() {
    let nothing = |client: &str, daemon: &str, device: &str, dg: &str| {
        format!(
            "No permissions for {client} at {daemon} for either the device {device} or the deviceGroup {dg}"
        )
    };
    let some = |client: &str, daemon: &str, device: &str, dg: &str| {
        format!(
            "{client} has permission for device {device} and/or device group {dg} at daemon {daemon}"
        )
    };
    for (client, daemon, device, dg, want) in [
        ("@alice", "@y", "h2g2", "office", None),
        ("@alice", "@z", "other", "office", None),
        ("@alice", "@z", "empty", "office", None),
        ("@alice", "@z", "h2g2", "office", Some("localhost:3000")),
        (
            "@bob",
            "@z",
            "h2g2",
            "office",
            Some("localhost:3000 *:22 *:3389"),
        ),
        ("@bob", "@z", "other", "office", Some("*:3389 *:22")),
        ("@charlie", "@z", "h2g2", "office", Some("*:3389")),
    ] {
        let got = decide(Combine::Both, client, daemon, device, dg).answer;
        let row = format!("{client} {daemon} {device} {dg}");
        let permit = got.authorized.then(|| got.permit_open.join(" "));
        assert_eq!(permit.as_deref(), want, "{row}");
        let message = if want.is_some() { some } else { nothing };
        assert_eq!(
            got.message,
            Some(message(client, daemon, device, dg)),
            "{row}"
        );
    }
    let nobody = decide(Combine::Both, "@nobody", "@z", "h2g2", "office");
    assert_eq!(
        nobody.answer.message.as_deref(),
        Some("No permissions for @nobody")
    );
}

#[test]
fn a_decision_says_how_it_came_about() {
    use Combine::{Both, NameFirst};
    for (combine, client, daemon, device, by, groups, why) in [
        (
            NameFirst,
            "@nobody",
            "@z",
            "h2g2",
            None,
            "",
            "no group names @nobody among its userAtSigns",
        ),
        (
            NameFirst,
            "@alice",
            "@y",
            "h2g2",
            None,
            "api",
            "none of the groups of @alice names @y among its daemonAtSigns",
        ),
        (
            NameFirst,
            "@alice",
            "@z",
            "other",
            None,
            "api",
            "they have no entry for the device other and none for the device group office",
        ),
        (
            NameFirst,
            "@bob",
            "@z",
            "h2g2",
            Some(MatchedBy::DeviceName),
            "api ssh",
            "the entry for the device h2g2",
        ),
        (
            NameFirst,
            "@bob",
            "@z",
            "x",
            Some(MatchedBy::DeviceGroup),
            "rdp ssh",
            "the entry for the device group office",
        ),
        (
            Both,
            "@bob",
            "@z",
            "h2g2",
            Some(MatchedBy::Both),
            "api ssh rdp",
            "the entries for the device h2g2 and the device group office",
        ),
        (
            Both,
            "@alice",
            "@z",
            "empty",
            None,
            "api",
            "their entries for this device allow nothing",
        ),
    ] {
        let got = decide(combine, client, daemon, device, "office");
        let row = format!("{combine:?} {client} {daemon} {device}");
        assert_eq!(
            (got.by, got.groups.join(" ").as_str(), got.why.as_str()),
            (by, groups, why),
            "{row}"
        );
    }
}
