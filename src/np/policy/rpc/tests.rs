use super::*;
use crate::at::AtKey;

fn known(name: &str) -> String {
    let all: json::Object =
        json::from_str(include_str!("../../../../tests/vectors/noports.json")).unwrap();
    let Some(json::Value::Object(rpc)) = all.get("rpc") else {
        panic!("no rpc")
    };
    words(rpc.get(name)).unwrap_or_else(|| panic!("no {name}"))
}

fn at(text: &str) -> AtSign {
    text.parse().unwrap()
}

const ID: RequestId = RequestId(1_729_764_930_123_456);

fn question() -> AuthCheck {
    AuthCheck {
        client: at("@client_example"),
        daemon: at("@device_example"),
        device: "my_device".parse().unwrap(),
        group: Default::default(),
    }
}

fn yes() -> AuthAnswer {
    AuthAnswer {
        authorized: true,
        message: Some("@client_example has permission for device my_device and/or device group __none__ at daemon @device_example".into()),
        permit_open: vec!["localhost:22".into()],
    }
}

#[test]
fn messages_are_the_known_ones() {
    let (daemon, policy) = (at("@device_example"), at("@policy_example"));
    for (message, from, name) in [
        (ask(&policy, ID, &question(), None), &daemon, "request"),
        (ack(&daemon, ID), &policy, "ack"),
        (answer(&daemon, ID, &yes()), &policy, "success"),
    ] {
        let key = AtKey::shared(&message.to, &message.entity, from);
        assert_eq!(key.to_string(), known(&format!("{name}_key")));
        assert_eq!(message.text, known(&format!("{name}_value")), "{name}");
    }
}

#[test]
fn what_was_sent_is_what_is_read() {
    let (daemon, policy) = (at("@device_example"), at("@policy_example"));
    let asked_for = ask(&policy, ID, &question(), None);
    assert_eq!(asked(&asked_for.entity), Some(ID));
    assert_eq!(
        AuthCheck::parse(&daemon, ID, &asked_for.text),
        Ok(question())
    );
    for (message, want) in [
        (ack(&daemon, ID), RpcResponse::Ack),
        (answer(&daemon, ID, &yes()), RpcResponse::Answer(yes())),
        (
            nack(&daemon, ID, "no"),
            RpcResponse::Refused(Some("no".into())),
        ),
    ] {
        let (kind, id) = answered(&message.entity).unwrap();
        assert_eq!(id, ID);
        assert_eq!(RpcResponse::parse(kind, id, &message.text), Ok(want));
    }
}

#[test]
fn a_question_in_anothers_name_or_under_another_id_is_refused() {
    let text = ask(&at("@policy_example"), ID, &question(), None).text;
    assert_eq!(
        AuthCheck::parse(&at("@mallory"), ID, &text),
        Err(BadRpc::NotTheSender(at("@device_example")))
    );
    assert_eq!(
        AuthCheck::parse(&at("@device_example"), RequestId(7), &text),
        Err(BadRpc::OtherId)
    );
    for (from, to) in [
        ("my_device", "my.device"),
        ("my_device", ""),
        ("@client_example", "no one"),
        ("\"reqId\"", "\"id\""),
        ("__none__", "a\\nb"),
    ] {
        let spoilt = text.replace(from, to);
        assert!(
            AuthCheck::parse(&at("@device_example"), ID, &spoilt).is_err(),
            "{spoilt}"
        );
    }
    let long = format!("{text}{}", " ".repeat(MAX_RPC));
    assert_eq!(
        AuthCheck::parse(&at("@device_example"), ID, &long),
        Err(BadRpc::Form)
    );
}

#[test]
fn answers_that_do_not_say_what_they_allow_are_no_answers() {
    let reply = |payload: &str| {
        let text =
            format!(r#"{{"reqId":{ID},"respType":"success","payload":{payload},"message":null}}"#);
        RpcResponse::parse(ResponseType::Success, ID, &text)
    };
    for (payload, want) in [
        (r#"{"authorized":true}"#, None),
        (r#"{"authorized":true,"permitOpen":null}"#, None),
        (r#"{"authorized":true,"permitOpen":"*:*"}"#, None),
        (r#"{"authorized":"true","permitOpen":[]}"#, None),
        (r#"{"permitOpen":[]}"#, None),
        ("null", None),
        ("[]", None),
        (r#"{"authorized":false}"#, Some((false, 0))),
        (
            r#"{"authorized":true,"permitOpen":["a:1",7],"new":{}}"#,
            Some((true, 1)),
        ),
    ] {
        let got = match reply(payload) {
            Ok(RpcResponse::Answer(a)) => Some((a.authorized, a.permit_open.len())),
            _ => None,
        };
        assert_eq!(got, want, "{payload}");
    }
    let text = answer(&at("@d"), ID, &yes()).text;
    assert_eq!(
        RpcResponse::parse(ResponseType::Success, RequestId(1), &text),
        Err(BadRpc::OtherId)
    );
    assert_eq!(
        RpcResponse::parse(ResponseType::Ack, ID, &text),
        Err(BadRpc::Form)
    );
}

#[test]
fn keys_of_other_things_are_not_taken_for_ours() {
    for entity in [
        "request.auth_checks.__rpcs.sshnp",
        "request.x.auth_checks.__rpcs.sshnp",
        "request.007.auth_checks.__rpcs.sshnp",
        "request.7.npp.__rpcs.sshnp",
        "success.7.auth_checks.__rpcs.sshnp",
        "ping.dev1.sshnp",
    ] {
        assert_eq!(asked(entity), None, "{entity}");
    }
    assert_eq!(answered("request.7.auth_checks.__rpcs.sshnp"), None);
    assert_eq!(answered("maybe.7.auth_checks.__rpcs.sshnp"), None);
}

#[test]
fn ids_are_whole_numbers_everywhere() {
    assert_eq!(RequestId::from_random([0xff; 8]).0, (1 << 53) - 1);
    assert_eq!(RequestId::from_random([0; 8]).0, 0);
}

#[test]
fn a_decision_is_logged_in_the_known_form() {
    let message = log(&at("@p"), 17, RequestId(5), &question(), &yes());
    assert_eq!(message.entity, "17.logs.policy.sshnp");
    let want = concat!(
        r#"{"daemon":"@device_example","timestamp":17,"payload":{"request":{"reqId":5,"payload":"#,
        r#"{"daemonAtsign":"@device_example","daemonDeviceName":"my_device","daemonDeviceGroupName":"__none__","clientAtsign":"@client_example"}},"#,
        r#""response":{"reqId":5,"respType":"success","payload":{"authorized":true,"#
    );
    assert!(message.text.starts_with(want), "{}", message.text);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[{}\\[\\]\":,a-zA-Z0-9 ]{0,200}", entity in "[a-z.0-9_]{0,60}") {
        let _ = AuthCheck::parse(&at("@d"), ID, &text);
        let _ = (asked(&entity), answered(&entity));
        for (kind, _) in KINDS {
            let _ = RpcResponse::parse(kind, ID, &text);
        }
    }
}

#[test]
fn a_signed_question_is_read_like_any_other_and_names_its_key() {
    let vectors = crate::np::request::tests::vectors();
    let (ours, other) = (
        vectors.key("@device_example"),
        vectors.key("@client_example"),
    );
    let signed = ask(&at("@policy_example"), ID, &question(), Some(&ours)).text;
    let read = AuthCheck::parse(&at("@device_example"), ID, &signed);
    assert_eq!(read, Ok(question()));
    assert!(signed.len() <= MAX_RPC);
    assert!(is_signed(&signed, ours.public()));
    assert!(!is_signed(&signed, other.public()));
    let plain = ask(&at("@policy_example"), ID, &question(), None).text;
    assert!(!is_signed(&plain, ours.public()));
    for (from, to) in [
        ("my_device", "my_devicf"),
        ("@client_example", "@client_examplf"),
        ("sha256", "sha1"),
        ("\"payload\":{", "\"payload\":{},\"payload\":{"),
    ] {
        let changed = signed.replacen(from, to, 1);
        assert_ne!(changed, signed, "{from}");
        assert!(!is_signed(&changed, ours.public()), "{from}");
    }
}
