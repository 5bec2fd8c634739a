//! The known answers, as seeds and keys.

use miniserde::json::{self, Value};
use noports::{
    at::crypto::KeyPair,
    np::{admit::Admission, ids::Nonce},
};

const FILES: [&str; 3] = [
    include_str!("../../vectors/atprotocol.json"),
    include_str!("../../vectors/noports.json"),
    include_str!("../../vectors/noports-2026.json"),
];

/// Shows every node of all files, with its path.
pub fn visit(each: &mut dyn FnMut(&str, &Value)) {
    for file in FILES {
        let root: Value = json::from_str(file).expect("the vector files are JSON");
        walk("", &root, each);
    }
}

fn walk(path: &str, node: &Value, each: &mut dyn FnMut(&str, &Value)) {
    each(path, node);
    match node {
        Value::Object(members) => {
            for (name, inner) in members {
                walk(&format!("{path}.{name}"), inner, each);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|inner| walk(&format!("{path}[]"), inner, each)),
        _ => {}
    }
}

/// All texts in members of this name.
#[allow(dead_code)] // each target uses a part of this file
pub fn all_texts(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    visit(&mut |path, node| {
        if let Value::String(text) = node
            && path.rsplit('.').next() == Some(name)
        {
            found.push(text.clone());
        }
    });
    found
}

/// A key pair by its name.
#[allow(dead_code)]
pub fn pair(name: &str) -> KeyPair {
    let mut found = None;
    visit(&mut |path, node| {
        if let Value::String(text) = node
            && path == format!(".keys.{name}.privateKeyPkcs8Base64")
        {
            found = Some(KeyPair::parse(text).expect("known keys are good"));
        }
    });
    found.expect("a known key")
}

/// The session of the known answers.
#[allow(dead_code)]
pub fn admission() -> Admission {
    let nonce = |text: &str| text.parse::<Nonce>().expect("a nonce");
    Admission {
        session: "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11"
            .parse()
            .expect("an id"),
        client_nonce: nonce("2024-10-24T10:15:30.123456"),
        rendezvous_nonce: nonce("2026-09-24T10:15:31.654321"),
    }
}
