use super::*;
use crate::at::vectors::{at_protocol, atsign, keys};

const ID: &str = "c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234";

fn applicant() -> Applicant {
    let keys = keys("apkam_file");
    Applicant {
        atsign: keys.atsign,
        pkam: keys.pkam,
        symmetric: keys.apkam_symmetric.unwrap(),
    }
}

#[test]
fn requests_and_approval_are_the_known_lines() {
    let known = at_protocol().at("enrollment");
    let keys = keys("apkam_file");
    let first = first_request(&keys).unwrap();
    assert_eq!(first.to_string(), known.text("first_app_request_command"));

    let wish = EnrolmentRequest {
        app: "noports".into(),
        device: "dev1".into(),
        namespaces: ["sshnp", "sshrvd"]
            .map(|name| (name.to_owned(), "rw".to_owned()))
            .into(),
        otp: Secret::new("A1B2C3".into()),
        life: None,
    };
    let wrapped = known.text("encryptedAPKAMSymmetricKey");
    let request = applicant().request_with(&wish, &wrapped);
    assert_eq!(request.to_string(), known.text("request_command"));
    let wish = EnrolmentRequest {
        life: Some(60_000),
        ..wish
    };
    let request = applicant().request_with(&wish, &wrapped).to_string();
    assert!(request.ends_with(r#","apkamKeysExpiryInMillis":60000}"#));

    let approval = approve(&keys, ID, &wrapped).unwrap();
    assert_eq!(approval.to_string(), known.text("approve_command"));
}

#[test]
fn an_approved_applicant_ends_with_all_keys() {
    let known = at_protocol().at("enrollment");
    let private = known.text("keys_get_answer_value");
    let private = private.strip_prefix("data:").unwrap();
    let sealed = known.text("encryptedDefaultSelfEncryptionKey");
    let self_key = format!(r#"{{"value":"{sealed}"}}"#);
    let got = applicant().complete(ID, private, &self_key).unwrap();
    assert_eq!(got.print(), keys("apkam_file").print());
    for (private, self_key) in [("{}", &*self_key), (private, private), ("null", "null")] {
        let got = applicant().complete(ID, private, self_key);
        assert!(got.is_err(), "{private} {self_key}");
    }
}

#[test]
fn an_applicant_survives_a_key_file_and_is_told_from_real_keys() {
    let applicant = applicant();
    let draft = applicant.provisional(None);
    let read = AtKeys::parse(&draft.atsign, draft.print().reveal()).unwrap();
    assert_eq!(read.enrollment_id, None);
    let again = Applicant::resume(&read).unwrap();
    assert_eq!(again.pkam.public(), applicant.pkam.public());
    assert_eq!(again.symmetric, applicant.symmetric);
    for real in ["legacy_file", "apkam_file"] {
        assert!(Applicant::resume(&keys(real)).is_none(), "{real}");
    }
}

#[test]
fn an_applicants_key_reaches_the_approver() {
    let (applicant, approver) = (
        Applicant::new(&atsign("@alice")).unwrap(),
        keys("legacy_file"),
    );
    let wrapped = share::wrap(&applicant.symmetric, approver.encryption.public()).unwrap();
    let Verb::Enroll { params, .. } = approve(&approver, ID, &wrapped).unwrap() else {
        panic!("not enroll")
    };
    let params: BTreeMap<String, String> = json::from_str(&params.unwrap()).unwrap();
    let answer = |member: &str| format!(r#"{{"value":"{}"}}"#, params[member]);
    let keys = applicant
        .complete(
            ID,
            &answer("encryptedDefaultEncryptionPrivateKey"),
            &answer("encryptedDefaultSelfEncryptionKey"),
        )
        .unwrap();
    assert_eq!(keys.self_key, approver.self_key);
    assert_eq!(keys.encryption.public(), approver.encryption.public());
}

#[test]
fn activation_speaks_both_variants() {
    let keys = keys("legacy_file");
    let (pkam, public) = (&keys.pkam.public().text, &keys.encryption.public().text);
    for (line, expected) in [
        (
            store_pkam_key(&keys),
            format!("update:privatekey:at_pkam_publickey {pkam}"),
        ),
        (
            publish(&keys),
            format!("update:isEncrypted:false:public:publickey@alice {public}"),
        ),
        (forget_secret(), "delete:privatekey:at_secret".to_owned()),
        (
            fetch_private_key(&keys.atsign, "x"),
            "keys:get:keyName:x.default_enc_private_key.__manage@alice".to_owned(),
        ),
        (
            fetch_self_key(&keys.atsign, "x"),
            "keys:get:keyName:x.default_self_enc_key.__manage@alice".to_owned(),
        ),
        (
            list(Some("pending")),
            r#"enroll:list:{"enrollmentStatusFilter":["pending"]}"#.to_owned(),
        ),
        (list(None), "enroll:list".to_owned()),
        (deny("x"), r#"enroll:deny:{"enrollmentId":"x"}"#.to_owned()),
        (
            revoke("x", true),
            r#"enroll:revoke:force:{"enrollmentId":"x"}"#.to_owned(),
        ),
    ] {
        assert_eq!(line.to_string(), expected);
    }
}

#[test]
fn answers_are_read_and_odd_ids_refused() {
    let pair = |id: &str, status: &str| Some((id.to_owned(), status.to_owned()));
    for (json, expected) in [
        (
            r#"{"enrollmentId":"a-1","status":"approved"}"#,
            pair("a-1", "approved"),
        ),
        (
            r#"{"status":"pending","enrollmentId":"a","x":1}"#,
            pair("a", "pending"),
        ),
        (r#"{"enrollmentId":"a:b","status":"approved"}"#, None),
        (r#"{"enrollmentId":"","status":"approved"}"#, None),
        (r#"{"enrollmentId":"a"}"#, None),
        ("success", None),
    ] {
        assert_eq!(parse_answer(json), expected, "{json}");
    }
}

#[test]
fn lists_are_read_with_members_missing() {
    let json = r#"{"a-1.new.enrollments.__manage@alice":{"appName":"noports","deviceName":"dev1",
        "namespace":{"sshnp":"rw"},"encryptedAPKAMSymmetricKey":"AA==","status":"pending"},
        "b-2.new.enrollments.__manage@alice":{"appName":"firstApp","namespace":null,"status":"approved"},
        "c 3.new.enrollments.__manage@alice":{}}"#;
    let list = parse_list(json).unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list[0].id, "a-1");
    assert_eq!(list[0].wrapped.as_deref(), Some("AA=="));
    assert_eq!(list[0].namespaces["sshnp"], "rw");
    assert_eq!((&*list[1].device, list[1].wrapped.is_none()), ("", true));
    assert_eq!(parse_list("{}"), Some(vec![]));
    assert_eq!(parse_list("null"), None);
}

#[test]
fn minted_keys_survive_a_key_file() {
    let keys = mint(&atsign("@alice")).unwrap();
    let read = AtKeys::parse(&keys.atsign, keys.print().reveal()).unwrap();
    assert_eq!(read.print(), keys.print());
    assert!(first_request(&read).is_ok());
    let other = crate::at::vectors::keys("legacy_file");
    assert_eq!(first_request(&other), Err(CryptoError::BadKey));
}
