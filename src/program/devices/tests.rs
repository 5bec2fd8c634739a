use super::*;
use crate::at::fault::{Code, Fault};

fn name(at: &str, device: &str) -> DeviceAddress {
    (at.parse().unwrap(), device.parse().unwrap())
}

#[test]
fn devices_are_found_in_every_form_of_their_key() {
    let me = "@me".parse().unwrap();
    for (key, want) in [
        (
            "cached:@me:device_info.dev1.sshnp@dev",
            Some(("@dev", "dev1")),
        ),
        ("@me:device_info.dev1.sshnp@dev", Some(("@dev", "dev1"))),
        ("device_info.dev-1.sshnp@dev", Some(("@dev", "dev-1"))),
        ("@other:device_info.dev1.sshnp@me", None),
        ("device_info.a.b.sshnp@dev", None),
        ("device_info..sshnp@dev", None),
        ("username.dev1.sshnp@dev", None),
        ("device_info.dev1.other@dev", None),
        ("", None),
    ] {
        let want = want.map(|(at, device)| name(at, device));
        assert_eq!(device_of(key, &me), want, "{key}");
    }
}

fn device(at: &str, device: &str, active: bool) -> Device {
    let services = vec!["localhost:22".to_owned(), "nas:\u{1b}[2J443".to_owned()];
    Device {
        name: name(at, device),
        active,
        about: Some(Heartbeat {
            version: "1.2.3".into(),
            ..Heartbeat::ours(&device.parse().unwrap(), services)
        }),
        last_seen: (!active).then(|| "2026-11-21 10:00:00.000Z".to_owned()),
        hidden: false,
        trouble: None,
    }
}

#[test]
fn a_table_is_aligned_and_holds_no_control_characters() {
    let mut devices = vec![device("@d", "pi", true), device("@device", "kiosk", false)];
    devices[1].about = None;
    let want = "\
DEVICE  ATSIGN   STATE   VERSION  SERVICES                       LAST SEEN
pi      @d       active  1.2.3    localhost:22 nas:\\u{1b}[2J443  now
kiosk   @device  silent                                          2026-11-21 10:00:00.000Z";
    assert_eq!(table(&devices), want);
}

#[test]
fn the_classic_list_is_in_two_parts() {
    assert_eq!(classic_list(&[], true), "[X] No devices found\n");
    let mut active = device("@d", "pi", true);
    active.about.as_mut().unwrap().core = "6.2.0".into();
    let mut silent = device("@d", "kiosk", false);
    let about = silent.about.as_mut().unwrap();
    (about.version, about.core, about.services) = ("5.6.3".into(), "6.1".into(), Vec::new());
    assert_eq!(
        classic_list(&[active, silent], true),
        "Active Devices:\n  pi - v1.2.3 (core v6.2.0)\n  - allowedServices: localhost:22 nas:\\u{1b}[2J443\n\
         Inactive Devices:\n  kiosk - v5.6.3 (core v6.1)"
    );
    let active = [device("@d", "pi", true)];
    let list = classic_list(&active, false);
    assert!(list.contains("\n  pi@d - v1.2.3 "), "{list}");
    assert!(
        list.ends_with("\nInactive Devices:\n  No devices found"),
        "{list}"
    );
}

#[test]
fn a_hidden_device_is_asked_by_name() {
    let at = "@d".parse().unwrap();
    let names = |list: &[&str]| list.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        named(Some(&at), &names(&["My Pi"])).unwrap(),
        [name("@d", "my_pi")]
    );
    assert!(named(None, &names(&["pi"])).is_err());
    assert!(named(Some(&at), &names(&["a.b"])).is_err());
    let hidden = Device {
        hidden: true,
        ..device("@d", "pi", true)
    };
    assert_eq!(
        (hidden.state(), hidden.cells()[2].as_str()),
        ("hidden", "hidden")
    );
}

#[test]
fn a_line_of_json_for_each_device() {
    let mut silent = device("@d", "pi", false);
    silent.about = None;
    assert_eq!(
        silent.to_json(),
        r#"{"event":"device","device":"pi","atsign":"@d","state":"silent","version":null,"services":[],"lastSeen":"2026-11-21 10:00:00.000Z"}"#
    );
    let active = device("@d", "pi", true).to_json();
    assert!(active.contains(r#""state":"active","version":"1.2.3","services":["localhost:22","#));
    assert!(active.ends_with(r#""lastSeen":"now"}"#), "{active}");
}

#[test]
fn a_device_that_does_not_let_us_in_is_not_called_silent_and_told_of_once() {
    let shut = || AtError::Refused(Fault::new(Code::Handshake, "Unable to connect"));
    let out = |device: Device| Device {
        trouble: Some(Trouble::of(&shut())),
        ..device
    };
    let mine = || {
        vec![
            out(device("@d", "pi", false)),
            out(device("@d", "nas", false)),
        ]
    };
    assert!(table(&mine()).contains("refused"), "{}", table(&mine()));
    assert!(mine()[0].to_json().contains(r#""state":"refused""#));
    let failures = || {
        vec![
            ("@d".parse().unwrap(), shut()),
            ("@d".parse().unwrap(), shut()),
        ]
    };
    let failure = tell_failures(&mine(), failures()).unwrap_err();
    assert_eq!(failure.message, "@d's atServer does not let you in");
    assert_eq!(failure.code, cli::exit::DEVICE_REFUSED);
    // Somebody else could be asked: no failure.
    let mut more = mine();
    more.push(device("@e", "kiosk", false));
    tell_failures(&more, failures()).unwrap();
    tell_failures(&[], Vec::new()).unwrap();
    // Other troubles are no refusals.
    assert_eq!(Trouble::of(&AtError::Closed), Trouble::NotAsked);
    let timeout = AtError::Refused(Fault::new(Code::Timeout, "late"));
    assert_eq!(Trouble::of(&timeout), Trouble::NotAsked);
}

#[test]
fn invented_devices_do_not_push_ones_own_off_the_list() {
    let known = |who: &AtSign| who.as_str() == "@kitchen";
    let crowd = |at: &str, count: usize| {
        let names: Vec<_> = (0..count).map(|n| name(at, &format!("d{n:05}"))).collect();
        names
    };
    let own = crowd("@kitchen", 25);
    let mut all: Vec<_> = (0..10)
        .flat_map(|n| crowd(&format!("@aaa{n}"), 1000))
        .collect();
    all.extend(own.clone());
    // Of somebody who has not used them yet, and who tells of few.
    all.push(name("@new", "pi"));
    let (asked, told) = in_order(all, known);
    assert_eq!(asked[..25], own);
    assert_eq!(asked[25..], [name("@new", "pi")]);
    assert_eq!((told.len(), told[&"@aaa0".parse().unwrap()]), (10, 1000));
    // Many strangers with a few each have a share together.
    let many: Vec<_> = (0..50).flat_map(|n| crowd(&format!("@b{n}"), 3)).collect();
    let (asked, told) = in_order([many, own.clone()].concat(), known);
    assert_eq!(asked[..25], own);
    assert!(
        asked.len() <= 25 + MAX_OF_STRANGERS && told.len() == 17,
        "{}",
        told.len()
    );
    // Nobody is known yet: few of each are asked.
    let (asked, told) = in_order(crowd("@kitchen", 20), |_| false);
    assert_eq!((asked.len(), told.len()), (20, 0));
}
