//! ○ What the keys of enrolments, and of what they keep here, are called.

use crate::server::store::register::Home;

/// The namespace that lets an enrolment manage others.
pub const MANAGE: &str = "__manage";
/// The end of an enrolment's key, between its id and the owner.
pub(super) const ROW: &str = ".new.enrollments.__manage";

/// The name in a key, namespace included: `@bob:x.ns@alice` → `x.ns`.
pub(super) fn entity(key: &str) -> &str {
    let key = key.strip_prefix("cached:").unwrap_or(key);
    let key = match key.split_once(':') {
        Some((_, rest)) => rest,
        None => key,
    };
    key.rsplit_once('@').map_or(key, |(entity, _)| entity)
}

/// The enrolment that a key of the form `<name>.<id>.<a|r|d>.__e@alice` belongs to, and the letter: active, revoked,
/// deleted. Only that enrolment's own connections write such keys, and only active ones; the server moves them.
pub fn own_data(key: &str) -> Option<(&str, &str)> {
    let mut parts = entity(key).rsplit('.');
    if parts.next() != Some("__e") {
        return None;
    }
    let letter = parts.next()?;
    Some((parts.next()?, letter))
}

/// The enrolment whose row this key is.
pub fn id_of<'a>(home: &Home, key: &'a str) -> Option<&'a str> {
    key.strip_suffix(home.who.as_str())?.strip_suffix(ROW)
}

/// `<id>.new.enrollments.__manage@alice`
pub fn key_of(home: &Home, id: &str) -> String {
    format!("{id}{ROW}{}", home.who)
}

/// `<id>.default_enc_private_key.__manage@alice` and its sibling for the self key.
pub fn default_keys_of(home: &Home, id: &str) -> [String; 2] {
    ["default_enc_private_key", "default_self_enc_key"]
        .map(|name| format!("{id}.{name}.{MANAGE}{}", home.who))
}

/// What stands in the names of keys that devices keep here by the `keys` command, between name and namespace.
pub const KEPT: [(&str, &str); 3] = [
    ("public", ".__public_keys."),
    ("private", ".__private_keys."),
    ("self", ".__self_keys."),
];
