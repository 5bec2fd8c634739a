//! Keys for and from others, and what is encrypted with them.

use super::*;

/// A stand that stores, and knows bob's public key.
async fn storing() -> (Stand, Arc<Mutex<BTreeMap<String, String>>>) {
    let store: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    store
        .lock()
        .unwrap()
        .insert("publickey@bob".to_owned(), bob().public().text.clone());
    let inner = Arc::clone(&store);
    let stand = Stand::new(move |_, line| {
        let mut store = inner.lock().unwrap();
        let (word, rest) = line.split_once(':')?;
        let missing = || error("AT0015-key not found : it does not exist");
        let key = rest.strip_prefix("bypassCache:true:").unwrap_or(rest);
        let key = key.strip_prefix("all:").unwrap_or(key);
        Some(match word {
            "llookup" | "plookup" | "lookup" => match store.get(key) {
                Some(value) if rest.starts_with("all:@") => {
                    data(&stored(value, store.get(&cs(key))))
                }
                Some(value) => data(value),
                None => missing(),
            },
            "delete" => {
                store.remove(rest);
                data("1")
            }
            "update" => {
                let (key, value) = rest.split_once(' ').unwrap();
                let (made_for, key) = match key.rsplit_once(":pubKeyCS:") {
                    Some((_, said)) => said.split_once(':').unwrap(),
                    None => ("", key),
                };
                store.insert(cs(key), made_for.to_owned());
                store.insert(key.to_owned(), value.to_owned());
                data("2")
            }
            "notify" => data(rest.split(':').nth(1).unwrap()),
            _ => return None,
        })
    })
    .await;
    (stand, store)
}

/// Where the stand keeps the checksum that came with a key.
fn cs(key: &str) -> String {
    format!("{key} pubKeyCS")
}

fn stored(value: &str, made_for: Option<&String>) -> String {
    let made_for = made_for.map_or("null".to_owned(), |text| format!("{text:?}"));
    format!(r#"{{"key":"k","data":"{value}","metaData":{{"pubKeyCS":{made_for}}}}}"#)
}

fn bob() -> KeyPair {
    let key = at_protocol().text("keys.bob_encryption.private_pkcs8_base64");
    KeyPair::parse(&key).unwrap()
}

fn outgoing(text: &str) -> Outgoing {
    Outgoing {
        to: atsign("@bob"),
        entity: "Req.dev1.sshnp".to_owned(),
        text: text.to_owned(),
        ttl: None,
        ttln: 60_000,
        metadata: Metadata::default(),
    }
}

fn store_theirs() -> String {
    let made_for = bob().public().checksum();
    format!("update:ttr:3888000:isEncrypted:false:pubKeyCS:{made_for}:@bob:shared_key@alice")
}

/// Verb and key of a line, without values.
fn gist(line: &str) -> String {
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn first_contact_makes_both_copies_and_the_second_message_costs_one_line() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        let id = client.notify(&outgoing("hello")).await.unwrap();
        let mut lines = Vec::new();
        for _ in 0..7 {
            lines.push(gist(&stand.line().await.1));
        }
        assert_eq!(
            lines,
            [
                "llookup:shared_key.bob@alice",
                "llookup:all:@bob:shared_key@alice",
                "plookup:publickey@bob",
                "delete:@bob:shared_key@alice",
                "update:shared_key.bob@alice",
                "llookup:shared_key.bob@alice",
                &store_theirs(),
            ]
        );
        let (_, notify) = stand.line().await;
        let theirs = store.lock().unwrap()["@bob:shared_key@alice"].clone();
        let key = share::unwrap(&bob(), &theirs).unwrap();
        let head = format!(
            "notify:id:{id}:update:messageType:key:priority:low:strategy:all:latestN:1:notifier:SYSTEM:ttln:60000:isEncrypted:true:sharedKeyEnc:{theirs}:pubKeyCS:{}:ivNonce:",
            bob().public().checksum()
        );
        let rest = notify.strip_prefix(&head).unwrap();
        let (iv, value) = rest.split_once(":@bob:req.dev1.sshnp@alice:").unwrap();
        assert_eq!(share::decrypt(&key, value, Some(iv)).unwrap(), "hello");

        client.prepare(&atsign("@bob")).await.unwrap();
        let note = Outgoing {
            ttl: Some(5),
            ..outgoing("again")
        };
        client.notify(&note).await.unwrap();
        let (_, again) = stand.line().await;
        assert!(
            again.contains(":ttln:60000:ttl:5:isEncrypted:true:"),
            "{again}"
        );
        assert!(!again.contains(iv));
    });
}

#[test]
fn stored_keys_are_used_and_a_missing_copy_is_made_good() {
    run(async {
        let (stand, store) = storing().await;
        let own = at_protocol().text("shared_key_end_to_end.update_own_copy");
        let own = own.split_once(' ').unwrap().1.to_owned();
        store
            .lock()
            .unwrap()
            .insert("shared_key.bob@alice".to_owned(), own);
        let client = stand.client(Timing::default()).await;
        let bob_sign = atsign("@bob");
        // Two at once: the second waits for what the first finds.
        let (first, second) = zip(client.prepare(&bob_sign), client.prepare(&bob_sign)).await;
        first.unwrap();
        second.unwrap();
        client
            .put_shared(&bob_sign, "x.sshnp", "text", Metadata::default())
            .await
            .unwrap();
        let theirs = store.lock().unwrap()["@bob:shared_key@alice"].clone();
        let key = share::unwrap(&bob(), &theirs).unwrap();
        let expected = at_protocol().text("keys.shared_key_alice_to_bob_base64");
        assert_eq!(*crypto::aes_key_to_base64(&key).reveal(), expected);
        let mut lines = Vec::new();
        for _ in 0..5 {
            lines.push(gist(&stand.line().await.1));
        }
        assert_eq!(lines[3], store_theirs());
        let put = format!("update:isEncrypted:true:sharedKeyEnc:{theirs}:pubKeyCS:");
        assert!(lines[4].starts_with(&put) && lines[4].ends_with(":@bob:x.sshnp@alice"));
    });
}

#[test]
fn a_recipient_with_new_keys_gets_a_new_shared_key() {
    run(async {
        let (stand, store) = storing().await;
        let timing = Timing {
            remember: Duration::ZERO,
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        client.prepare(&atsign("@bob")).await.unwrap();
        let before = store.lock().unwrap()["shared_key.bob@alice"].clone();
        client.prepare(&atsign("@bob")).await.unwrap();
        assert_eq!(store.lock().unwrap()["shared_key.bob@alice"], before);

        let reborn = keys("legacy_file").pkam;
        let text = reborn.public().text.clone();
        store
            .lock()
            .unwrap()
            .insert("publickey@bob".to_owned(), text);
        client.prepare(&atsign("@bob")).await.unwrap();
        let store = store.lock().unwrap();
        let own = share::unwrap(
            &keys("legacy_file").encryption,
            &store["shared_key.bob@alice"],
        );
        let theirs = share::unwrap(&reborn, &store["@bob:shared_key@alice"]);
        assert_eq!(own.unwrap(), theirs.unwrap());
        assert_ne!(store["shared_key.bob@alice"], before);
    });
}

/// What was stored for the old ones was sent for ever, also after a restart.
#[test]
fn a_recipient_with_new_keys_gets_a_new_shared_key_after_a_restart_too() {
    run(async {
        let (stand, store) = storing().await;
        let before = {
            let client = stand.client(Timing::default()).await;
            client.prepare(&atsign("@bob")).await.unwrap();
            store.lock().unwrap()["shared_key.bob@alice"].clone()
        };
        let reborn = keys("legacy_file").pkam;
        let text = reborn.public().text.clone();
        let put = |name: &str, value: String| store.lock().unwrap().insert(name.to_owned(), value);
        put("publickey@bob", text);
        let client = stand.client(Timing::default()).await;
        client.prepare(&atsign("@bob")).await.unwrap();
        let theirs = store.lock().unwrap()["@bob:shared_key@alice"].clone();
        assert!(share::unwrap(&reborn, &theirs).is_ok());
        let now = store.lock().unwrap()["shared_key.bob@alice"].clone();
        assert_ne!(now, before);

        // Others do not say for whom it is: the same key, for the holder of now.
        put(&cs("@bob:shared_key@alice"), String::new());
        store.lock().unwrap().remove(&cs("@bob:shared_key@alice"));
        put("@bob:shared_key@alice", "for somebody".to_owned());
        let client = stand.client(Timing::default()).await;
        client.prepare(&atsign("@bob")).await.unwrap();
        let theirs = store.lock().unwrap()["@bob:shared_key@alice"].clone();
        assert!(share::unwrap(&reborn, &theirs).is_ok());
        assert_eq!(store.lock().unwrap()["shared_key.bob@alice"], now);
    });
}

/// Whoever has new keys writes with a new shared key: five minutes long nothing that was answered could be read.
#[test]
fn a_new_shared_key_of_theirs_is_a_reason_to_ask_for_their_public_key() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        client.prepare(&atsign("@bob")).await.unwrap();
        let reborn = keys("legacy_file").pkam;
        let text = reborn.public().text.clone();
        let new = ("publickey@bob".to_owned(), text);
        store.lock().unwrap().extend([new]);
        client.prepare(&atsign("@bob")).await.unwrap();
        let theirs = || store.lock().unwrap()["@bob:shared_key@alice"].clone();
        assert!(
            share::unwrap(&reborn, &theirs()).is_err(),
            "nothing says so"
        );
        let key = crypto::new_aes_key().unwrap();
        let wrapped = share::wrap(&key, client.keys().encryption.public()).unwrap();
        client.decrypt(&sealed(&key, Some(&wrapped))).await.unwrap();
        client.prepare(&atsign("@bob")).await.unwrap();
        assert!(share::unwrap(&reborn, &theirs()).is_ok());
        assert_eq!(client.renewed().await, atsign("@bob"));
        // Known by now.
        while stand.heard.try_recv().is_ok() {}
        client.decrypt(&sealed(&key, Some(&wrapped))).await.unwrap();
        client.prepare(&atsign("@bob")).await.unwrap();
        assert!(stand.heard.try_recv().is_err());
    });
}

/// Each bad signature is a reason, so there is a limit.
#[test]
fn the_source_of_a_key_is_asked_a_few_times_a_minute_and_for_each_apart() {
    run(async {
        let (stand, _store) = storing().await;
        let client = stand.client(Timing::default()).await;
        let (bob, other) = (atsign("@bob"), atsign("@other"));
        for _ in 0..20 {
            assert!(
                client
                    .public_key_afresh(&bob, &bob)
                    .await
                    .unwrap()
                    .is_some()
            );
        }
        client.public_key_afresh(&other, &other).await.unwrap();
        let mut asked = Vec::new();
        while let Ok((_, line)) = stand.heard.try_recv() {
            asked.push(line);
        }
        assert_eq!(
            asked.iter().filter(|line| line.ends_with("@bob")).count(),
            6
        );
        assert!(asked.last().unwrap().ends_with("@other"));
        // What is too old does no more: our own atServer may know better.
        client.0.peers.let_expire(&bob);
        client.public_key_afresh(&bob, &bob).await.unwrap();
        assert_eq!(stand.line().await.1, "plookup:publickey@bob");
        client.public_key_afresh(&bob, &bob).await.unwrap();
        assert!(stand.heard.try_recv().is_err());
    });
}

#[test]
fn a_failed_look_up_makes_no_new_key() {
    run(async {
        let stand = Stand::new(|_, line| {
            line.starts_with("llookup")
                .then(|| error("AT0001-server exception : busy"))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let refused = client.notify(&outgoing("x")).await;
        assert!(matches!(refused, Err(AtError::Refused(_))), "{refused:?}");
        for _ in 0..3 {
            assert!(stand.line().await.1.contains("lookup:"));
        }
        assert!(client.run(&llookup("end")).await.is_err());
        assert_eq!(stand.line().await.1, "llookup:end@alice");
    });
}

/// A notification from bob, encrypted with a key that is wrapped for alice.
fn sealed(key: &crypto::AesKey, wrapped: Option<&str>) -> Notification {
    let iv = crypto::random().unwrap();
    let wrapped = wrapped.map_or("null".to_owned(), |text| format!("{text:?}"));
    let value = crypto::encrypt(key, &iv, "secret");
    let json = note("id", 1)
        .replace("notification: ", "")
        .replace("\"value\":\"v\"", &format!("\"value\":\"{value}\""))
        .replace("\"isEncrypted\":false", "\"isEncrypted\":true")
        .replace(
            "\"metadata\":null",
            &format!(
                r#""metadata":{{"ivNonce":"{}","sharedKeyEnc":{wrapped}}}"#,
                crypto::to_base64(&iv)
            ),
        );
    Notification::parse(json.trim()).unwrap()
}

#[test]
fn notifications_are_opened_with_the_key_that_came_or_the_stored_one() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        let wrap =
            |key: &crypto::AesKey| share::wrap(key, client.keys().encryption.public()).unwrap();
        let key = crypto::new_aes_key().unwrap();
        let wrapped = wrap(&key);
        let open = async |note: Notification| client.decrypt(&note).await;
        let came = open(sealed(&key, Some(&wrapped))).await;
        assert_eq!(came.unwrap().as_deref(), Some("secret"));

        // Nothing is stored anywhere: one answer for all failures.
        let nowhere = open(sealed(&key, None)).await;
        assert!(matches!(nowhere, Err(AtError::Crypto(_))), "{nowhere:?}");

        // An old copy here, the new key at its source.
        let old = wrap(&crypto::new_aes_key().unwrap());
        let put = |name: &str, value: &str| {
            store
                .lock()
                .unwrap()
                .insert(name.to_owned(), value.to_owned())
        };
        put("cached:@alice:shared_key@bob", &old);
        put("shared_key@bob", &wrapped);
        let second = open(sealed(&key, None)).await;
        assert_eq!(second.unwrap().as_deref(), Some("secret"));
        let mut lines = Vec::new();
        for _ in 0..4 {
            lines.push(stand.line().await.1);
        }
        assert_eq!(
            lines,
            [
                "llookup:cached:@alice:shared_key@bob",
                "lookup:shared_key@bob",
                "llookup:cached:@alice:shared_key@bob",
                "lookup:bypassCache:true:shared_key@bob",
            ]
        );
        // And now it is known: no more look-ups.
        let third = open(sealed(&key, None)).await;
        assert_eq!(third.unwrap().as_deref(), Some("secret"));
        assert!(stand.heard.try_recv().is_err());

        let plain = Notification::parse(note("p", 1)["notification: ".len()..].trim()).unwrap();
        assert_eq!(open(plain).await.unwrap().as_deref(), Some("v"));
    });
}

#[test]
fn looked_up_values_are_decrypted_when_they_are_encrypted() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        let key = crypto::new_aes_key().unwrap();
        let wrapped = share::wrap(&key, client.keys().encryption.public()).unwrap();
        let value = crypto::encrypt(&key, &crypto::ZERO_IV, "text");
        let put = |name: &str, value: String| store.lock().unwrap().insert(name.to_owned(), value);
        put("shared_key@bob", wrapped);
        put(
            "sealed.ns@bob",
            format!(r#"{{"key":"k","data":"{value}","metaData":{{"isEncrypted":true,"ttl":5}}}}"#),
        );
        put(
            "plain.ns@bob",
            r#"{"key":"k","data":"as it is"}"#.to_owned(),
        );
        put("gone.ns@bob", "null".to_owned());
        for (name, expected) in [
            ("sealed.ns", Some("text")),
            ("plain.ns", Some("as it is")),
            ("gone.ns", None),
            ("missing.ns", None),
        ] {
            let got = client.get_shared(&atsign("@bob"), name).await.unwrap();
            assert_eq!(got.as_deref(), expected, "{name}");
        }
    });
}

#[test]
fn public_keys_are_remembered_until_asked_afresh() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        for _ in 0..2 {
            let key = client.public_key(&atsign("@bob")).await.unwrap();
            assert_eq!(key.as_ref(), Some(bob().public()));
        }
        assert_eq!(stand.line().await.1, "plookup:publickey@bob");
        let text = keys("legacy_file").pkam.public().text.clone();
        store
            .lock()
            .unwrap()
            .insert("publickey@bob".to_owned(), text.clone());
        let fresh = client
            .public_key_afresh(&atsign("@bob"), &atsign("@bob"))
            .await
            .unwrap();
        assert_eq!(fresh.unwrap().text, text);
        assert_eq!(
            stand.line().await.1,
            "plookup:bypassCache:true:publickey@bob"
        );
        assert_eq!(
            client
                .public_key(&atsign("@bob"))
                .await
                .unwrap()
                .unwrap()
                .text,
            text
        );
        assert!(
            client
                .public_key(&atsign("@nobody"))
                .await
                .unwrap()
                .is_none()
        );
        let own = client.public_key(&atsign("@alice")).await.unwrap().unwrap();
        assert_eq!(&own, client.keys().encryption.public());
    });
}
