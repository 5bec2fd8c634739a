use super::*;
use crate::pipe::{cipher::SessionKeys, keys::TransportKeys};

const KEY: &str = "oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8=";
const IV: &str = "AQIDBAUGBwgJCgsMDQ4PEA==";
const OTHER: &str = "wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t8=";

fn args(line: &str) -> Args {
    let words = classic(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Args::from_args(&["bridge"], &words).unwrap()
}

fn from_environment(line: &str, variables: &[(&str, &str)]) -> Result<Plan, StartError> {
    let args = args(line);
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| Zeroizing::new((*text).to_owned()))
    };
    plan(&args, &read_secrets(&args, &variable)?)
}

fn from_line(line: &str, secrets: &str) -> Result<Plan, StartError> {
    plan(&args(line), &Secrets::parse(secrets.as_bytes())?)
}

fn why(outcome: Result<Plan, StartError>) -> String {
    match outcome.unwrap_err() {
        StartError::Misuse(why) => why,
        StartError::Failed(why) => panic!("failed: {why}"),
    }
}

#[test]
fn the_classic_flags_of_a_device() {
    let plan = from_environment("-h rv.example -p 40189", &[("RV_AUTH", "left over")]).unwrap();
    assert!(matches!(&plan.local, LocalEnd::Dial(at) if at.to_string() == "localhost:22"));
    assert_eq!(plan.far.rendezvous.to_string(), "rv.example:40189");
    assert_eq!(
        (plan.far.side, plan.timeout),
        (Side::Device, Duration::from_secs(60))
    );
    assert!(plan.far.admission.is_none() && plan.far.keys.is_none());

    let line = "--host ::1 --port 5 --local-host 10.0.0.7 --local-port 3389 --timeout 9";
    let plan = from_environment(line, &[]).unwrap();
    assert!(matches!(&plan.local, LocalEnd::Dial(at) if at.to_string() == "10.0.0.7:3389"));
    assert_eq!(plan.far.rendezvous.to_string(), "[::1]:5");
    assert_eq!(plan.timeout, Duration::from_secs(9));
}

#[test]
fn the_forerunner_has_no_flags() {
    for (line, local) in [
        ("rv.example 40189", "localhost:22"),
        ("rv.example 40189 2222", "localhost:2222"),
    ] {
        let plan = from_environment(line, &[("RV_AUTH", "left over")]).unwrap();
        assert_eq!(plan.far.rendezvous.to_string(), "rv.example:40189");
        assert!(matches!(&plan.local, LocalEnd::Dial(at) if at.to_string() == local));
        assert!(plan.far.admission.is_none() && plan.far.keys.is_none() && plan.many.is_none());
    }
    for bad in [&["rv"][..], &["rv", "1", "2", "3"], &["rv", "x"]] {
        assert_eq!(
            main(Console::new("noports bridge"), bad),
            ExitCode::from(MISUSE),
            "{bad:?}"
        );
    }
}

#[test]
fn values_may_stand_in_the_same_word_and_two_flags_can_be_taken_back() {
    let same = from_environment("--host=rv --port=5 --local-port=3389 --timeout=9", &[]).unwrap();
    assert_eq!(same.far.rendezvous.to_string(), "rv:5");
    assert!(matches!(&same.local, LocalEnd::Dial(at) if at.to_string() == "localhost:3389"));
    assert_eq!(same.timeout, Duration::from_secs(9));
    for line in ["-hrv -p5", "-h=rv -p=5", "-h rv -p 5"] {
        let plan = from_environment(line, &[]).unwrap();
        assert_eq!(plan.far.rendezvous.to_string(), "rv:5", "{line}");
    }
    let line = "-h rv -p 1 --rv-auth --rv-e2ee --no-rv-auth --no-rv-e2ee";
    let plan = from_environment(line, &[]).unwrap();
    assert!(plan.far.admission.is_none() && plan.far.keys.is_none());
}

#[test]
fn the_classic_flags_of_a_client_listen_on_this_machine_only() {
    let plan = from_environment("-h rv -p 1 --local-port 0 --bind-local-port", &[]).unwrap();
    let LocalEnd::Listen(listener) = &plan.local else {
        panic!("{plan:?}");
    };
    assert!(listener.at().unwrap().ip().is_loopback());
    assert_eq!(plan.far.side, Side::Client);
}

#[test]
fn many_connections_are_asked_for_by_the_classic_flag() {
    let plan = from_environment("-h rv -p 1 --multi --timeout 7", &[]).unwrap();
    assert_eq!(plan.many, Some(Many::default()));
    assert_eq!(plan.timeout, Duration::from_secs(7));
    let line = "-h rv -p 1 --multi --bind-local-port --local-port 0 --heartbeat 300 --pace 50";
    let many = from_environment(line, &[]).unwrap().many.unwrap();
    assert_eq!(many.heartbeat, Some(Duration::from_secs(300)));
    assert_eq!(many.pace, Duration::from_millis(50));
    assert!(from_environment("-h rv -p 1", &[]).unwrap().many.is_none());
}

fn stream(keys: Option<TransportKeys>) -> SessionKeys {
    match keys {
        Some(TransportKeys::Stream(keys)) => keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_from_the_environment_old_and_new() {
    let line = "-h rv -p 1 --rv-e2ee --rv-auth";
    let auth = ("RV_AUTH", "{}");
    let plan = from_environment(line, &[auth, ("RV_AES", KEY), ("RV_IV", IV)]).unwrap();
    assert_eq!(plan.far.admission.unwrap().reveal(), "{}");
    assert!(stream(plan.far.keys).to_client.is_none());
    let twin = [
        auth,
        ("RV_AES_C2D", KEY),
        ("RV_IV_C2D", IV),
        ("RV_AES_D2C", OTHER),
        ("RV_IV_D2C", IV),
    ];
    let keys = stream(from_environment(line, &twin).unwrap().far.keys);
    assert_eq!(keys.to_device.key.reveal()[0], 0xa0);
    assert_eq!(keys.to_client.unwrap().key.reveal()[0], 0xc0);
}

#[test]
fn secrets_from_stdin() {
    let secrets = format!(
        r#"{{"auth":"line","aesC2D":"{KEY}","ivC2D":"{IV}","aesD2C":"{OTHER}","ivD2C":"{IV}","side":"client"}}"#
    );
    let plan = from_line("-h rv -p 1 --secrets-on-stdin", &secrets).unwrap();
    assert_eq!(plan.far.side, Side::Client);
    assert!(stream(plan.far.keys.clone()).to_client.is_some());
    assert!(!format!("{plan:?}").contains("line\""), "{plan:?}");
    let plan = from_line("-h rv -p 1 --secrets-on-stdin", r#"{"side":"device"}"#).unwrap();
    assert!(plan.far.admission.is_none() && plan.far.keys.is_none());
}

#[test]
fn nothing_is_done_without_the_protection_that_was_asked_for() {
    for (line, secrets, want) in [
        ("--rv-e2ee", "{}".to_owned(), "--rv-e2ee needs session keys"),
        ("--rv-auth", "{}".to_owned(), "--rv-auth needs a login line"),
        ("", format!(r#"{{"aesC2D":"{KEY}"}}"#), "without its IV"),
        (
            "",
            format!(r#"{{"aesC2D":"{KEY}","ivC2D":"{KEY}"}}"#),
            "in base64",
        ),
        (
            "",
            format!(r#"{{"aesC2D":"{KEY}","ivC2D":"{IV}","aesD2C":"{KEY}"}}"#),
            "without its IV",
        ),
        (
            "",
            format!(r#"{{"aesD2C":"{KEY}","ivD2C":"{IV}"}}"#),
            "client to device",
        ),
        ("", r#"{"auth":"two\nlines"}"#.to_owned(), "not one line"),
        ("", r#"{"auth":""}"#.to_owned(), "not one line"),
        (
            "",
            r#"{"side":"relay"}"#.to_owned(),
            "must be client or device",
        ),
        ("", "not json".to_owned(), "not the JSON object"),
        ("", String::new(), "not the JSON object"),
    ] {
        let why = why(from_line(&format!("-h rv -p 1 {line}"), &secrets));
        assert!(why.contains(want), "{secrets}: {why}");
        assert!(!why.contains(KEY), "{why}");
    }
}

#[test]
fn flags_that_make_no_sense_are_explained() {
    for (line, want) in [
        ("-h rv -p 1 --multi --stdio", "exclude each other"),
        ("-h rv -p 1 --stdio --bind-local-port", "exclude each other"),
        ("-h rv -p 0", "not a host and a port"),
        ("-h rv:5 -p 1", "not a host and a port"),
        ("-h rv -p 1 --local-host -x", "not a host and a port"),
    ] {
        let why = why(from_environment(line, &[]));
        assert!(why.contains(want), "{line}: {why}");
    }
}

#[test]
fn misuse_and_help_have_their_exit_codes() {
    for (words, want) in [
        (&["--nonsense"][..], ExitCode::from(1)),
        (&["-h", "rv", "-p", "70000"], ExitCode::from(1)),
        (&["--help"], ExitCode::SUCCESS),
    ] {
        assert_eq!(
            main(Console::new("noports bridge"), words),
            want,
            "{words:?}"
        );
    }
}
