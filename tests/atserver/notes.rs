//! Notifications: the command's grammar, to oneself, to another, kept copies, monitors, expiry.

use async_std::task::block_on;
use miniserde::json::{self, Value};

use super::{Wire, object, text};
use crate::world::{ALICE, DEVICE, World};

#[test]
fn malformed_notifications_are_refused() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        for command in [
            "notify:update:messageType:notifier:system:ttr:-1:@alice:email.ns@alice",
            "notify:update:messageType:key:strategy:latest:ttr:-1:@alice:email.ns@alice",
            "notify:update:ttlnn:5000:ttr:-1:@alice:message.ns@alice:Hey!",
            "notify:update:ttln:ttr:-1:@alice:message.ns@alice:Hey!",
        ] {
            let reply = wire.ask(command).await;
            assert!(reply.starts_with("error:AT0003-"), "{command} → {reply}");
            assert!(reply.contains("Invalid syntax"), "{command} → {reply}");
        }
        // The original wants the parameters in one order; we do not.
        for command in [
            "notify:messageType:key:update:notifier:system:ttr:-1:@alice:email.ns@alice",
            "notify:update:ttb:3000:ttr:-1:ttln:10000:@alice:message.ns@alice:Hey!",
        ] {
            assert_eq!(wire.data(command).await.len(), 36, "{command}");
        }
    });
}

#[test]
fn what_one_tells_oneself_is_there_at_once() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let id = wire.data("notify:@alice:phone.me@alice").await;
        let note = object(&wire.data(&format!("notify:fetch:{id}")).await);
        for (name, want) in [
            ("id", id.as_str()),
            ("fromAtSign", ALICE),
            ("toAtSign", ALICE),
            ("notification", "@alice:phone.me@alice"),
            ("type", "NotificationType.received"),
            ("opType", "OperationType.update"),
            ("messageType", "MessageType.key"),
            ("priority", "NotificationPriority.low"),
            ("notificationStatus", "NotificationStatus.delivered"),
            ("retryCount", "1"),
            ("strategy", "all"),
        ] {
            assert_eq!(text(&note, name), want, "{name}");
        }
        let later = wire.data("notify:@alice:about.me@alice").await;
        let later = object(&wire.data(&format!("notify:fetch:{later}")).await);
        let date = "notificationDateTime";
        assert!(text(&later, date) > text(&note, date));

        let value = "notify:update:@alice:valued.ns@alice:no-ttr";
        let valued = wire.data(value).await;
        wire.table(&[
            (&format!("notify:status:{valued}"), "data:delivered"),
            (
                "notify:fetch:124-abc",
                r#"data:{"id":"124-abc","notificationStatus":"NotificationStatus.expired"}"#,
            ),
            (&format!("notify:remove:{id}"), "data:success"),
            (
                &format!("notify:fetch:{id}"),
                &format!(
                    r#"data:{{"id":"{id}","notificationStatus":"NotificationStatus.expired"}}"#
                ),
            ),
        ])
        .await;
        let list = wire.data("notify:list:valued").await;
        let part = r#""key":"@alice:valued.ns@alice","value":"no-ttr","operation":"update""#;
        assert!(list.contains(part), "{list}");
        let list = wire.data("notify:list").await;
        let part = r#""key":"@alice:about.me@alice","value":null,"operation":"update""#;
        assert!(list.contains(part) && !list.contains("phone.me"), "{list}");
    });
}

#[test]
fn every_form_of_notification_arrives_and_is_listed() {
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut device = Wire::login(&world, DEVICE).await;
        for (command, key, value, operation) in [
            (
                "notify:update:messageType:key:notifier:system:ttr:-1:@device:email@alice:a@b.com",
                "@device:email@alice",
                Some("a@b.com"),
                "update",
            ),
            (
                "notify:@device:contact-no@alice:+91-90128",
                "@device:contact-no@alice",
                Some("+91-90128"),
                "update",
            ),
            (
                "notify:update:ttr:-1:@device:fav-city@alice:7-Hyderabad",
                "@device:fav-city@alice",
                Some("7-Hyderabad"),
                "update",
            ),
            (
                "notify:update:messageType:key:ttr:-1:@device:company@alice:three words here",
                "@device:company@alice",
                Some("three words here"),
                "update",
            ),
            (
                "notify:update:@device:nottrkey@alice",
                "@device:nottrkey@alice",
                None,
                "update",
            ),
            (
                "notify:delete:messageType:key:notifier:system:ttr:-1:@device:email@alice",
                "@device:email@alice",
                None,
                "delete",
            ),
            (
                "notify:delete:@device:twitter-id@alice",
                "@device:twitter-id@alice",
                None,
                "delete",
            ),
            (
                "notify:update:messageType:text:notifier:chat:ttr:-1:@device:9-Hey,Hello!",
                "@device:9-Hey,Hello!",
                None,
                "update",
            ),
            (
                "notify:update:messageType:text:@device:hello_world@alice",
                "@device:hello_world",
                None,
                "update",
            ),
            (
                "notify:delete:messageType:text:@device:hello_world@alice",
                "@device:hello_world",
                None,
                "delete",
            ),
        ] {
            let id = alice.data(command).await;
            assert_eq!(id.len(), 36, "{command}: {id}");
            alice
                .until(&format!("notify:status:{id}"), "data:delivered")
                .await;
            let list: Vec<json::Object> =
                json::from_str(&device.data("notify:list").await).unwrap();
            let found = list.iter().find(|note| text(note, "id") == id);
            let found = found.unwrap_or_else(|| panic!("{command}"));
            assert_eq!(text(found, "key"), key, "{command}");
            assert_eq!(text(found, "operation"), operation, "{command}");
            let got = match found.get("value") {
                Some(Value::String(text)) => Some(text.as_str()),
                _ => None,
            };
            assert_eq!(got, value, "{command}");
            let sent = object(&alice.data(&format!("notify:fetch:{id}")).await);
            assert_eq!(text(&sent, "type"), "NotificationType.sent", "{command}");
            assert_eq!(
                text(&sent, "notificationStatus"),
                "NotificationStatus.delivered"
            );
        }
        let ids = alice
            .data("notify:all:@device:whatsapp@alice:+91-9012")
            .await;
        assert!(ids.starts_with(r#" {"@device":""#), "{ids}");
        let listed = async |wire: &mut Wire| wire.data("notify:list:whatsapp").await;
        while !listed(&mut device)
            .await
            .contains(r#""key":"@device:whatsapp@alice""#)
        {}
    });
}

#[test]
fn copies_are_kept_renewed_and_deleted_as_the_sender_allows() {
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut device = Wire::login(&world, DEVICE).await;
        let tell = async |alice: &mut Wire, command: &str| {
            let id = alice.data(command).await;
            alice
                .until(&format!("notify:status:{id}"), "data:delivered")
                .await;
        };
        let copy = |name: &str| format!("llookup:cached:@device:{name}@alice");
        for (name, parameters, survives) in [
            ("key-1", "ttl:600000:ttr:-1", true),
            ("key-2", "ttl:15000:ttr:2000:ccd:true", false),
            ("key-3", "ttl:15000:ttr:2000:ccd:false", true),
        ] {
            tell(
                &mut alice,
                &format!("notify:update:{parameters}:@device:{name}@alice:one"),
            )
            .await;
            assert_eq!(device.ask(&copy(name)).await, "data:one", "{name}");
            tell(&mut alice, &format!("notify:delete:@device:{name}@alice")).await;
            let left = device.ask(&copy(name)).await;
            match survives {
                true => assert_eq!(left, "data:one", "{name}"),
                false => assert_eq!(
                    left,
                    format!(
                        "error:AT0015-key not found : cached:@device:{name}@alice does not exist in keystore"
                    )
                ),
            }
        }

        // The same by way of stored values: the server tells by itself.
        alice
            .ask("update:ttr:10000:ccd:true:@device:shared.ns@alice one")
            .await;
        device.until(&copy("shared.ns"), "data:one").await;
        alice
            .ask("update:ttr:10000:ccd:true:@device:shared.ns@alice two")
            .await;
        device.until(&copy("shared.ns"), "data:two").await;
        for command in [
            "lookup:shared.ns@alice",
            "lookup:bypassCache:true:shared.ns@alice",
        ] {
            assert_eq!(device.ask(command).await, "data:two", "{command}");
        }
        alice.ask("delete:@device:shared.ns@alice").await;
        let gone = "error:AT0015-key not found : cached:@device:shared.ns@alice does not exist in keystore";
        device.until(&copy("shared.ns"), gone).await;
        device
            .table(&[
                ("lookup:shared.ns@alice", "error:AT0015-key not found : "),
                (
                    "lookup:bypassCache:true:shared.ns@alice",
                    "error:AT0015-key not found : ",
                ),
            ])
            .await;
    });
}

#[test]
fn how_a_value_is_encrypted_travels_with_it() {
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut device = Wire::login(&world, DEVICE).await;
        let mut monitor = Wire::login(&world, DEVICE).await;
        monitor.monitor("monitor phone").await;
        let travels = [
            ("sharedKeyEnc", "abc"),
            ("encKeyName", "someEncKeyName"),
            ("encAlgo", "AES/CTR/PKCS7Padding"),
            ("ivNonce", "anInitializationVector"),
            ("skeEncKeyName", "someSkeEncKeyName"),
            ("skeEncAlgo", "RSA-2048"),
        ];
        alice
            .data("notify:update:messageType:key:notifier:SYSTEM:ttln:60000:ttl:50000:ttr:10:ccd:false:sharedKeyEnc:abc:pubKeyCS:3c55db:encKeyName:someEncKeyName:encAlgo:AES/CTR/PKCS7Padding:ivNonce:anInitializationVector:skeEncKeyName:someSkeEncKeyName:skeEncAlgo:RSA-2048:@device:phone.wavi@alice:Some ciphertext")
            .await;
        let note = monitor.hear().await;
        assert_eq!(text(&note, "value"), "Some ciphertext");
        let all = object(
            &device
                .data("llookup:all:cached:@device:phone.wavi@alice")
                .await,
        );
        assert_eq!(text(&all, "key"), "cached:@device:phone.wavi@alice");
        assert_eq!(text(&all, "data"), "Some ciphertext");
        for (object, name) in [(&note, "metadata"), (&all, "metaData")] {
            let Some(Value::Object(meta)) = object.get(name) else {
                panic!("no {name}");
            };
            for (name, want) in travels {
                assert_eq!(text(meta, name), want, "{name}");
            }
        }
        let meta = device
            .data("llookup:meta:cached:@device:phone.wavi@alice")
            .await;
        for part in [
            r#""ttl":50000"#,
            r#""ttr":10"#,
            r#""ccd":false"#,
            r#""pubKeyCS":"3c55db""#,
            r#""isEncrypted":true"#,
        ] {
            assert!(meta.contains(part), "{part} in {meta}");
        }
    });
}

#[test]
fn five_that_waited_are_replayed_in_order() {
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        alice.data("notify:@device:before.ns@alice:0").await;
        let mut ids = Vec::new();
        for n in 1..=5 {
            ids.push(
                alice
                    .data(&format!(
                        "notify:update:messageType:key:@device:monitor.e2e@alice:message_{n}"
                    ))
                    .await,
            );
        }
        alice
            .until(&format!("notify:status:{}", ids[4]), "data:delivered")
            .await;
        let mut monitor = Wire::login(&world, DEVICE).await;
        monitor.monitor("monitor:strict:1 monitor.e2e").await;
        let mut last = 0;
        for id in &ids {
            let note = monitor.hear().await;
            assert_eq!(text(&note, "id"), *id);
            let Some(Value::Number(json::Number::U64(epoch))) = note.get("epochMillis") else {
                panic!("no epochMillis");
            };
            assert!(*epoch > last);
            last = *epoch;
        }
        // From the last one on there is nothing, so what comes next is new.
        let mut monitor = Wire::login(&world, DEVICE).await;
        monitor.monitor(&format!("monitor:{last}")).await;
        let new = alice.data("notify:@device:new.ns@alice:v").await;
        assert_eq!(text(&monitor.hear().await, "id"), new);
    });
}

#[test]
fn a_notification_ends_with_its_life_whatever_became_of_it() {
    block_on(async {
        let world = World::start_with("localhost", |options| {
            options.timings.retry = std::time::Duration::from_millis(20);
        })
        .await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut device = Wire::login(&world, DEVICE).await;
        for (command, first) in [
            (
                "notify:update:messageType:key:ttln:1500:ttr:-1:@device:message@alice:Hey!",
                "delivered",
            ),
            (
                "notify:update:messageType:text:ttln:1500:ttr:-1:@device:Hello!",
                "delivered",
            ),
            (
                "notify:update:messageType:key:ttln:1500:ttr:-1:@xyz:message@alice:Hey!",
                "errored",
            ),
        ] {
            let id = alice.data(command).await;
            let status = format!("notify:status:{id}");
            alice.until(&status, &format!("data:{first}")).await;
            alice.until(&status, "data:expired").await;
        }
        assert_eq!(device.ask("notify:list").await, "data:null");
    });
}
