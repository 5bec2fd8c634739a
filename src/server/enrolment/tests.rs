use super::*;

fn grant(namespaces: &[(&str, &str)]) -> Grant {
    Grant {
        id: "e".into(),
        namespaces: namespaces
            .iter()
            .map(|(name, right)| ((*name).to_owned(), (*right).to_owned()))
            .collect(),
        expires_at: None,
    }
}

#[test]
fn a_grant_covers_its_namespaces_and_what_everybody_needs() {
    let sshnp = grant(&[("sshnp", "rw"), ("log", "r")]);
    for (key, read, write) in [
        ("@b:x.dev1.sshnp@a", true, true),
        ("x.sshnp@a", true, true),
        ("x.notsshnp@a", false, false),
        ("x.log@a", true, false),
        ("cached:@a:x.sshnp@b", true, true),
        ("@b:shared_key@a", true, true),
        ("shared_key.b@a", true, true),
        ("public:publickey@a", true, false),
        ("@a:signing_privatekey@a", false, false),
        ("x@a", false, false),
        ("1.new.enrollments.__manage@a", false, false),
        ("public:_apsk.e.a.__e@a", true, true),
        ("public:_apsk.other.a.__e@a", false, false),
    ] {
        assert_eq!(sshnp.covers(key, Need::Read), read, "read {key}");
        assert_eq!(sshnp.covers(key, Need::Write), write, "write {key}");
    }
    let all = grant(&[("*", "rw")]);
    assert!(all.covers("x@a", Need::Write));
    assert!(!all.covers("public:_apsk.other.a.__e@a", Need::Write));
    assert!(!all.covers("1.new.enrollments.__manage@a", Need::Read));
    assert!(!all.manages());
}

#[test]
fn namespaces_match_on_whole_parts() {
    for (namespace, inside) in [
        ("sshnp", true),
        ("dev1.sshnp", true),
        ("req.dev1.sshnp", true),
        ("shnp", false),
        (".sshnp", false),
        ("sshrvd", false),
        ("", false),
    ] {
        let granted = grant(&[(namespace, "rw")]);
        let covers = granted.covers("@b:req.dev1.sshnp@a", Need::Write);
        assert_eq!(covers, inside, "{namespace}");
    }
}

#[test]
fn only_rights_one_has_can_be_handed_on() {
    let wanted = |right: &str| BTreeMap::from([("sshnp".to_owned(), right.to_owned())]);
    let manager = grant(&[(MANAGE, "rw"), ("sshnp", "r")]);
    assert!(manager.can_approve(&wanted("r")));
    assert!(!manager.can_approve(&wanted("rw")));
    assert!(grant(&[(MANAGE, "rw"), ("*", "rw")]).can_approve(&wanted("rw")));
    assert!(!grant(&[("*", "rw"), ("sshnp", "rw")]).can_approve(&wanted("r")));
    let managing = BTreeMap::from([(MANAGE.to_owned(), "rw".to_owned())]);
    assert!(!grant(&[("*", "rw"), (MANAGE, "r")]).can_approve(&managing));
}
