//! Known answers for the tests, by dotted path.

use miniserde::json::{self, Value};

use super::{atsign::AtSign, keyfile::AtKeys};

/// A node of a vector file.
#[derive(Clone)]
pub(crate) struct Vectors(Value);

/// The answers about the atProtocol.
pub(crate) fn at_protocol() -> Vectors {
    read(include_str!("../../tests/vectors/atprotocol.json"))
}

/// The answers about NoPorts.
pub(crate) fn noports() -> Vectors {
    read(include_str!("../../tests/vectors/noports.json"))
}

/// The answers about NoPorts after 2024.
pub(crate) fn noports_2026() -> Vectors {
    read(include_str!("../../tests/vectors/noports-2026.json"))
}

fn read(text: &str) -> Vectors {
    Vectors(json::from_str(text).expect("the vector files are JSON"))
}

impl Vectors {
    /// The node at a path such as `keys.alice_pkam`.
    pub(crate) fn at(&self, path: &str) -> Self {
        let node = path.split('.').fold(&self.0, |node, name| match node {
            Value::Object(object) => object.get(name).unwrap_or_else(|| panic!("no {path}")),
            _ => panic!("no {path}"),
        });
        Self(node.clone())
    }

    /// The text at a path.
    pub(crate) fn text(&self, path: &str) -> String {
        match self.at(path).0 {
            Value::String(text) => text,
            _ => panic!("{path} is no text"),
        }
    }

    /// The list at a path.
    pub(crate) fn list(&self, path: &str) -> Vec<Self> {
        match self.at(path).0 {
            Value::Array(list) => list.iter().cloned().map(Self).collect(),
            _ => panic!("{path} is no list"),
        }
    }

    /// The node as JSON text.
    pub(crate) fn json(&self) -> String {
        json::to_string(&self.0)
    }
}

/// An atSign that is one.
pub(crate) fn atsign(text: &str) -> AtSign {
    text.parse().expect("tests name real atSigns")
}

/// @alice's keys, from `legacy_file` or `apkam_file`.
pub(crate) fn keys(which: &str) -> AtKeys {
    let file = at_protocol().at("atkeys_files").at(which).json();
    AtKeys::parse(&atsign("@alice"), &file).expect("the known files are good")
}
