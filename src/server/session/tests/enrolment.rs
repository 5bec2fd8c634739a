//! A second device.

use super::*;

/// An atSign, and its owner with the secret.
fn founded() -> (World, Line) {
    let mut world = World::new(&["@alice"]);
    let mut cram = world.connect("@alice");
    let reply = world.ask(&mut cram, "from:@alice");
    let digest = cram_digest("s3cret", challenge_of(&reply));
    world.ask(&mut cram, &format!("cram:{digest}"));
    (world, cram)
}

#[test]
fn a_device_enrols_is_approved_and_revoked() {
    let (mut world, mut cram) = founded();
    let public = &keys().public().text;
    let request = |otp: &str, device: &str| {
        format!(
            r#"enroll:request:{{"appName":"np","deviceName":"{device}","namespaces":{{"sshnp":"rw"}},"otp":{otp},"apkamPublicKey":"{public}","encryptedAPKAMSymmetricKey":"SYM","encryptedDefaultEncryptionPrivateKey":"PRIV","encryptedDefaultSelfEncryptionKey":"SELF"}}"#
        )
    };
    let id_of = |reply: &str| reply.split('"').nth(3).unwrap().to_owned();
    let reply = world.ask(&mut cram, &request("null", "first"));
    assert!(
        reply.ends_with("\"status\":\"approved\"}\n@alice@"),
        "{reply}"
    );
    let first = id_of(&reply);
    world.talk(
        &mut cram,
        &[
            (
                &format!("keys:get:keyName:{first}.default_enc_private_key.__manage@alice"),
                "data:{\"value\":\"PRIV\"}\n@alice@",
            ),
            ("delete:privatekey:at_secret", "data:-1\n@alice@"),
        ],
    );
    let code = world.ask(&mut cram, "otp:get");
    let code = code
        .trim_start_matches("data:")
        .split('\n')
        .next()
        .unwrap()
        .to_lowercase();

    let mut new = world.connect("@alice");
    let outcome = world.run(&mut new, &request("\"WRONG1\"", "second"));
    let reply = String::from_utf8(outcome.reply).unwrap();
    assert!(
        reply.starts_with("error:AT0011-Exception: invalid otp"),
        "{reply}"
    );
    assert_eq!(outcome.delay, Duration::from_secs(1));
    let reply = world.ask(&mut new, &request(&format!("\"{code}\""), "second"));
    assert!(reply.ends_with("\"status\":\"pending\"}\n@"), "{reply}");
    let second = id_of(&reply);
    let told = world.told("@alice");
    assert!(told[0].contains(&format!(
        "\"key\":\"{second}.new.enrollments.__manage@alice\""
    )));
    assert!(told[0].contains(r#""isEncrypted":false"#));
    let reply = world.ask(&mut new, &request(&format!("\"{code}\""), "third"));
    assert!(reply.contains("invalid otp"), "used up: {reply}");

    let login = |world: &mut World, id: &str| {
        let mut line = world.connect("@alice");
        let reply = world.ask(&mut line, "from:@alice");
        let signature = keys().sign(challenge_of(&reply).as_bytes()).unwrap();
        let reply = world.ask(&mut line, &format!("pkam:enrollmentId:{id}:{signature}"));
        (line, reply)
    };
    let (_, reply) = login(&mut world, &second);
    assert_eq!(
        reply,
        format!("error:AT0026:enrollment_id: {second} is pending\n@")
    );
    let (_, reply) = login(&mut world, "nobody");
    assert_eq!(
        reply,
        "error:AT0028:enrollment_id: nobody is expired or invalid\n@"
    );
    let approve = format!(
        r#"enroll:approve:{{"enrollmentId":"{second}","encryptedDefaultEncryptionPrivateKey":"P2","encryptedDefaultSelfEncryptionKey":"S2"}}"#
    );
    let approved =
        format!("data:{{\"status\":\"approved\",\"enrollmentId\":\"{second}\"}}\n@alice@");
    world.talk(&mut cram, &[(&approve, &approved)]);
    let again = world.ask(&mut cram, &approve);
    assert!(
        again.contains("Only pending enrollments can be approved"),
        "{again}"
    );

    let (mut device, reply) = login(&mut world, &second);
    assert_eq!(reply, "data:success\n@alice@");
    world.talk(&mut device, &[
        (
            &format!("keys:get:keyName:{second}.default_self_enc_key.__manage@alice"),
            "data:{\"value\":\"S2\"}\n@alice@",
        ),
        (
            &format!(r#"enroll:fetch:{{"enrollmentId":"{second}"}}"#),
            "data:{\"appName\":\"np\",\"deviceName\":\"second\",\"namespace\":{\"sshnp\":\"rw\"},\"encryptedAPKAMSymmetricKey\":\"SYM\",\"status\":\"approved\"}\n@alice@",
        ),
    ]);
    for (command, start) in [
        ("update:x.dev1.sshnp@alice v", "data:"),
        ("update:x.other@alice v", "error:AT0009-"),
        ("update:@bob:shared_key@alice v", "data:"),
        ("llookup:x.other@alice", "error:AT0009-"),
        ("otp:get", "error:AT0009-"),
        ("config:block:add:@bob", "error:AT0009-"),
        (
            &format!("keys:get:keyName:{first}.default_self_enc_key.__manage@alice"),
            "error:AT0015-",
        ),
        ("update:privatekey:at_pkam_publickey v", "error:AT0009-"),
        (
            &format!("update:public:_apsk.{second}.a.__e@alice K"),
            "data:-1",
        ),
        (
            &format!("update:public:_apsk.{first}.a.__e@alice K"),
            "error:AT0009-",
        ),
        (
            &format!("update:public:_apsk.{second}.r.__e@alice K"),
            "error:AT0009-",
        ),
        (
            &format!(r#"enroll:revoke:{{"enrollmentId":"{first}"}}"#),
            "error:AT0009-",
        ),
    ] {
        let reply = world.ask(&mut device, command);
        assert!(reply.starts_with(start), "{command} → {reply}");
    }
    let list = world.ask(
        &mut cram,
        r#"enroll:list:{"enrollmentStatusFilter":["approved"]}"#,
    );
    assert!(list.contains(&first) && list.contains(&second), "{list}");
    let own = world.ask(
        &mut cram,
        &format!(r#"enroll:revoke:{{"enrollmentId":"{first}"}}"#),
    );
    assert!(own.starts_with("error:AT0031-"), "{own}");
    world.events.clear();
    world.ask(
        &mut cram,
        &format!(r#"enroll:revoke:{{"enrollmentId":"{second}"}}"#),
    );
    let withdrawn = world.events.iter().any(
        |event| matches!(event, CommitEvent::Withdrawn { enrollment, .. } if *enrollment == second),
    );
    assert!(withdrawn);
    let (_, reply) = login(&mut world, &second);
    assert_eq!(
        reply,
        format!("error:AT0027:enrollment_id: {second} is revoked\n@")
    );
    // What it published about itself says so too.
    let mut anybody = world.connect("@alice");
    let gone = world.ask(&mut anybody, &format!("lookup:_apsk.{second}.a.__e@alice"));
    assert!(gone.starts_with("error:AT0015-"), "{gone}");
    let moved = format!("lookup:_apsk.{second}.r.__e@alice");
    world.talk(&mut anybody, &[(&moved, "data:K\n@")]);
    // And when it is forgotten.
    world.ask(
        &mut cram,
        &format!(r#"enroll:delete:{{"enrollmentId":"{second}"}}"#),
    );
    let moved = format!("lookup:_apsk.{second}.d.__e@alice");
    world.talk(&mut anybody, &[(&moved, "data:K\n@")]);
}

#[test]
fn what_an_expired_enrolment_left_is_moved_and_its_keys_go() {
    let (mut world, mut cram) = founded();
    let request = r#"enroll:request:{"appName":"np","deviceName":"d","namespaces":{"x":"rw"},"apkamKeysExpiryInMillis":5000,"apskLegacy":"SIGN","signingAlgo":"rsa2048","metadata":{"m":1},"apkamPublicKey":"KEY","encryptedDefaultEncryptionPrivateKey":"P","encPrivateKeyIV":"IV","encryptedDefaultSelfEncryptionKey":"S"}"#;
    let reply = world.ask(&mut cram, request);
    let id = reply.split('"').nth(3).unwrap().to_owned();
    let mut anybody = world.connect("@alice");
    let kept = "lookup:k.__public_keys.__global@alice";
    world.talk(
        &mut cram,
        &[
            (
                &format!("keys:get:keyName:{id}.default_enc_private_key.__manage@alice"),
                "data:{\"value\":\"P\",\"iv\":\"IV\"}\n@alice@",
            ),
            (
                "keys:put:public:namespace:__global:keyName:k V",
                "data:-1\n@alice@",
            ),
            (
                &format!("lookup:_apsk.{id}.a.__e@alice"),
                // A look-up of the owner's is for what is shared with the owner.
                &format!("error:AT0015-key not found : @alice:_apsk.{id}.a.__e@alice does not exist in keystore\n@alice@"),
            ),
        ],
    );
    let seen = world.ask(&mut anybody, kept);
    assert!(seen.contains(&id), "{seen}");
    world.now += 5000;
    let (home, now) = (world.home("@alice"), world.now);
    world.memory.write(|tx| purge(tx, &home, now)).unwrap();
    for (key, found) in [
        (kept.to_owned(), false),
        (format!("lookup:_apsk.{id}.a.__e@alice"), false),
        (format!("lookup:_apsk.{id}.d.__e@alice"), true),
    ] {
        let seen = world.ask(&mut anybody, &key);
        assert_eq!(seen.starts_with("data:"), found, "{key} → {seen}");
    }
}

#[test]
fn the_right_key_of_an_enrolment_that_is_not_in_force_is_no_guess() {
    let (mut world, mut cram) = founded();
    let public = &keys().public().text;
    let request = |world: &mut World, otp: &str, device: &str, life: &str| {
        let request = format!(
            r#"enroll:request:{{"appName":"np","deviceName":"{device}","namespaces":{{"sshnp":"rw"}},"otp":"{otp}"{life},"apkamPublicKey":"{public}","encryptedAPKAMSymmetricKey":"SYM"}}"#
        );
        let mut stranger = world.connect("@alice");
        let reply = world.ask(&mut stranger, &request);
        reply.split('"').nth(3).unwrap().to_owned()
    };
    let mut new = |world: &mut World, device: &str, life: &str| {
        let code = world.ask(&mut cram, "otp:get");
        let code = code.trim_start_matches("data:").split('\n').next().unwrap();
        request(world, code, device, life)
    };
    let ids = ["pending", "denied", "revoked"].map(|name| new(&mut world, name, ""));
    let short = new(&mut world, "expired", r#","apkamKeysExpiryInMillis":5000"#);
    let keys_for =
        r#""encryptedDefaultEncryptionPrivateKey":"P","encryptedDefaultSelfEncryptionKey":"S""#;
    for command in [
        format!(r#"enroll:deny:{{"enrollmentId":"{}"}}"#, ids[1]),
        format!(
            r#"enroll:approve:{{"enrollmentId":"{}",{keys_for}}}"#,
            ids[2]
        ),
        format!(r#"enroll:revoke:{{"enrollmentId":"{}"}}"#, ids[2]),
        format!(r#"enroll:approve:{{"enrollmentId":"{short}",{keys_for}}}"#),
    ] {
        let reply = world.ask(&mut cram, &command);
        assert!(reply.starts_with("data:"), "{command} → {reply}");
    }
    let attempt = |world: &mut World, id: &str, good: bool| {
        let mut line = world.connect("@alice");
        let reply = world.ask(&mut line, "from:@alice");
        let text = if good { challenge_of(&reply) } else { "other" };
        let signature = keys().sign(text.as_bytes()).unwrap();
        let outcome = world.run(&mut line, &format!("pkam:enrollmentId:{id}:{signature}"));
        (outcome.login, String::from_utf8(outcome.reply).unwrap())
    };
    assert_eq!(attempt(&mut world, &short, true).0, Some(Login::Good));
    world.now += 5000;
    for (id, code) in ids
        .iter()
        .chain([&short])
        .zip(["AT0026", "AT0025", "AT0027", "AT0028"])
    {
        for (good, want) in [(true, Login::Barred), (false, Login::Wrong)] {
            let (login, reply) = attempt(&mut world, id, good);
            assert_eq!(login, Some(want), "{code} {good}");
            // What is said tells nobody whether the key was right.
            assert!(reply.starts_with(&format!("error:{code}:")), "{reply}");
        }
    }
    for unknown in ["nobody", ""] {
        let (login, reply) = attempt(&mut world, unknown, true);
        assert_eq!(
            login.unwrap_or(Login::Wrong),
            Login::Wrong,
            "{unknown:?}: {reply}"
        );
    }
}
