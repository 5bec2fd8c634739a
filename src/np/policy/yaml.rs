//! Rules from a YAML file.
//!
//! ```yaml
//! userGroups:
//!   sysadmins:
//!     userAtSigns: ["@alice", "@bob"]
//!     permissions:
//!       daemonAtSigns: ["@my_device"]
//!       deviceNames:
//!         pi: ["localhost:22"]
//!       deviceGroupNames:
//!         office: ["*:3389"]
//! ```
//! Stricter than a general reader, because a slip decides who gets in: unknown members, names given twice
//! and references (`*x`) are refused, with their line.
//!
//! Source: noports:packages/dart/sshnoports/bin/npp_file.dart.

use std::{collections::BTreeMap, collections::BTreeSet, fmt::Display, str::FromStr};

use super::rules::{Combine, Group, Rules, pattern};
use crate::text::yaml::{NodePath, tree};

pub use crate::text::yaml::{BadYaml as BadRules, MAX_FILE};

/// Reads a file's text.
///
/// # Errors
/// The first thing that cannot be used: line, member, and why.
pub fn parse(text: &str) -> Result<Rules, BadRules> {
    let root = tree(text)?;
    let top = NodePath::top(&root);
    let [groups] = top.members(["userGroups"])?;
    let groups = groups.ok_or_else(|| top.bad("userGroups is missing"))?;
    let read = groups
        .entries()?
        .into_iter()
        .map(|(name, place)| group(name, &place));
    Ok(Rules {
        groups: read.collect::<Result<_, _>>()?,
        combine: Combine::NameFirst,
    })
}

fn group(name: &str, place: &NodePath) -> Result<Group, BadRules> {
    let [users, permissions] = place.members(["userAtSigns", "permissions"])?;
    let users = users.ok_or_else(|| place.bad("userAtSigns is missing"))?;
    let permissions = permissions.ok_or_else(|| place.bad("permissions is missing"))?;
    let [daemons, devices, device_groups] =
        permissions.members(["daemonAtSigns", "deviceNames", "deviceGroupNames"])?;
    Ok(Group {
        name: name.to_owned(),
        users: names(&users)?,
        daemons: daemons.map_or(Ok(BTreeSet::new()), |place| names(&place))?,
        devices: devices.map_or(Ok(BTreeMap::new()), |place| patterns(&place))?,
        device_groups: device_groups.map_or(Ok(BTreeMap::new()), |place| patterns(&place))?,
        ..Group::default()
    })
}

fn names<T>(place: &NodePath) -> Result<BTreeSet<T>, BadRules>
where
    T: FromStr + Ord,
    T::Err: Display,
{
    let texts = place.texts()?;
    let read = texts
        .iter()
        .map(|(text, place)| text.parse().map_err(|why| place.bad(why)));
    read.collect()
}

fn patterns<K>(place: &NodePath) -> Result<BTreeMap<K, Vec<String>>, BadRules>
where
    K: FromStr + Ord,
    K::Err: Display,
{
    let mut all = BTreeMap::new();
    for (name, place) in place.entries()? {
        let key: K = name.parse().map_err(|why| place.bad(why))?;
        let texts = place.texts()?;
        let read = texts
            .iter()
            .map(|(text, place)| pattern(text).map_err(|why| place.bad(why)));
        // Two spellings of one name are one name.
        if all.insert(key, read.collect::<Result<_, _>>()?).is_some() {
            return Err(place.bad("given twice"));
        }
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::policy::AuthCheck;

    const FILE: &str = r#"# who may do what
userGroups:
  "api_users":
    userAtSigns:
      - "@alice"
      - "@bob"
    permissions:
      daemonAtSigns:
        - "@zaphod"
        - '@dentarthurdent'
      deviceNames:
        "h2g2":
          - "localhost:3000"
  rdp_users:
    userAtSigns: ["@charlie", bob]
    permissions:
      daemonAtSigns: [ "@zaphod" ]
      deviceNames:
      deviceGroupNames:
        network_name_123:
          - "*:3389"
"#;

    #[test]
    fn a_file_becomes_rules() {
        let rules = parse(FILE).unwrap();
        let names: Vec<_> = rules.groups.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["api_users", "rdp_users"]);
        let ask = |client: &str, device: &str, group: &str| {
            let question = AuthCheck {
                client: client.parse().unwrap(),
                daemon: "@zaphod".parse().unwrap(),
                device: device.parse().unwrap(),
                group: group.parse().unwrap(),
            };
            rules.decide(&question).answer.permit_open.join(" ")
        };
        assert_eq!(ask("@alice", "h2g2", "network_name_123"), "localhost:3000");
        assert_eq!(ask("@bob", "h2g2", "network_name_123"), "localhost:3000");
        assert_eq!(ask("@bob", "other", "network_name_123"), "*:3389");
        assert_eq!(ask("@alice", "other", "network_name_123"), "");
    }

    #[test]
    fn empty_places_are_empty_and_names_may_look_like_numbers() {
        let rules = parse(
            "userGroups:\n  7:\n    userAtSigns: ['@a']\n    permissions:\n      deviceNames: {42: ['*:*'], x: }\n",
        )
        .unwrap();
        assert_eq!(rules.groups[0].name, "7");
        assert!(rules.groups[0].daemons.is_empty());
        assert_eq!(rules.groups[0].devices.len(), 2);
        assert!(parse("userGroups:\n").unwrap().groups.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let spoil = |from: &str, to: &str| FILE.replacen(from, to, 1);
        for (text, want) in [
            (String::new(), "line 1: userGroups is missing"),
            (
                "x: 1\n".into(),
                "line 1: x: unknown; known here: userGroups",
            ),
            ("[]\n".into(), "line 1: a list where names are expected"),
            (
                "userGroups: 7\n".into(),
                "line 1: userGroups: a text where names are expected",
            ),
            (
                spoil("userAtSigns:", "userAtsigns:"),
                "line 5: userGroups.api_users.userAtsigns: unknown; known here: userAtSigns, permissions",
            ),
            (
                spoil("    userAtSigns: [\"@charlie\", bob]\n", ""),
                "line 15: userGroups.rdp_users: userAtSigns is missing",
            ),
            (
                spoil("\"@alice\"", "\"@a b\""),
                "line 5: userGroups.api_users.userAtSigns: ",
            ),
            (
                spoil("\"@bob\"", "{a: b}"),
                "line 6: userGroups.api_users.userAtSigns: a map in a list of texts",
            ),
            (
                spoil("[\"@charlie\", bob]", "\"@charlie\""),
                "line 15: userGroups.rdp_users.userAtSigns: a text where a list is expected",
            ),
            (
                spoil("localhost:3000", "localhost"),
                "line 13: userGroups.api_users.permissions.deviceNames.h2g2: \"localhost\" is not host:port, where either may be *",
            ),
            (
                spoil("\"h2g2\"", "\"h2/g2\""),
                "line 13: userGroups.api_users.permissions.deviceNames.h2/g2: \"h2/g2\" is not a device name: it needs 1 to 36 of a-z, 0-9, _ and -, the first one not a -",
            ),
            (
                spoil("rdp_users", "api_users"),
                "line 14: userGroups.api_users: given twice",
            ),
            (
                spoil("\"h2g2\":", "H2g2:\n          - '*:1'\n        h2g2:"),
                "line 15: userGroups.api_users.permissions.deviceNames.h2g2: given twice",
            ),
            (spoil("\"@bob\"", "*alice"), "line 6: "),
            (
                spoil("\"@alice\"", "&alice '@alice'\n      - *alice"),
                "line 6: a reference (*name); write it out",
            ),
            (spoil("- \"@bob\"", "- \"@bob"), "line "),
            (
                format!("{FILE}---\nuserGroups:\n"),
                "line 24: a second document",
            ),
            (
                format!("userGroups: {}", "[".repeat(100)),
                "line 1: nested too deep",
            ),
            (
                " ".repeat(MAX_FILE + 1),
                "line 1: the file is longer than 1 MiB",
            ),
        ] {
            let said = parse(&text).unwrap_err().to_string();
            assert!(said.starts_with(want), "{said}\ninstead of {want}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ \\n:\\-\\[\\]{}'\"&*#a-c@!|>%]{0,120}") {
            let _ = parse(&text);
            let _ = parse(&format!("userGroups:\n  {text}"));
        }
    }
}
