//! The known answers, and requests and answers against them.
#![allow(clippy::unwrap_used)]

use miniserde::json;

use super::*;
use crate::{
    at::crypto::{self, KeyPair},
    np::envelope,
    pipe::cipher::SessionKeys,
    secret::Secret,
};

/// The known answers, by path.
pub(in crate::np) struct Vectors(json::Value);

pub(in crate::np) fn vectors() -> Vectors {
    Vectors(json::from_str(include_str!("../../../tests/vectors/noports.json")).unwrap())
}

pub(in crate::np) fn vectors_2026() -> Vectors {
    Vectors(json::from_str(include_str!("../../../tests/vectors/noports-2026.json")).unwrap())
}

impl Vectors {
    fn at(&self, path: &[&str]) -> &json::Value {
        path.iter().fold(&self.0, |value, name| match value {
            json::Value::Object(members) => &members[*name],
            _ => panic!("{path:?}: no object at {name}"),
        })
    }

    pub(in crate::np) fn text(&self, path: &[&str]) -> String {
        match self.at(path) {
            json::Value::String(text) => text.clone(),
            other => panic!("{path:?}: {}", json::to_string(other)),
        }
    }

    pub(in crate::np) fn names(&self, section: &str) -> Vec<String> {
        match self.at(&[section]) {
            json::Value::Object(members) => members.keys().cloned().collect(),
            _ => panic!("{section}"),
        }
    }

    pub(in crate::np) fn key(&self, who: &str) -> KeyPair {
        KeyPair::parse(&self.text(&["keys", who, "privateKeyPkcs8Base64"])).unwrap()
    }
}

pub(in crate::np) const SESSION: &str = "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11";

pub(in crate::np) fn meeting(twin_keys: bool) -> Meeting {
    Meeting {
        session: SESSION.parse().unwrap(),
        host: "127.0.0.1".into(),
        port: 40190,
        admission: Some(Nonces {
            client: "2024-10-24T10:15:30.123456".parse().unwrap(),
            rendezvous: "2024-10-24T10:15:31.654321".parse().unwrap(),
        }),
        encryption: Some(Encryption::Stream {
            ephemeral: vectors().key("session").public().clone(),
            twin_keys,
        }),
        socket_key: None,
        stamp: None,
    }
}

/// What the client of these vectors reads with its ephemeral key.
pub(in crate::np) fn read_with(
    text: &str,
    session: SessionId,
    signer: &PublicKey,
    ephemeral: &KeyPair,
) -> Result<Answer, AnswerError> {
    let mut asked = Asked {
        keys: &mut Some(ClientKeys::Rsa(Box::new(ephemeral.clone()))),
        request: "",
        client: (&"@client_example".parse().unwrap(), signer),
        device: &"@device_example".parse().unwrap(),
        name: &"my_device".parse().unwrap(),
    };
    read_answer(text, session, signer, Some(&mut asked))
}

/// Keys as our daemon makes them.
pub(in crate::np) fn device_keys(keys: Option<&SessionKeys>) -> DeviceKeys {
    keys.map_or(DeviceKeys::Bare, |keys| {
        DeviceKeys::Stream(keys.clone(), true)
    })
}

fn request(twin_keys: bool) -> SshRequest {
    SshRequest {
        meeting: meeting(twin_keys),
        form: RequestForm::V5,
    }
}

/// As 4.0 asks.
fn old_request() -> SshRequest {
    SshRequest {
        meeting: Meeting {
            port: 40189,
            admission: None,
            encryption: None,
            ..meeting(false)
        },
        form: RequestForm::V4,
    }
}

#[test]
fn our_requests_are_pinned_and_twin_keys_stand_at_the_end() {
    let known = vectors().text(&["envelopes", "v5_ssh_request", "signingInput"]);
    assert_eq!(request(false).payload(), known);
    let oldest = vectors().text(&["envelopes", "v4_ssh_request_direct", "signingInput"]);
    assert_eq!(old_request().payload(), oldest);
    let want = known.strip_suffix('}').unwrap().to_owned() + r#","twinKeys":true}"#;
    assert_eq!(request(true).payload(), want);
}

#[test]
fn requests_of_every_direct_client_can_be_read() {
    let v = vectors();
    let signer = v.key("@client_example").public().clone();
    let text = v.text(&["envelopes", "v5_ssh_request", "envelope"]);
    assert_eq!(SshRequest::parse(&text, &signer), Ok(request(false)));
    let oldest = v.text(&["envelopes", "v4_ssh_request_direct", "envelope"]);
    assert_eq!(SshRequest::parse(&oldest, &signer), Ok(old_request()));
    assert_eq!(claimed_session(&text), Some(request(false).meeting.session));

    // 2026's, as it is when the login at the rendezvous is the classic one; its newer login is refused by name.
    let newest = vectors_2026().text(&["sessionRequests", "ssh_request", "value"]);
    let refusal = RequestError::Unsupported("that login to the rendezvous");
    assert_eq!(SshRequest::parse(&newest, &signer), Err(refusal));
    let payload = Envelope::parse(&newest)
        .unwrap()
        .unverified()
        .replace(r#""escr""#, r#""payload""#);
    let sealed = envelope::seal(&payload, &v.key("@client_example")).unwrap();
    let read = SshRequest::parse(&sealed, &signer).unwrap();
    let twin = matches!(
        read.meeting.encryption,
        Some(Encryption::Stream {
            twin_keys: true,
            ..
        })
    );
    assert!(twin);
}

#[test]
fn each_bad_member_is_refused_by_its_name() {
    let v = vectors();
    let key = v.key("@client_example");
    let good = request(true).payload();
    for (from, to, want) in [
        (
            r#""direct":true"#,
            r#""direct":false"#,
            RequestError::Reverse,
        ),
        (r#""direct":true,"#, "", RequestError::Member("form")),
        (
            r#""port":40190"#,
            r#""port":"40190""#,
            RequestError::Member("form"),
        ),
        (
            r#""port":40190"#,
            r#""port":0"#,
            RequestError::Member("host and port"),
        ),
        (
            r#""host":"127.0.0.1""#,
            r#""host":"a b""#,
            RequestError::Member("host and port"),
        ),
        (
            r#""encryptRvdTraffic":true"#,
            r#""encryptRvdTraffic":"yes""#,
            RequestError::Member("form"),
        ),
        (
            r#""twinKeys":true"#,
            r#""twinKeys":1"#,
            RequestError::Member("relayAuthMode or twinKeys"),
        ),
        (SESSION, "../../etc", RequestError::Id(BadId::Session)),
        (
            "2024-10-24T10:15:30.123456",
            "",
            RequestError::Id(BadId::Nonce),
        ),
        (
            "rsa2048",
            "rsa1024",
            RequestError::Member("clientEphemeralPKType"),
        ),
        ("MIIB", "AAAA", RequestError::Member("clientEphemeralPK")),
    ] {
        let sealed = envelope::seal(&good.replace(from, to), &key).unwrap();
        assert_eq!(
            SshRequest::parse(&sealed, key.public()),
            Err(want),
            "{from} -> {to}"
        );
    }
}

#[test]
fn a_request_signed_by_somebody_else_is_refused() {
    let v = vectors();
    let sealed = envelope::seal(&request(true).payload(), &v.key("@device_example")).unwrap();
    let verdict = SshRequest::parse(&sealed, v.key("@client_example").public());
    assert_eq!(
        verdict,
        Err(RequestError::Envelope(EnvelopeError::Signature))
    );
}

#[test]
fn every_generations_answer_gives_the_known_keys() {
    let v = vectors();
    let (device, ephemeral) = (v.key("@device_example"), v.key("session"));
    let wrap = |member: &str| v.text(&["sessionKeyWrap", member]);
    for (name, twin) in [
        ("v5_ssh_response_c_daemon", false),
        ("v5_npt_response", false),
        ("v58_twin_response", true),
    ] {
        let text = v.text(&["envelopes", name, "envelope"]);
        let session = SESSION.parse().unwrap();
        let answer = read_with(&text, session, device.public(), &ephemeral).unwrap();
        let Answer::Signed {
            keys: Some(TransportKeys::Stream(keys)),
            ephemeral_key: None,
            takes_shares: false,
        } = answer
        else {
            panic!("{name}: {answer:?}");
        };
        assert_eq!(
            crypto::aes_key_to_base64(&keys.to_device.key).reveal(),
            &wrap("aesKeyBase64"),
            "{name}"
        );
        assert_eq!(
            crypto::to_base64(&keys.to_device.iv),
            wrap("ivBase64"),
            "{name}"
        );
        assert_eq!(keys.are_twin(), twin, "{name}");
    }
}

#[test]
fn our_answers_come_back_as_the_same_keys() {
    let v = vectors();
    let (device, ephemeral) = (v.key("@device_example"), v.key("session"));
    let (to, name) = (
        "@client_example".parse().unwrap(),
        "my_device".parse().unwrap(),
    );
    for twin in [false, true] {
        let keys = SessionKeys::random(twin).unwrap();
        let made = device_keys(Some(&keys));
        let message = accept(&request(twin), &made, None, &to, &name, &device)
            .unwrap()
            .message;
        assert_eq!(message.entity, format!("{SESSION}.my_device.sshnp"));
        let back = read_with(
            &message.text,
            SESSION.parse().unwrap(),
            device.public(),
            &ephemeral,
        );
        let want = Answer::Signed {
            keys: Some(TransportKeys::Stream(keys)),
            ephemeral_key: None,
            takes_shares: true,
        };
        assert_eq!(back, Ok(want), "twin: {twin}");
    }
}

#[test]
fn an_answer_for_another_session_or_of_another_status_or_signer_is_refused() {
    let v = vectors();
    let (device, ephemeral) = (v.key("@device_example"), v.key("session"));
    let text = v.text(&["envelopes", "v5_npt_response", "envelope"]);
    let session: SessionId = SESSION.parse().unwrap();
    let read = |text: &str, session| read_with(text, session, device.public(), &ephemeral);
    assert_eq!(
        read(&text, SessionId::random()),
        Err(AnswerError::OtherSession)
    );
    let other_signer = read_with(
        &text,
        session,
        v.key("@client_example").public(),
        &ephemeral,
    );
    assert_eq!(
        other_signer,
        Err(AnswerError::Envelope(EnvelopeError::Signature))
    );
    let payload = v.text(&["envelopes", "v5_npt_response", "signingInput"]);
    for (from, to, want) in [
        (
            r#""connected""#,
            r#""failed""#,
            AnswerError::Status("failed".into()),
        ),
        (r#""sessionIV""#, r#""sessionXX""#, AnswerError::Keys),
        (
            r#""sessionAESKey":"VW"#,
            r#""sessionAESKey":"AA"#,
            AnswerError::Keys,
        ),
    ] {
        let sealed = envelope::seal(&payload.replace(from, to), &device).unwrap();
        assert_eq!(read(&sealed, session), Err(want), "{from} -> {to}");
    }
}

#[test]
fn a_refusal_is_shown_and_cannot_pass_for_an_envelope() {
    let v = vectors();
    let no = refuse(
        SESSION.parse().unwrap(),
        "{not\nhere",
        &"@c".parse().unwrap(),
        &"d".parse().unwrap(),
    );
    assert_eq!(no.text, "not here");
    let verdict = read_with(
        "Daemon does not permit\x1b[2J",
        SESSION.parse().unwrap(),
        v.key("@device_example").public(),
        &v.key("session"),
    );
    assert_eq!(
        verdict,
        Err(AnswerError::Refused("Daemon does not permit[2J".into()))
    );
}

const PEM: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";

/// (admission, encryption) of a request of 5.x, and what it looks like.
#[test]
fn what_is_left_out_is_false_and_null_and_all_ten_members_stay() {
    let key = vectors().key("@client_example");
    let whole = request(false).payload();
    let (nonces, ephemeral) = (
        r#""authenticateToRvd":true,"clientNonce":"2024-10-24T10:15:30.123456","rvdNonce":"2024-10-24T10:15:31.654321""#,
        &whole[whole.find(r#""encryptRvdTraffic""#).unwrap()..],
    );
    let no_nonces = r#""authenticateToRvd":false,"clientNonce":null,"rvdNonce":null"#;
    let no_ephemeral =
        r#""encryptRvdTraffic":false,"clientEphemeralPK":null,"clientEphemeralPKType":null}"#;
    for (admission, encryption) in [(true, false), (false, true), (false, false)] {
        let mut asked = request(false);
        let mut want = whole.clone();
        if !admission {
            asked.meeting.admission = None;
            want = want.replace(nonces, no_nonces);
        }
        if !encryption {
            asked.meeting.encryption = None;
            want = want.replace(ephemeral, no_ephemeral);
        }
        assert_eq!(asked.payload(), want);
        let sealed = envelope::seal(&want, &key).unwrap();
        assert_eq!(
            SshRequest::parse(&sealed, key.public()),
            Ok(asked),
            "{want}"
        );
    }
    // Clients of 5.x send nonces and a public key even where they want neither used.
    let odd = whole
        .replace(
            r#""authenticateToRvd":true"#,
            r#""authenticateToRvd":false"#,
        )
        .replace(
            r#""encryptRvdTraffic":true"#,
            r#""encryptRvdTraffic":false"#,
        )
        .replace("2024-10-24T10:15:31.654321", "a,b");
    let read = SshRequest::parse(&envelope::seal(&odd, &key).unwrap(), key.public()).unwrap();
    assert_eq!(
        (read.meeting.admission, read.meeting.encryption),
        (None, None)
    );
    assert_eq!(read.form, RequestForm::V5);
}

#[test]
fn each_generation_is_answered_in_its_form() {
    let v = vectors();
    let device = v.key("@device_example");
    let (to, name) = (
        "@client_example".parse().unwrap(),
        "my_device".parse().unwrap(),
    );
    let pem = Secret::new(PEM.to_owned());
    let answer = |request: &SshRequest, pem: Option<&Secret<String>>| {
        accept(request, &DeviceKeys::Bare, pem, &to, &name, &device)
            .unwrap()
            .message
            .text
    };
    assert_eq!(
        answer(&old_request(), Some(&pem)),
        v.text(&["envelopes", "v4_response", "envelope"])
    );
    let mut plain = request(false);
    plain.meeting.encryption = None;
    let payload = v.text(&["envelopes", "v4_response", "signingInput"]);
    let want = payload.replace('}', r#","sessionAESKey":null,"sessionIV":null}"#);
    let text = answer(&plain, Some(&pem));
    assert_eq!(Envelope::parse(&text).unwrap().unverified(), want);

    let read = |text: &str| read_answer(text, SESSION.parse().unwrap(), device.public(), None);
    let with = |ephemeral_key| {
        Ok(Answer::Signed {
            keys: None,
            ephemeral_key,
            takes_shares: false,
        })
    };
    assert_eq!(read(&text), with(Some(pem)));
    assert_eq!(read(&answer(&plain, None)), with(None));
    let bad = envelope::seal(&payload.replace("BEGIN", "BEGGING"), &device).unwrap();
    assert_eq!(read(&bad), Err(AnswerError::EphemeralKey));

    let bare = connected(SESSION.parse().unwrap(), &to, &name);
    assert_eq!(bare.entity, format!("{SESSION}.my_device.sshnp"));
    assert_eq!(read(&bare.text), Ok(Answer::Bare));
    let no = refuse(SESSION.parse().unwrap(), "{{connected", &to, &name);
    assert_eq!(no.text, "not connected", "a no is never a yes");
}

#[test]
fn keys_are_given_where_they_are_wanted_and_nowhere_else() {
    let v = vectors();
    let device = v.key("@device_example");
    let (to, name) = ("@c".parse().unwrap(), "d".parse().unwrap());
    let keys = device_keys(Some(&SessionKeys::random(false).unwrap()));
    let verdict = accept(
        &request(false),
        &DeviceKeys::Bare,
        None,
        &to,
        &name,
        &device,
    );
    assert_eq!(verdict, Err(EnvelopeError::Signing));
    let mut plain = request(false);
    plain.meeting.encryption = None;
    let verdict = accept(&plain, &keys, None, &to, &name, &device);
    assert_eq!(verdict, Err(EnvelopeError::Signing));
}
