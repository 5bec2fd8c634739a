//! Every member of every signed message: missing, null, of another type, too long, there twice, in another place;
//! signed by somebody else, altered behind the signature, for another session.
#![allow(clippy::unwrap_used)]

use super::{
    tests::{SESSION, read_with, vectors, vectors_2026},
    *,
};
use crate::{
    at::crypto::KeyPair,
    np::{
        admit::{Admission, MAX_ADMISSION},
        envelope,
        reverse::ReverseRequest,
    },
};

/// The members of an object as they stand there: `"name":value`.
fn members(payload: &str) -> Members {
    let inner = &payload[1..payload.len() - 1];
    let (mut parts, mut start, mut depth, mut quoted, mut escaped) = (vec![], 0, 0, false, false);
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let split = |part: &str| {
        let (name, value) = part.split_once(':').unwrap();
        (name.trim_matches('"').to_owned(), value.to_owned())
    };
    parts.into_iter().map(split).collect()
}

fn object(members: &[(String, String)]) -> String {
    let all: Vec<_> = members
        .iter()
        .map(|(name, value)| format!(r#""{name}":{value}"#))
        .collect();
    format!("{{{}}}", all.join(","))
}

/// (name, value) of each, in order.
type Members = Vec<(String, String)>;

/// (what was done, the payload then)
fn spoilt(payload: &str) -> Vec<(String, String)> {
    let good = members(payload);
    let mut all = Vec::new();
    for (i, (name, value)) in good.iter().enumerate() {
        let mut with = |what: &str, change: &dyn Fn(&mut Members)| {
            let mut members = good.clone();
            change(&mut members);
            all.push((format!("{name} {what}"), object(&members)));
        };
        with("missing", &|all| drop(all.remove(i)));
        with("twice", &|all| all.push((name.clone(), value.clone())));
        let long = format!("\"{}\"", "a".repeat(20_000));
        for (what, value) in [
            ("null", "null"),
            ("true", "true"),
            ("a number", "7"),
            ("a negative number", "-1"),
            ("a fraction", "1.5"),
            ("too large", "70000000000000000000000"),
            ("a word", "\"word\""),
            ("empty", "\"\""),
            ("two lines", "\"a\\nb\""),
            ("a list", "[]"),
            ("an object", "{}"),
            ("too long", &long),
        ] {
            with(what, &|all| all[i].1 = value.to_owned());
        }
    }
    all
}

/// Reads a signed message; what it says, as text.
type Reader = fn(&str, &KeyPair) -> Result<String, String>;

fn said<T: std::fmt::Debug, E: std::fmt::Display>(read: Result<T, E>) -> Result<String, String> {
    read.map(|read| format!("{read:?}"))
        .map_err(|why| why.to_string())
}

fn ssh(text: &str, signer: &KeyPair) -> Result<String, String> {
    said(SshRequest::parse(text, signer.public()))
}

fn tunnel(text: &str, signer: &KeyPair) -> Result<String, String> {
    said(TunnelRequest::parse(text, signer.public()))
}

fn reverse(text: &str, signer: &KeyPair) -> Result<String, String> {
    said(ReverseRequest::parse_signed(text, signer.public()))
}

fn answer(text: &str, signer: &KeyPair) -> Result<String, String> {
    let ephemeral = vectors().key("session");
    said(read_with(
        text,
        SESSION.parse().unwrap(),
        signer.public(),
        &ephemeral,
    ))
}

fn admission(text: &str, signer: &KeyPair) -> Result<String, String> {
    let ours = Admission {
        session: SESSION.parse().unwrap(),
        client_nonce: "2024-10-24T10:15:30.123456".parse().unwrap(),
        rendezvous_nonce: "2024-10-24T10:15:31.654321".parse().unwrap(),
    };
    assert!(text.len() < MAX_ADMISSION || text.contains("aaaa"));
    said(ours.check(text.as_bytes(), signer.public()).map(drop))
}

/// (message, its payload, who reads it, what may be done to it: `member change`)
fn table() -> Vec<(&'static str, String, Reader, &'static [&'static str])> {
    let v = vectors();
    let known = |name: &str| v.text(&["envelopes", name, "signingInput"]);
    let with_twin =
        |text: String| text.strip_suffix('}').unwrap().to_owned() + r#","twinKeys":true}"#;
    vec![
        // A word is a host. So is 36 characters of it, but not 20 000.
        (
            "ssh 4.0",
            known("v4_ssh_request_direct"),
            ssh,
            &["host word", "port 7"],
        ),
        (
            "ssh 5.0",
            with_twin(known("v5_ssh_request")),
            ssh,
            &[
                "host word",
                "port 7",
                "authenticateToRvd none",
                "encryptRvdTraffic none",
                "clientNonce word",
                "rvdNonce word",
                "twinKeys none",
            ],
        ),
        (
            "tunnel",
            with_twin(known("v5_npt_request")),
            tunnel,
            &[
                "rvdHost word",
                "rvdPort 7",
                "requestedPort 7",
                "requestedHost word",
                "authenticateToRvd none",
                "encryptRvdTraffic none",
                "clientNonce word",
                "rvdNonce word",
                "timeout none",
                "timeout 7",
                "twinKeys none",
            ],
        ),
        (
            "reverse",
            known("v4rc_ssh_request_reverse"),
            reverse,
            &[
                "host word",
                "port 7",
                "username word",
                "remoteForwardPort 7",
            ],
        ),
        (
            "answer 4.0",
            known("v4_response"),
            answer,
            &["ephemeralPrivateKey none", "ephemeralPrivateKey empty"],
        ),
        (
            "answer 5.0",
            known("v5_ssh_response_c_daemon"),
            answer,
            &["ephemeralPrivateKey none", "ephemeralPrivateKey empty"],
        ),
        ("answer of a tunnel", known("v5_npt_response"), answer, &[]),
        ("twin answer", known("v58_twin_response"), answer, &[]),
        (
            "admission",
            v.text(&["relayAuth", "signingInput"]),
            admission,
            &[],
        ),
    ]
}

#[test]
fn only_what_is_listed_may_be_wrong_with_a_message() {
    let signer = vectors().key("@client_example");
    let mut surprises = Vec::new();
    for (message, mut payload, read, may) in table() {
        // What nobody reads may be anything.
        payload = payload.replace(r#","eventLoggingConfig":null"#, "");
        let seal = |payload: &str| envelope::seal(payload, &signer).unwrap();
        assert!(read(&seal(&payload), &signer).is_ok(), "{message}");
        for (what, spoilt) in spoilt(&payload) {
            let short = [
                ("missing", "none"),
                ("null", "none"),
                ("a word", "word"),
                ("a number", "7"),
            ];
            let short = short
                .iter()
                .fold(what.clone(), |what, (from, to)| what.replace(from, to));
            let fine = may.contains(&short.as_str());
            let verdict = read(&seal(&spoilt), &signer);
            if verdict.is_ok() != fine && spoilt != payload {
                surprises.push(format!("{message}: {what}: {verdict:.200?}"));
            }
            let shown = verdict.unwrap_or_else(|why| why);
            assert!(shown.len() < 4000, "{message}: {what}: a text without end");
        }
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[test]
fn neither_order_nor_later_members_matter() {
    let signer = vectors().key("@client_example");
    for (message, payload, read, _) in table() {
        let read = |payload: &str| read(&envelope::seal(payload, &signer).unwrap(), &signer);
        let want = read(&payload);
        let mut turned = members(&payload);
        turned.reverse();
        if message == "admission" {
            assert!(read(&object(&turned)).is_err(), "it is compared as a text");
            continue;
        }
        assert_eq!(read(&object(&turned)), want, "{message}: turned round");
        for later in [
            r#""later":{"a":[1,{"b":null}],"sessionId":"x"}"#,
            r#""":0"#,
            r#""\u0000":"é""#,
        ] {
            let longer = format!("{{{later},{}", &payload[1..]);
            assert_eq!(read(&longer), want, "{message}: {later}");
        }
    }
}

#[test]
fn what_somebody_else_signed_or_changed_is_refused() {
    let v = vectors();
    let (signer, other) = (v.key("@client_example"), v.key("@device_example"));
    for (message, payload, read, _) in table() {
        let sealed = envelope::seal(&payload, &signer).unwrap();
        assert!(read(&sealed, &other).is_err(), "{message}: another's");
        let port = payload.replace("40190", "40191").replace("40189", "40188");
        for changed in [
            sealed.replace(&payload, &port),
            sealed.replace(
                &payload,
                &payload.replace(SESSION, &SessionId::random().to_string()),
            ),
            sealed.replace(&payload, "{}"),
            sealed.replacen('{', r#"{"payload":{"sessionId":"x"},"#, 1),
            sealed.replace(r#""signature":""#, r#""signature":"AAAA"#),
            sealed.replace(r#""sha256""#, r#""sha512""#),
            sealed.replace(r#""sha256""#, r#""none""#),
            sealed[..sealed.len() - 1].to_owned(),
            format!("{sealed}{sealed}"),
            payload.clone(),
            String::new(),
        ] {
            if changed != sealed {
                assert!(
                    read(&changed, &signer).is_err(),
                    "{message}: {changed:.200}"
                );
            }
        }
    }
}

#[test]
fn no_message_passes_for_another() {
    let signer = vectors().key("@client_example");
    let kind = |name: &str| match name {
        _ if name.contains("answer") => "answer".to_owned(),
        _ if name.starts_with("ssh") => "ssh".to_owned(),
        _ => name.to_owned(),
    };
    for (message, payload, _, _) in table() {
        let sealed = envelope::seal(&payload, &signer).unwrap();
        for (reader, _, read, _) in table() {
            if kind(message) != kind(reader) {
                assert!(
                    read(&sealed, &signer).is_err(),
                    "{message} read as {reader}"
                );
            }
        }
    }
    // Nor does 2026's, whose login we do not have.
    for name in ["ssh_request", "npt_request"] {
        let text = vectors_2026().text(&["sessionRequests", name, "value"]);
        assert!(
            ssh(&text, &signer).is_err() && tunnel(&text, &signer).is_err(),
            "{name}"
        );
    }
}
