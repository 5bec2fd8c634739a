//! Whole sessions without a network, of every generation.

use std::time::Duration;

use super::*;
use crate::np::{ports::PortsRequest, proof::SocketKey};
use crate::{
    at::{AtSign, crypto::KeyPair},
    np::{
        Message,
        agreement::Agreement,
        envelope::{self, Envelope},
        far_end::FarEnd,
        ids::SessionId,
        ping::{Features, Heartbeat},
        ports::Ports,
        request::{
            self, AnswerError, ClientKeys, DeviceKeys, Encryption, Parties, RequestForm,
            SshRequest, TunnelRequest,
            tests::{SESSION, device_keys, vectors},
        },
    },
    pipe::{cipher::SessionKeys, keys::TransportKeys},
    secret::Secret,
};

fn offer() -> Offer {
    offer_on(Terms::default())
}

fn offer_on(terms: Terms) -> Offer {
    let name = |text: &str| text.parse::<AtSign>().unwrap();
    Offer::new(
        &name("@client_example"),
        &name("@device_example"),
        &"my_device".parse().unwrap(),
        &name("@relay_example"),
        SESSION.parse().unwrap(),
        "2024-10-24T10:15:30.123456".parse().unwrap(),
        terms,
    )
}

fn heartbeat(twin_keys: bool) -> Heartbeat {
    let mut heartbeat = Heartbeat::ours(&"my_device".parse().unwrap(), vec![]);
    heartbeat.features.twin_keys = twin_keys;
    heartbeat.records = false;
    heartbeat
}

/// The admission line.
fn shown(far: &FarEnd) -> Option<&str> {
    far.admission.as_ref().map(|line| line.reveal().as_str())
}

#[test]
fn a_whole_session_without_a_network() {
    let v = vectors();
    let (client, device, ephemeral) = (
        v.key("@client_example"),
        v.key("@device_example"),
        v.key("session"),
    );
    for twin in [true, false] {
        let ports = Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
        let granted = offer().granted(ports, Some(&heartbeat(twin))).unwrap();
        assert_eq!(granted.twin_keys(), twin);
        let mut keys = Some(ClientKeys::Rsa(Box::new(ephemeral.clone())));
        let asked = granted.request(keys.as_ref(), &client).unwrap();

        let request = SshRequest::parse(&asked.text, client.public()).unwrap();
        assert_eq!(request.meeting.port, 40190, "the daemon dials port B");
        let made = SessionKeys::random(twin).unwrap();
        assert!(matches!(
            request.meeting.encryption,
            Some(Encryption::Stream { twin_keys, .. }) if twin_keys == twin
        ));
        let to = "@client_example".parse().unwrap();
        let answer = request::accept(
            &request,
            &device_keys(Some(&made)),
            None,
            &to,
            &"my_device".parse().unwrap(),
            &device,
        )
        .unwrap()
        .message;

        let ready = granted
            .accepted(
                (&asked.text, &answer.text),
                device.public(),
                &mut keys,
                &client,
            )
            .unwrap();
        assert_eq!(
            (ready.far.rendezvous.port, &ready.far.keys),
            (40189, &Some(TransportKeys::Stream(made))),
            "the client dials port A"
        );
        assert_eq!(
            shown(&ready.far),
            Some(v.text(&["relayAuth", "sideA_client"]).trim_end())
        );
        assert_eq!(ready.ephemeral_key, None);
    }
}

#[test]
fn only_the_right_sender_is_recognised() {
    let offer = offer();
    let s = offer.id();
    for (from, entity, want) in [
        (
            "@device_example",
            "heartbeat.my_device.sshnp".to_owned(),
            Some(Awaited::Heartbeat),
        ),
        ("@mallory", "heartbeat.my_device.sshnp".to_owned(), None),
        ("@device_example", "heartbeat.other.sshnp".to_owned(), None),
        (
            "@relay_example",
            format!("{s}.sshrvd"),
            Some(Awaited::Ports),
        ),
        ("@device_example", format!("{s}.sshrvd"), None),
        (
            "@relay_example",
            format!("nack.{s}.sshrvd"),
            Some(Awaited::NoPorts),
        ),
        (
            "@device_example",
            format!("{s}.my_device.sshnp"),
            Some(Awaited::Answer),
        ),
        ("@relay_example", format!("{s}.my_device.sshnp"), None),
        (
            "@device_example",
            format!("{}.my_device.sshnp", SessionId::random()),
            None,
        ),
    ] {
        assert_eq!(
            offer.recognise(&from.parse().unwrap(), &entity),
            want,
            "{from} {entity}"
        );
    }
}

#[test]
fn a_tunnel_is_asked_for_only_where_it_is_understood() {
    let v = vectors();
    let (client, ephemeral) = (v.key("@client_example"), v.key("session"));
    let ports = Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
    let month = Duration::from_secs(30 * 24 * 3600);
    let ask = |heartbeat: &Heartbeat| {
        let granted = offer().granted(ports.clone(), Some(heartbeat)).unwrap();
        let keys = ClientKeys::Rsa(Box::new(ephemeral.clone()));
        granted.tunnel_request(("nas", 443), month, Some(&keys), &client)
    };
    let asked = ask(&heartbeat(true)).unwrap();
    assert_eq!(asked.entity, "npt_request.my_device.sshnp");
    let request = TunnelRequest::parse(&asked.text, client.public()).unwrap();
    assert_eq!(
        (request.target_host.as_str(), request.target_port),
        ("nas", 443)
    );
    assert_eq!((request.timeout, request.meeting.port), (month, 40190));

    let mut old = heartbeat(false);
    old.features.port_choice = false;
    old.version = "5.0.2".into();
    assert_eq!(
        ask(&old).unwrap_err().to_string(),
        "the daemon my_device@device_example (version 5.0.2) cannot open other ports than ssh"
    );
}

#[test]
fn old_peers_are_named() {
    let new_ports = Ports::parse("h,1,2,nonce").unwrap();
    let mut old = heartbeat(false);
    old.features = Features::default();
    old.version = "4.0.5".into();
    let why = offer().granted(new_ports, Some(&old)).unwrap_err();
    assert_eq!(why.without(), Some(NO_ADMIT_DEVICE));
    assert_eq!(
        why.to_string(),
        "the daemon my_device@device_example (version 4.0.5) cannot log in to a rendezvous"
    );
    let old_ports = Ports::parse("h,1,2").unwrap();
    let why = offer()
        .granted(old_ports, Some(&heartbeat(true)))
        .unwrap_err();
    assert_eq!(
        why.to_string(),
        "the rendezvous @relay_example does not check who uses its ports"
    );
    assert_eq!(why.without(), Some(NO_ADMIT));
}

/// Every choice of protection, against a daemon and a rendezvous that can do it all.
#[test]
fn what_is_left_out_is_neither_asked_for_nor_needed() {
    let v = vectors();
    let (client, device, ephemeral) = (
        v.key("@client_example"),
        v.key("@device_example"),
        v.key("session"),
    );
    let (to, name) = (
        "@client_example".parse().unwrap(),
        "my_device".parse().unwrap(),
    );
    for bits in 0..8 {
        let terms = Terms {
            admit_client: bits & 1 == 0,
            admit_device: bits & 2 == 0,
            encrypt: bits & 4 == 0,
            authenticate: false,
            generation: Generation::V5,
        };
        let offer = offer_on(terms);
        let nobody = !terms.admit_client && !terms.admit_device;
        let old = offer.ask_ports().text == SESSION;
        assert_eq!(old, nobody, "{terms:?}");
        let ports = match nobody {
            true => "127.0.0.1,40189,40190",
            false => "127.0.0.1,40189,40190,2024-10-24T10:15:31.654321",
        };
        let ports = Ports::parse(ports).unwrap();
        let heartbeat = terms.need_heartbeat().then(|| heartbeat(true));
        let granted = offer.granted(ports, heartbeat.as_ref()).unwrap();
        let mut ours = terms
            .encrypt
            .then(|| ClientKeys::Rsa(Box::new(ephemeral.clone())));
        let asked = granted.request(ours.as_ref(), &client).unwrap();
        let request = SshRequest::parse(&asked.text, client.public()).unwrap();
        assert_eq!(request.meeting.admission.is_some(), terms.admit_device);
        assert_eq!(request.meeting.encryption.is_some(), terms.encrypt);
        assert_eq!(request.form, RequestForm::V5);

        let keys = terms.encrypt.then(|| SessionKeys::random(true).unwrap());
        let made = device_keys(keys.as_ref());
        let answer = request::accept(&request, &made, None, &to, &name, &device);
        let answer = answer.unwrap().message.text;
        let texts = (asked.text.as_str(), answer.as_str());
        let ready = granted.accepted(texts, device.public(), &mut ours, &client);
        let ready = ready.unwrap();
        assert_eq!(
            ready.far.admission.is_some(),
            terms.admit_client,
            "{terms:?}"
        );
        assert_eq!(ready.far.keys, keys.map(TransportKeys::Stream), "{terms:?}");
    }
}

#[test]
fn protection_that_was_asked_for_cannot_be_answered_away() {
    let v = vectors();
    let (client, device, ephemeral) = (
        v.key("@client_example"),
        v.key("@device_example"),
        v.key("session"),
    );
    let read = |terms: Terms, answer: &str| {
        let ports = Ports::parse("h,1,2,n").unwrap();
        let granted = offer_on(terms)
            .granted(ports, Some(&heartbeat(true)))
            .unwrap();
        let mut keys = Some(ClientKeys::Rsa(Box::new(ephemeral.clone())));
        granted.accepted(("", answer), device.public(), &mut keys, &client)
    };
    let old = v.text(&["envelopes", "v4_response", "envelope"]);
    let new = v.text(&["envelopes", "v5_npt_response", "envelope"]);
    let of = Terms::of;
    let plain = Terms {
        encrypt: false,
        ..Terms::default()
    };
    for (terms, answer, want) in [
        (Terms::default(), "connected", Err(AnswerError::Unsigned)),
        (plain, "connected", Err(AnswerError::Unsigned)),
        (of(Generation::V4), "connected", Err(AnswerError::Unsigned)),
        (of(Generation::V4Rc2), "connected", Ok((false, false))),
        (of(Generation::V3), "connected", Ok((false, false))),
        (Terms::default(), &*old, Err(AnswerError::Keys)),
        (plain, &*old, Ok((false, true))),
        (of(Generation::V4), &*old, Ok((false, true))),
        (of(Generation::V4Rc2), &*old, Ok((false, true))),
        (Terms::default(), &*new, Ok((true, false))),
        (plain, &*new, Ok((false, false))),
    ] {
        let got = read(terms, answer)
            .map(|ready| (ready.far.keys.is_some(), ready.ephemeral_key.is_some()));
        assert_eq!(got, want, "{terms:?} {answer:.40}");
    }
}

/// Each generation's messages from its first to its last, as they travelled.
#[test]
fn the_transcripts_of_earlier_generations() {
    let v = vectors();
    let (client, device) = (v.key("@client_example"), v.key("@device_example"));
    let old_ports = || Ports::parse(&v.text(&["relayRequest", "response_v4"])).unwrap();
    let entity = |message: &Message| format!("{}:{}", message.to, message.entity);

    for generation in [Generation::V4Rc2, Generation::V4] {
        let offer = offer_on(Terms::of(generation));
        assert!(!offer.terms().need_heartbeat());
        let ports = offer.ask_ports();
        assert_eq!(entity(&ports), "@relay_example:my_device.sshrvd");
        assert_eq!(ports.text, v.text(&["relayRequest", "legacy_value"]));
        let granted = offer.granted(old_ports(), None).unwrap();
        let asked = granted.request(None, &client).unwrap();
        assert_eq!(
            entity(&asked),
            "@device_example:ssh_request.my_device.sshnp"
        );
        assert_eq!(
            asked.text,
            v.text(&["envelopes", "v4_ssh_request_direct", "envelope"])
        );
        let answer = match generation {
            Generation::V4 => v.text(&["envelopes", "v4_response", "envelope"]),
            _ => "connected".to_owned(),
        };
        let ready = granted
            .accepted((&asked.text, &answer), device.public(), &mut None, &client)
            .unwrap();
        assert_eq!(
            (
                ready.far.rendezvous.port,
                ready.far.admission,
                ready.far.keys
            ),
            (40190, None, None)
        );
        assert_eq!(ready.ephemeral_key.is_some(), generation == Generation::V4);
    }

    let granted = offer_on(Terms::of(Generation::V3))
        .granted(old_ports(), None)
        .unwrap();
    let pem = Secret::new("PEM".to_owned());
    let [key, line] = granted.reverse_requests(58358, "gary", &pem);
    assert_eq!(entity(&key), "@device_example:privatekey.my_device.sshnp");
    assert_eq!(entity(&line), "@device_example:sshd.my_device.sshnp");
    assert_eq!(line.text, format!("58358 40189 gary 127.0.0.1 {SESSION}"));
    let direct = granted.request(None, &client).unwrap_err();
    assert_eq!(direct, SessionError::Unspeakable("a direct session"));
    let ready = granted
        .accepted(("", "connected"), device.public(), &mut None, &client)
        .unwrap();
    let at = ready.far.rendezvous;
    assert_eq!((at.host.as_str(), at.port), ("127.0.0.1", 40190));
}

/// 5.x, to the byte; the answers' wrapped keys are random, so theirs are read only.
#[test]
fn the_transcript_of_version_5() {
    let v = vectors();
    let (client, device, ephemeral) = (
        v.key("@client_example"),
        v.key("@device_example"),
        v.key("session"),
    );
    let answered = r#"{"devicename":"my_device","version":"5.6.1","corePackageVersion":"6.1.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true,"adjustableTimeout":true},"allowedServices":["localhost:22","localhost:3389"]}"#;
    let daemon = Heartbeat::parse(answered).unwrap();
    let granted = || {
        let ports = Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
        offer().granted(ports, Some(&daemon)).unwrap()
    };
    assert_eq!(offer().ping().text, "ping");
    let asked = offer().ask_ports();
    assert_eq!(asked.text, v.text(&["relayRequest", "v5_value"]));
    let mut keys = Some(ClientKeys::Rsa(Box::new(ephemeral)));
    let ssh = granted().request(keys.as_ref(), &client).unwrap();
    assert_eq!(
        ssh.text,
        v.text(&["envelopes", "v5_ssh_request", "envelope"])
    );
    let to = ("localhost", 3389);
    let tunnel = granted().tunnel_request(to, Duration::from_secs(30), keys.as_ref(), &client);
    let want = v.text(&["envelopes", "v5_npt_request", "envelope"]);
    assert_eq!(tunnel.unwrap().text, want);
    for name in ["v5_ssh_response_c_daemon", "v5_npt_response"] {
        let answer = v.text(&["envelopes", name, "envelope"]);
        let ready = granted().accepted(("", &answer), device.public(), &mut keys, &client);
        let ready = ready.unwrap();
        let line = v.text(&["relayAuth", "sideA_client"]);
        assert_eq!(shown(&ready.far), Some(line.trim_end()), "{name}");
        let keys = ready.far.keys;
        assert!(
            matches!(keys, Some(TransportKeys::Stream(keys)) if !keys.are_twin()),
            "{name}"
        );
    }
}

#[test]
fn what_was_agreed_is_one_line() {
    let plain = Terms {
        encrypt: false,
        admit_client: false,
        ..Terms::default()
    };
    for (terms, twin, want) in [
        (
            Terms::default(),
            true,
            "generation=5 login=both encryption=twin",
        ),
        (
            Terms::default(),
            false,
            "generation=5 login=both encryption=single",
        ),
        (plain, true, "generation=5 login=device encryption=none"),
        (
            Terms::of(Generation::V3),
            true,
            "generation=3 login=none encryption=none",
        ),
    ] {
        let ports = Ports::parse("h,1,2,n").unwrap();
        let granted = offer_on(terms)
            .granted(ports, Some(&heartbeat(twin)))
            .unwrap();
        assert_eq!(granted.to_string(), want);
    }
}

/// The key of a session's sockets goes to the rendezvous; to a daemon only where both it and the rendezvous know it.
#[test]
fn only_peers_of_this_program_are_told_what_proves_sockets() {
    let v = vectors();
    let (client, ephemeral) = (v.key("@client_example"), v.key("session"));
    let key = SocketKey::random().unwrap();
    let offer = offer().with_socket_key(key.clone());
    let asked = offer.ask_ports();
    let me = "@client_example".parse().unwrap();
    let read = PortsRequest::parse(&me, &asked.text).unwrap();
    assert_eq!(read.socket_key, Some(key.clone()));
    for (nonce, core, proves) in [
        ("0f-proofs-pairs", "rust-0.1.0", true),
        ("0f-proofs-pairs", "6.16.0", false),
        ("0f-pairs", "rust-0.1.0", false),
        ("2024-10-24T10:15:31.654321", "rust-0.1.0", false),
    ] {
        let ports = Ports::parse(&format!("h,1,2,{nonce}")).unwrap();
        let mut daemon = heartbeat(true);
        daemon.core = core.into();
        let granted = offer.clone().granted(ports, Some(&daemon)).unwrap();
        let keys = Some(ClientKeys::Rsa(Box::new(ephemeral.clone())));
        let asked = granted.request(keys.as_ref(), &client).unwrap();
        assert_eq!(asked.text.contains("socketKey"), proves, "{nonce} {core}");
        let request = SshRequest::parse(&asked.text, client.public()).unwrap();
        let want = proves.then(|| key.clone());
        assert_eq!(request.meeting.socket_key, want, "{nonce} {core}");
        let far = request.meeting.far_end(None, &v.key("@device_example"));
        assert_eq!(far.unwrap().socket_key, want);
    }
}

/// What a client and a device make of each other's texts, where both send records.
struct Agreeing {
    granted: Granted,
    ours: Option<ClientKeys>,
    client: KeyPair,
    device: KeyPair,
}

impl Agreeing {
    fn new() -> (Self, String) {
        let v = vectors();
        let (client, device) = (v.key("@client_example"), v.key("@device_example"));
        let ports = Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
        let said = Heartbeat {
            records: true,
            ..heartbeat(true)
        };
        let granted = offer().granted(ports, Some(&said)).unwrap();
        let ours = Some(ClientKeys::Shares(Box::new(Agreement::new().unwrap())));
        let asked = granted.request(ours.as_ref(), &client).unwrap().text;
        let this = Self {
            granted,
            ours,
            client,
            device,
        };
        (this, asked)
    }

    /// The device's answer to this text, and its keys.
    fn device(&self, asked: &str) -> (String, Option<TransportKeys>) {
        let request = SshRequest::parse(asked, self.client.public()).unwrap();
        let meeting = &request.meeting;
        let made = DeviceKeys::new(meeting.encryption.as_ref(), true).unwrap();
        let (me, you) = (
            "@device_example".parse().unwrap(),
            "@client_example".parse().unwrap(),
        );
        let name = "my_device".parse().unwrap();
        let answer = request::accept(&request, &made, None, &you, &name, &self.device).unwrap();
        let parties = Parties {
            client: (&you, self.client.public()),
            device: (&me, self.device.public()),
            name: &name,
        };
        (
            answer.message.text.clone(),
            made.transport(&parties, asked, &answer),
        )
    }

    /// What the client makes of that answer.
    fn client(mut self, asked: &str, answer: &str) -> Result<Ready, AnswerError> {
        let texts = (asked, answer);
        let key = self.device.public();
        self.granted
            .accepted(texts, key, &mut self.ours, &self.client)
    }
}

#[test]
fn both_ends_have_the_same_keys_of_records_and_those_of_another_session_differ() {
    let keys = [(); 2].map(|()| {
        let (both, asked) = Agreeing::new();
        assert!(
            asked.contains(r#""clientEphemeralPK":null"#),
            "no RSA key is made: {asked}"
        );
        let (answer, device) = both.device(&asked);
        let ready = both.client(&asked, &answer).unwrap();
        assert!(matches!(device, Some(TransportKeys::Records(_))));
        assert_eq!(ready.far.keys, device);
        device
    });
    assert_ne!(keys[0], keys[1]);
}

/// Both texts stay within what carries them.
#[test]
fn what_both_ends_say_of_their_keys_has_the_size_that_the_table_says() {
    let (both, asked) = Agreeing::new();
    let (answer, _) = both.device(&asked);
    let member = |text: &str| {
        let from = text.find(r#""sessionShares":{"#).unwrap();
        text[from..].find('}').unwrap() + 1
    };
    assert_eq!((member(&asked), member(&answer)), (1687, 1559));
    assert!(
        asked.len() < 4096 && answer.len() < 4096,
        "{} {}",
        asked.len(),
        answer.len()
    );
}

#[test]
fn an_answer_whose_shares_are_left_out_or_another_sessions_makes_no_session() {
    let swap = |answer: &str, other: &str, device: &KeyPair| {
        let payload = Envelope::parse(answer).unwrap().unverified().to_owned();
        let other = Envelope::parse(other).unwrap().unverified().to_owned();
        let shares = |text: &str| {
            let from = text.find(r#","sessionShares""#).unwrap();
            text[from..text.len() - 1].to_owned()
        };
        let (ours, theirs) = (shares(&payload), shares(&other));
        [
            envelope::seal(&payload.replace(&ours, ""), device).unwrap(),
            envelope::seal(&payload.replace(&ours, &theirs), device).unwrap(),
        ]
    };
    let (both, asked) = Agreeing::new();
    let (answer, keys) = both.device(&asked);
    let (other, other_asked) = Agreeing::new();
    let (foreign, _) = other.device(&other_asked);
    let [without, exchanged] = swap(&answer, &foreign, &both.device);
    assert_eq!(
        both.client(&asked, &without).unwrap_err(),
        AnswerError::Keys
    );
    // The signature is the device's own, so it is the keys that differ: no record opens.
    let (both, asked) = Agreeing::new();
    let (answer, keys_again) = both.device(&asked);
    assert_ne!(keys, keys_again);
    let [_, exchanged_again] = swap(&answer, &exchanged, &both.device);
    let ready = both.client(&asked, &exchanged_again).unwrap();
    assert_ne!(ready.far.keys, keys_again);
}

#[test]
fn a_device_says_signed_that_it_would_have_taken_shares_and_who_requires_them_gets_no_less() {
    let v = vectors();
    let (client, device, ephemeral) = (
        v.key("@client_example"),
        v.key("@device_example"),
        v.key("session"),
    );
    let ports = || Ports::parse(&v.text(&["relayRequest", "response_v5"])).unwrap();
    // Its ping was changed on the way.
    let granted = offer().granted(ports(), Some(&heartbeat(true))).unwrap();
    let mut ours = Some(ClientKeys::Rsa(Box::new(ephemeral)));
    let asked = granted.request(ours.as_ref(), &client).unwrap().text;
    let request = SshRequest::parse(&asked, client.public()).unwrap();
    let name = "my_device".parse().unwrap();
    for takes_shares in [true, false] {
        let made = DeviceKeys::new(request.meeting.encryption.as_ref(), takes_shares).unwrap();
        let to = "@client_example".parse().unwrap();
        let answer = request::accept(&request, &made, None, &to, &name, &device).unwrap();
        let texts = (asked.as_str(), answer.message.text.as_str());
        let ready = granted
            .clone()
            .accepted(texts, device.public(), &mut ours, &client);
        assert_eq!(ready.unwrap().takes_shares, takes_shares);
    }
    let terms = Terms {
        authenticate: true,
        ..Terms::default()
    };
    let why = offer_on(terms)
        .granted(ports(), Some(&heartbeat(true)))
        .unwrap_err();
    assert!(matches!(why, SessionError::Lacks { .. }), "{why}");
    assert_eq!(why.without(), Some(super::refused::NO_REQUIRE));
}
