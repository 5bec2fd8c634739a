//! Who is let in, and what strangers and peers may do.

use super::*;

#[test]
fn a_new_atsign_is_activated_as_the_python_client_does_it() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.connect("@alice");
    let reply = world.ask(&mut line, "from:@alice");
    assert!(
        reply.starts_with("data:_") && reply.ends_with("\n@"),
        "{reply}"
    );
    let challenge = challenge_of(&reply);
    assert!(
        challenge.contains("@alice:") && challenge.len() < 255,
        "{challenge}"
    );
    let digest = cram_digest("s3cret", challenge);
    let public = &keys().public().text;
    world.talk(
        &mut line,
        &[
            (&format!("cram:{digest}"), "data:success\n@alice@"),
            (
                &format!("update:privatekey:at_pkam_publickey {public}"),
                "data:-1\n@alice@",
            ),
        ],
    );
    world.pkam(&mut line, "@alice");
    world.talk(
        &mut line,
        &[
            (
                &format!("update:public:publickey@alice {public}"),
                "data:0\n@alice@",
            ),
            ("delete:privatekey:at_secret", "data:-1\n@alice@"),
            (
                "llookup:public:publickey@alice",
                &format!("data:{public}\n@alice@"),
            ),
        ],
    );
    let mut again = world.connect("@alice");
    world.ask(&mut again, "from:@alice");
    let reply = world.ask(&mut again, &format!("cram:{digest}"));
    assert!(reply.starts_with("error:AT0015-Exception: "), "{reply}");
}

#[test]
fn the_c_daemon_starts() {
    let mut world = World::new(&["@device", "@client"]);
    let mut client = world.login("@client");
    world.ask(&mut client, "update:public:publickey@client KEY");
    let mut mon = world.connect("@device");
    world.talk(
        &mut mon,
        &[("\r", "error:AT0003-Exception: invalid command\n@")],
    );
    let reply = world.ask(&mut mon, "from:device\r");
    let signature = keys().sign(challenge_of(&reply).as_bytes()).unwrap();
    world.talk(
        &mut mon,
        &[(&format!("pkam:{signature}\r"), "data:success\n@device@")],
    );
    let watch = world.monitor(&mut mon, "monitor dev1.sshnp@\r");
    assert_eq!(watch.replay, None);
    // On a monitor connection replies carry no prompt.
    world.talk(&mut mon, &[("noop:0\r", "data:ok\n")]);

    let mut work = world.login("@device");
    let missing = world.ask(&mut work, "llookup:shared_key.client@device\r");
    assert!(
        missing.starts_with("error:AT0015-key not found : "),
        "{missing}"
    );
    world.talk(&mut work, &[
        ("noop:0\r", "data:ok\n@device@"),
        ("plookup:publickey@client\r", "data:KEY\n@device@"),
        ("update:shared_key.client@device RSA\r", "data:0\n@device@"),
        ("update:@client:shared_key@device RSA\r", "data:1\n@device@"),
        (
            "update:ttr:-1:ccd:true:isEncrypted:true:ivNonce:AAAA:@client:username.dev1.sshnp@device CT\r",
            "data:2\n@device@",
        ),
        (
            "update:ttl:2592000000:ttr:-1:ccd:true:isEncrypted:true:ivNonce:AAAA:@client:device_info.dev1.sshnp@device CT\r",
            "data:3\n@device@",
        ),
    ]);
    assert!(matches!(
        world.deliver("@device", "@client"),
        Delivery::Some
    ));
    // What may be cached is there, for the client's list of devices.
    world.talk(&mut client, &[
        (
            "scan .*dev1",
            "data:[\"cached:@client:device_info.dev1.sshnp@device\",\"cached:@client:username.dev1.sshnp@device\"]\n@client@",
        ),
        ("lookup:shared_key@device", "data:RSA\n@client@"),
        ("lookup:bypassCache:true:username.dev1.sshnp@device", "data:CT\n@client@"),
    ]);
    let all = world.ask(&mut client, "lookup:all:username.dev1.sshnp@device");
    let start = r#"data:{"key":"@client:username.dev1.sshnp@device","data":"CT","metaData":{"createdBy":"@device""#;
    assert!(all.starts_with(start), "{all}");
    assert!(all.contains(r#""ttr":-1,"ccd":true"#), "{all}");
}

#[test]
fn nobody_does_anything_without_login() {
    let mut world = World::new(&["@alice"]);
    let mut owner = world.login("@alice");
    world.ask(&mut owner, "update:public:x.ns@alice hello");
    world.ask(&mut owner, "update:public:__y.ns@alice hidden");
    let mut line = world.connect("@alice");
    let refused = "error:AT0401-Exception: Command cannot be executed without auth\n@";
    world.talk(&mut line, &[
        ("llookup:x.ns@alice", refused),
        ("update:x.ns@alice v", refused),
        ("delete:x.ns@alice", refused),
        ("plookup:x.ns@alice", refused),
        ("monitor", refused),
        ("notify:status:1", refused),
        ("notify:list", refused),
        ("config:block:show", refused),
        ("stats:3", refused),
        ("sync:from:-1:limit:5", refused),
        ("otp:get", refused),
        ("enroll:list", refused),
        ("batch:[]", refused),
        (
            "notify:@bob:x.ns@alice:v",
            "error:AT0401-Exception: Notify command cannot be executed without authentication\n@",
        ),
        (
            "scan:@bob",
            "error:AT0401-Exception: Scan to another atSign cannot be performed without auth\n@",
        ),
        ("scan", "data:[\"signing_publickey@alice\",\"x.ns@alice\"]\n@"),
        ("lookup:x.ns@alice", "data:hello\n@"),
        ("lookup:__y.ns@alice", "data:hidden\n@"),
        ("noop:0", "data:ok\n@"),
        ("info:brief", "data:{\"version\":\"3.0.52\",\"uptimeAsMillis\":62000}\n@"),
        ("info", "data:{\"version\":\"3.0.52\",\"uptimeAsWords\":\"1 minutes 2 seconds\"}\n@"),
        ("nonsense", "error:AT0003-Exception: invalid command\n@"),
        ("", "error:AT0003-Exception: invalid command\n@"),
    ]);
    assert!(world.run(&mut line, "@exit").close);
}

#[test]
fn errors_are_json_for_clients_that_ask_for_it() {
    let mut world = World::new(&["@alice"]);
    let mut line = world.connect("@alice");
    world.ask(&mut line, r#"from:alice:clientConfig:{"version":"3.0.60"}"#);
    world.talk(&mut line, &[(
        "pkam:AAAA",
        "error:{\"errorCode\":\"AT0401\",\"errorDescription\":\"Exception: pkam authentication failed\"}\n@",
    )]);
}

#[test]
fn a_challenge_is_good_for_a_minute_and_for_its_owner_only() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut line = world.connect("@alice");
    let failed = "error:AT0401-Exception: pkam authentication failed\n@";
    let reply = world.ask(&mut line, "from:@alice");
    let signature = keys().sign(challenge_of(&reply).as_bytes()).unwrap();
    world.now += 59_999;
    world.talk(
        &mut line,
        &[
            (&format!("pkam:{signature}"), "data:success\n@alice@"),
            (
                &format!("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:{signature}"),
                "data:success\n@alice@",
            ),
            (&format!("pkam:hashingAlgo:sha512:{signature}"), failed),
            // A failed login logs out.
            (
                "llookup:x@alice",
                "error:AT0401-Exception: Command cannot be executed without auth\n@",
            ),
        ],
    );
    world.now += 1;
    world.talk(&mut line, &[(&format!("pkam:{signature}"), failed)]);
    let reply = world.ask(&mut line, "from:@bob");
    assert!(reply.starts_with("data:proof:_"), "{reply}");
    let signature = keys()
        .sign(&challenge_of(&reply).as_bytes()["proof:".len()..])
        .unwrap();
    world.talk(&mut line, &[(&format!("pkam:{signature}"), failed)]);
}

#[test]
fn a_peer_proves_itself_by_a_signature_on_its_own_server() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut owner = world.login("@bob");
    world.ask(&mut owner, "update:@alice:x.ns@bob for alice");
    world.ask(&mut owner, "update:public:p.ns@bob for all");
    let mut line = world.connect("@bob");
    let reply = world.ask(&mut line, "from:@alice");
    let proof = challenge_of(&reply).strip_prefix("proof:").unwrap();
    let (session, nonce) = proof.split_once("@alice:").unwrap();
    world.talk(
        &mut line,
        &[(
            "pol",
            "error:AT0401-Exception: Pol Authentication Failed\n@",
        )],
    );
    let signature = keys().sign(nonce.as_bytes()).unwrap();
    let (alice, key) = (world.home("@alice"), format!("public:{session}@alice"));
    world
        .memory
        .write(|tx| alice.put_plain(tx, &key, &signature, Some(60_000), NOW))
        .unwrap();
    world.talk(&mut line, &[
        ("pol", "@alice@"),
        ("lookup:x.ns@bob", "data:for alice\n@alice@"),
        ("scan", "data:[\"x.ns@bob\"]\n@alice@"),
        // After an error a peer sees the stranger's prompt.
        (
            "lookup:p.ns@bob",
            "error:AT0015-Exception: @alice:p.ns@bob does not exist in keystore\n@",
        ),
        ("notify:id:1:update:isEncrypted:true:@bob:y.ns@alice:v", "data:success\n@alice@"),
        ("notify:id:1:update:isEncrypted:true:@bob:y.ns@alice:v", "data:success\n@alice@"),
        (
            "notify:id:2:@bob:y.ns@carol:v",
            "error:AT0009-Exception: @carol is not authorized to send notification as @alice\n@",
        ),
    ]);
    let told = world.told("@bob");
    assert_eq!(told.len(), 1, "the second is a repetition: {told:?}");
    assert!(told[0].contains(r#""from":"@alice","to":"@bob","key":"@bob:y.ns@alice","value":"v""#));
    let refused = world.ask(&mut line, "notify:id:3:@carol:y.ns@alice:v");
    assert!(refused.starts_with("error:AT0009-"), "{refused}");
    world.talk(
        &mut line,
        &[(
            "update:x.ns@bob v",
            "error:AT0401-Exception: Command cannot be executed without auth\n@",
        )],
    );
    let mut blocked = world.connect("@bob");
    assert!(world.run(&mut blocked, "pol").close);
}
