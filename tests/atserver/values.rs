//! Values and their metadata: `update`, `llookup`, `delete`, `scan`, `sync`, `stats`, `config`, `info`.

use async_std::task::block_on;
use miniserde::json::{self, Number, Value};

use super::{Wire, object, text};
use crate::world::{ALICE, DEVICE, World};

fn number(object: &json::Object, name: &str) -> u64 {
    match object.get(name) {
        Some(Value::Number(Number::U64(n))) => *n,
        other => panic!("{name} is {other:?}"),
    }
}

fn inner(object: &json::Object, name: &str) -> json::Object {
    match object.get(name) {
        Some(Value::Object(inner)) => inner.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn values_come_back_as_they_were_written() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let mut last = -1;
        for (key, value) in [
            ("public:location@alice", "Hyderabad"),
            ("public:passcode@alice", "@!ice^&##"),
            ("public:unicode@alice", "U+0026"),
            ("public:message.ns@alice", "Hey Hello! welcome to the tests"),
            ("public:message.ns@alice", "Hope you are doing good"),
            ("public:emoji@alice", "🦄 7"),
            ("public:japanese@alice", "パーニマぱーにま"),
            ("public:🦄🦄-1@alice", "two of them"),
            ("@🦄:emoji.name@alice", "unicorn"),
            ("@alice:own.ns@alice", "mine"),
            ("x@alice", "a key of one character"),
            ("twitter.ns@alice", " a blank in front"),
            ("json.ns@alice", r#"{"a":"b:c","d":[1,2]}"#),
            ("data.ns@alice", "data:42"),
        ] {
            let commit: i64 = wire
                .data(&format!("update:{key} {value}"))
                .await
                .parse()
                .unwrap();
            assert!(commit > last, "{key}: {commit}");
            last = commit;
            // What begins with `data:` already is not doubled.
            let want = format!("data:{}", value.strip_prefix("data:").unwrap_or(value));
            assert_eq!(wire.ask(&format!("llookup:{key}")).await, want, "{key}");
        }
        let last = last.to_string();
        let stats = format!(r#"data: [{{"id":"3","name":"lastCommitID","value":"{last}"}}]"#);
        assert_eq!(wire.ask("stats:3").await, stats);
    });
}

#[test]
fn commands_that_make_no_sense_are_refused_in_good_form() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let mut other = Wire::login_for_json(&world, ALICE).await;
        for (command, code) in [
            ("lokup:public:phone@alice", "AT0003"),
            ("deete:phone@alice", "AT0003"),
            ("plookup:emoji-color@alice@@@", "AT0003"),
            ("update:public:key-1@alice", "AT0003"),
            ("update:public:country@@alice USA", "AT0003"),
            ("update:public:@device:invalid-key@alice v", "AT0003"),
            ("update:public:country,current@alice USA", "AT0016"),
            ("update:ttl:-1:x.ns@alice v", "AT0003"),
            ("update:ttl:abc:x.ns@alice v", "AT0003"),
            ("update:ttr:-2:x.ns@alice v", "AT0003"),
            ("update:x.ns@device v", "AT0016"),
            ("delete:privatekey:at_pkam_publickey", "AT0003"),
            ("scan@", "AT0003"),
            ("stats:-1", "AT0003"),
            ("sync:.buzz@", "AT0003"),
            ("sync .buzz@", "AT0003"),
            ("config:block:add:", "AT0003"),
            ("config:block:add:@@kevin", "AT0003"),
            ("config:block:list", "AT0003"),
            ("notify", "AT0003"),
        ] {
            let reply = wire.ask(command).await;
            assert!(
                reply.starts_with(&format!("error:{code}-")),
                "{command} → {reply}"
            );
            let reply = other.ask(command).await;
            let error = object(reply.strip_prefix("error:").unwrap());
            assert_eq!(text(&error, "errorCode"), code, "{command}");
            if code == "AT0003" {
                let why = text(&error, "errorDescription");
                assert!(why.contains("Invalid syntax"), "{command} → {why}");
            }
        }
    });
}

#[test]
fn metadata_counts_versions_and_keeps_when_it_began() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let mut born = String::new();
        for version in 0..3 {
            wire.ask(&format!("update:public:new.ns@alice {version}"))
                .await;
            let all = object(&wire.data("llookup:all:public:new.ns@alice").await);
            assert_eq!(text(&all, "key"), "public:new.ns@alice");
            assert_eq!(text(&all, "data"), version.to_string());
            let meta = inner(&all, "metaData");
            assert_eq!(number(&meta, "version"), version);
            for name in ["createdBy", "updatedBy"] {
                assert_eq!(text(&meta, name), ALICE);
            }
            let created = text(&meta, "createdAt");
            if version == 0 {
                born.clone_from(&created);
            }
            assert_eq!(created, born);
            // Both are written alike, so text compares as time does.
            assert!(text(&meta, "updatedAt") >= created);
        }
    });
}

#[test]
fn a_value_is_null_before_its_birth_and_after_its_life() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        wire.ask("update:ttl:300:ttb:300:@alice:code.ns@alice 1122")
            .await;
        wire.table(&[
            ("llookup:@alice:code.ns@alice", "data:null"),
            ("scan ns", "data:[]"),
        ])
        .await;
        wire.until("llookup:@alice:code.ns@alice", "data:1122")
            .await;
        wire.until("llookup:@alice:code.ns@alice", "data:null")
            .await;
        wire.table(&[("scan ns", "data:[]")]).await;
        wire.ask("update:ttl:60000:TTLkey.ns@alice v").await;
        wire.table(&[
            ("scan ns", r#"data:["ttlkey.ns@alice"]"#),
            (
                "llookup:meta:ttlkey.ns@alice",
                r#"data:{"createdBy":"@alice""#,
            ),
        ])
        .await;
        let meta = object(&wire.data("llookup:meta:ttlkey.ns@alice").await);
        assert_eq!(number(&meta, "ttl"), 60_000);
        assert!(text(&meta, "expiresAt") > text(&meta, "createdAt"));
    });
}

#[test]
fn deleting_twice_is_no_mistake_and_some_keys_stay() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        wire.ask("update:public:gone.ns@alice v").await;
        let first: i64 = wire
            .data("delete:public:gone.ns@alice")
            .await
            .parse()
            .unwrap();
        for n in 1..=3 {
            let again = wire.data("delete:public:gone.ns@alice").await;
            assert_eq!(again.parse(), Ok(first + n));
        }
        let protected = "error:AT0009-UnAuthorized client in request : Cannot delete protected key";
        wire.table(&[
            ("scan gone", "data:[]"),
            (
                "llookup:public:gone.ns@alice",
                "error:AT0015-key not found : public:gone.ns@alice does not exist in keystore",
            ),
            ("delete:public:signing_publickey@alice", protected),
            ("delete:@alice:signing_privatekey@alice", protected),
            ("delete:public:publickey@alice", protected),
            (
                "scan signing_publickey",
                r#"data:["public:signing_publickey@alice"]"#,
            ),
            (
                "scan signing_privatekey",
                r#"data:["@alice:signing_privatekey@alice"]"#,
            ),
            (
                "scan ^public:publickey",
                r#"data:["public:publickey@alice"]"#,
            ),
        ])
        .await;
    });
}

#[test]
fn sync_shows_each_key_once_and_what_matches() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let before: i64 = wire
            .data("update:public:zero@alice v")
            .await
            .parse()
            .unwrap();
        for n in 0..5 {
            wire.ask(&format!("update:place.persona@alice {n}")).await;
        }
        wire.ask("update:tweet.buzz@alice v").await;
        wire.ask("delete:tweet.buzz@alice").await;
        let all = wire.data(&format!("sync:from:{before}:limit:10")).await;
        let all: Vec<json::Object> = json::from_str(&all).unwrap();
        let seen: Vec<(String, String, u64)> = all
            .iter()
            .map(|one| {
                let (key, operation) = (text(one, "atKey"), text(one, "operation"));
                (key, operation, number(one, "commitId"))
            })
            .collect();
        let first = u64::try_from(before).unwrap();
        assert_eq!(
            seen,
            [
                ("place.persona@alice".into(), "*".to_owned(), first + 5),
                ("tweet.buzz@alice".into(), "-".to_owned(), first + 7),
            ]
        );
        assert_eq!(text(&all[0], "value"), "4");
        assert_eq!(text(&inner(&all[0], "metadata"), "version"), "4");
        let some = wire
            .data(&format!("sync:from:{before}:limit:5:.persona"))
            .await;
        assert!(some.contains("persona") && !some.contains("buzz"), "{some}");
        let last = first + 7;
        assert_eq!(
            wire.ask(&format!("sync:from:{last}:limit:5")).await,
            "data:[]"
        );
    });
}

#[test]
fn statistics_count_notifications_by_kind() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let all = wire.data("stats").await;
        assert!(all.starts_with(r#" [{"id":"#), "{all}");
        let count = async |wire: &mut Wire, group: &str, name: &str| {
            let all: Vec<json::Object> = json::from_str(&wire.data("stats:11").await).unwrap();
            assert_eq!(text(&all[0], "name"), "NotificationCount");
            number(&inner(&object(&text(&all[0], "value")), group), name)
        };
        for (command, counters) in [
            (
                "notify:update:@alice:country.ns@alice:UK",
                [
                    ("type", "received"),
                    ("operations", "update"),
                    ("messageType", "key"),
                ],
            ),
            (
                "notify:delete:@alice:country.ns@alice",
                [
                    ("type", "received"),
                    ("operations", "delete"),
                    ("status", "delivered"),
                ],
            ),
            (
                "notify:update:messageType:text:@device:hello",
                [
                    ("type", "sent"),
                    ("operations", "update"),
                    ("messageType", "text"),
                ],
            ),
            (
                "notify:update:@xxx:nobody.ns@alice:v",
                [
                    ("type", "sent"),
                    ("operations", "update"),
                    ("messageType", "key"),
                ],
            ),
        ] {
            let mut before = Vec::new();
            for (group, name) in counters {
                before.push(count(&mut wire, group, name).await);
            }
            wire.data(command).await;
            for ((group, name), before) in counters.into_iter().zip(before) {
                let now = count(&mut wire, group, name).await;
                assert_eq!(now, before + 1, "{command}: {group} {name}");
            }
        }
        let failed = async |wire: &mut Wire| count(wire, "status", "failed").await;
        while failed(&mut wire).await == 0 {}
    });
}

#[test]
fn the_block_list_is_added_to_and_taken_from() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        wire.table(&[
            ("config:block:show", "data:null"),
            ("config:block:add:@device", "data:success"),
            ("config:block:add:@device @alice", "data:success"),
            ("config:block:show", r#"data:["@device"]"#),
            ("config:block:remove:@device", "data:success"),
            ("config:block:show", "data:null"),
        ])
        .await;
        let blocked = "error:AT0013-Exception: Unable to connect";
        wire.ask("config:block:add:@device").await;
        let mut stranger = Wire::open(&world, ALICE).await;
        assert_eq!(stranger.ask(&format!("from:{DEVICE}")).await, blocked);
        assert_eq!(stranger.read().await, None);
    });
}

#[test]
fn the_server_says_what_it_is() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let info = object(&wire.data("info").await);
        let version = text(&info, "version");
        let parts: Vec<u32> = version
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect();
        assert!(parts >= vec![3, 0, 43], "{version}");
        assert!(text(&info, "uptimeAsWords").ends_with("seconds"));
        assert_eq!(info.get("apkam_metadata").map(drop), None);
        number(&object(&wire.data("info:brief").await), "uptimeAsMillis");
    });
}

#[test]
fn metadata_alone_is_changed_and_the_recipient_hears_of_it() {
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut device = Wire::login(&world, DEVICE).await;
        let first = alice
            .data("update:ttr:-1:ccd:true:@device:door.ns@alice open")
            .await;
        device
            .until("llookup:cached:@device:door.ns@alice", "data:open")
            .await;
        let second = alice
            .data(
                "update:meta:@device:door.ns@alice:ttl:60000:ttr:10:isEncrypted:true:ivNonce:IV==",
            )
            .await;
        assert!(second.parse::<i64>().unwrap() > first.parse().unwrap());
        for (wire, key) in [
            (&mut alice, "@device:door.ns@alice"),
            (&mut device, "cached:@device:door.ns@alice"),
        ] {
            let all = format!("llookup:all:{key}");
            let renewed = async {
                loop {
                    let all = object(&wire.data(&all).await);
                    let meta = inner(&all, "metaData");
                    if meta.contains_key("ttl") {
                        return (text(&all, "data"), meta);
                    }
                }
            };
            let (value, meta) = renewed.await;
            assert_eq!(value, "open", "{key}");
            assert_eq!(number(&meta, "ttl"), 60_000, "{key}");
            assert_eq!(number(&meta, "ttr"), 10, "{key}");
            assert_eq!(number(&meta, "version"), 1, "{key}");
            assert_eq!(text(&meta, "ivNonce"), "IV==", "{key}");
        }
        let sync = alice.data(&format!("sync:from:{first}:limit:9")).await;
        assert!(sync.contains("\"operation\":\"#\""), "{sync}");
        alice
            .table(&[
                ("update:meta:none.ns@alice:ttl:1", "error:AT0015-"),
                ("update:meta:door.ns@device:ttl:1", "error:AT0016-"),
                ("update:meta:door.ns@alice:ttl:x", "error:AT0003-"),
            ])
            .await;
    });
}

#[test]
fn all_metadata_items_are_shown_in_the_servers_order() {
    block_on(async {
        let mut world = World::start().await;
        let _server = world.serve_from_a_process().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let texts = [
            "dataSignature:A:sharedKeyStatus:B:isBinary:false:isEncrypted:true:sharedKeyEnc:C:pubKeyCS:D",
            "pubKeyHash:E:hashingAlgo:F:encoding:G:encKeyName:H:encAlgo:I:ivNonce:J:skeEncKeyName:K",
            "skeEncAlgo:L:appMetadata:M",
        ];
        let times = "cAt:2025-01-01T10:00:00.000Z:uAt:2025-01-02T10:00:00.000Z";
        let items = format!(
            "ttl:600000:ttb:0:ttr:-1:ccd:true:{times}:{}",
            texts.join(":")
        );
        wire.data(&format!("update:{items}:public:all.ns@alice v"))
            .await;
        let clear = "update:meta:public:all.ns@alice:encoding:null";
        wire.data(clear).await;
        let shown = wire.data("llookup:meta:public:all.ns@alice").await;
        let (_, behind) = shown.split_once(r#""status":"#).unwrap();
        assert_eq!(
            behind,
            concat!(
                r#""active","version":1,"ttl":600000,"ttb":0,"ttr":-1,"ccd":true,"isBinary":false,"#,
                r#""isEncrypted":true,"dataSignature":"A","sharedKeyStatus":"B","sharedKeyEnc":"C","#,
                r#""pubKeyCS":"D","encKeyName":"H","encAlgo":"I","ivNonce":"J","skeEncKeyName":"K","#,
                r#""skeEncAlgo":"L","appMetadata":"M","pubKeyHash":{"hash":"E","algo":"F"}}"#
            )
        );
        let synced = wire.data("sync:from:-1:limit:9:all.ns").await;
        assert!(
            synced.contains(concat!(
                r#""status":"active","version":"1","ttl":"600000","ttb":"0","ttr":"-1","ccd":"true","#,
                r#""isBinary":"false","isEncrypted":"true","dataSignature":"A","sharedKeyStatus":"B","#,
                r#""sharedKeyEnc":"C","pubKeyCS":"D","encKeyName":"H","encAlgo":"I","ivNonce":"J","#,
                r#""skeEncKeyName":"K","skeEncAlgo":"L","appMetadata":"M"}"#
            )),
            "{synced}"
        );
    });
}

#[test]
fn values_come_as_json_too() {
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        let mut device = Wire::login(&world, DEVICE).await;
        for (command, key, value) in [
            (
                r#"update:json:{"atKey":"one.ns","value":"v 1","sharedBy":"@alice","metadata":{"isPublic":true,"ttl":60000}}"#,
                "public:one.ns@alice",
                "v 1",
            ),
            (
                r#"update:json:{"atKey":"two.ns","value":"a:\"b\"","sharedBy":"@alice","sharedWith":"@device","metadata":{"ttr":-1}}"#,
                "@device:two.ns@alice",
                "a:\"b\"",
            ),
            (
                r#"update:json:{"atKey":"three.ns@alice","value":"v3"}"#,
                "three.ns@alice",
                "v3",
            ),
        ] {
            let commit = alice.data(command).await;
            assert!(commit.parse::<i64>().unwrap() > 1, "{command}");
            assert_eq!(alice.data(&format!("llookup:{key}")).await, value);
        }
        let copy = "llookup:cached:@device:two.ns@alice";
        device.until(copy, "data:a:\"b\"").await;
        alice
            .table(&[
                ("update:json:{}", "error:AT0003-"),
                ("update:json:{\"atKey\":\"x.ns\"", "error:AT0003-"),
                (
                    r#"update:json:{"atKey":"x.ns@device","value":"v"}"#,
                    "error:AT0016-",
                ),
            ])
            .await;
    });
}

#[test]
fn a_batch_is_answered_command_by_command() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let zero: i64 = wire.data("update:zero.ns@alice v").await.parse().unwrap();
        let batch = r#"batch:[{"id":1,"command":"update:a.ns@alice one"},{"id":2,"command":"update:a.ns@device two"},{"id":3,"command":"update:meta:a.ns@alice:ttl:9000"},{"id":4,"command":"otp:get"},{"id":5,"command":"delete:zero.ns@alice"}]"#;
        let all: Vec<json::Object> = json::from_str(&wire.data(batch).await).unwrap();
        let ids: Vec<u64> = all.iter().map(|one| number(one, "id")).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
        let said: Vec<String> = all
            .iter()
            .map(|one| {
                let said = inner(one, "response");
                let name = match said.contains_key("data") {
                    true => "data",
                    false => "error_code",
                };
                text(&said, name)
            })
            .collect();
        let commit = |n: i64| (zero + n).to_string();
        assert_eq!(
            said,
            [
                commit(1),
                "AT0016".into(),
                commit(2),
                "AT0003".into(),
                commit(3)
            ]
        );
        wire.table(&[
            ("llookup:a.ns@alice", "data:one"),
            ("llookup:zero.ns@alice", "error:AT0015-"),
            ("batch:[]", "data:[]"),
            ("batch:[1]", "error:AT0003-"),
        ])
        .await;
    });
}

#[test]
fn what_is_immutable_goes_by_force_only_or_by_its_end() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let refused = "error:AT0009-UnAuthorized client in request : ";
        let lock = "update:ttl:60000:immutable:true:lock.ns@alice one";
        wire.data(lock).await;
        wire.table(&[
            (lock, refused),
            ("update:lock.ns@alice two", refused),
            ("update:meta:lock.ns@alice:ttl:1", refused),
            ("delete:lock.ns@alice", refused),
            ("llookup:lock.ns@alice", "data:one"),
            ("delete:force:lock.ns@alice", "data:"),
            ("llookup:lock.ns@alice", "error:AT0015-"),
            ("delete:force:lock.ns@alice", "data:"),
            ("delete:force:public:publickey@alice", refused),
            ("update:ttl:300:immutable:true:lock.ns@alice three", "data:"),
        ])
        .await;
        wire.until("llookup:lock.ns@alice", "data:null").await;
        wire.data("update:lock.ns@alice four").await;
        assert_eq!(wire.data("llookup:lock.ns@alice").await, "four");
        // Somebody else's copy is one's own to throw away.
        let mut device = Wire::login(&world, DEVICE).await;
        wire.data("update:ttr:-1:immutable:true:@device:copy.ns@alice v")
            .await;
        let copy = "cached:@device:copy.ns@alice";
        device.until(&format!("llookup:{copy}"), "data:v").await;
        device.data(&format!("delete:{copy}")).await;
        let gone = device.ask(&format!("llookup:{copy}")).await;
        assert!(gone.starts_with("error:AT0015-"), "{gone}");
    });
}

#[test]
fn a_value_may_stand_for_another_keys() {
    block_on(async {
        let world = World::start().await;
        let mut alice = Wire::login(&world, ALICE).await;
        for command in [
            "update:public:home.ns@alice Hyderabad",
            "update:public:place.ns@alice atsign://home.ns@alice",
            "update:public:far.ns@alice atsign://place.ns@alice",
            "update:public:further.ns@alice atsign://far.ns@alice",
            "update:public:furthest.ns@alice atsign://further.ns@alice",
            "update:public:lost.ns@alice atsign://gone.ns@alice",
            "update:public:self.ns@alice atsign://self.ns@alice",
            "update:@device:place.ns@alice atsign://home.ns@alice",
            "update:@device:door.ns@alice atsign://code.ns@alice",
            "update:@device:code.ns@alice 1122",
            "update:public:sneaky.ns@alice atsign://secret.ns@alice",
            "update:@device:secret.ns@alice not for all",
        ] {
            alice.data(command).await;
        }
        let mut anybody = Wire::open(&world, ALICE).await;
        anybody
            .table(&[
                ("lookup:place.ns@alice", "data:Hyderabad"),
                ("lookup:further.ns@alice", "data:Hyderabad"),
                ("lookup:furthest.ns@alice", "data:null"),
                ("lookup:lost.ns@alice", "data:null"),
                ("lookup:self.ns@alice", "data:null"),
                ("lookup:sneaky.ns@alice", "data:null"),
            ])
            .await;
        let mut device = Wire::login(&world, DEVICE).await;
        device
            .table(&[
                ("lookup:place.ns@alice", "data:Hyderabad"),
                ("lookup:door.ns@alice", "data:1122"),
                ("plookup:far.ns@alice", "data:Hyderabad"),
            ])
            .await;
        // Whose it is sees what is written there.
        let own = alice.data("llookup:public:place.ns@alice").await;
        assert_eq!(own, "atsign://home.ns@alice");
    });
}

#[test]
fn every_statistic_has_its_number_and_name() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let mut stranger = Wire::open(&world, ALICE).await;
        wire.data("update:public:card.ns@alice for all").await;
        for _ in 0..3 {
            stranger.data("lookup:card.ns@alice").await;
        }
        // Who activated the atSign may not have been seen leaving yet.
        let two = r#"data: [{"id":"1","name":"activeInboundConnections","value":"2"}]"#;
        wire.until("stats:1", two).await;
        let all = wire.data("stats").await;
        let all: Vec<json::Object> = json::from_str(&all).unwrap();
        let names = [
            "activeInboundConnections",
            "activeOutboundConnections",
            "lastCommitID",
            "secondaryStorageSize",
            "topAtSigns",
            "topKeys",
            "secondaryServerVersion",
            "LastLoggedInDatetime",
            "diskSize",
            "LastPkam",
            "NotificationCount",
            "CommitLogCompactionStats",
            "AccessLogCompactionStats",
            "NotificationCompactionStats",
            "LatestCommitEntryOfEachKey",
            "activeInboundConnectionsSummary",
            "activeInboundConnectionsDetailed",
        ];
        assert_eq!(all.len(), names.len());
        for (n, (one, name)) in all.iter().zip(names).enumerate() {
            assert_eq!(text(one, "id"), (n + 1).to_string(), "{name}");
            assert_eq!(text(one, "name"), name);
        }
        let value = |id: usize| text(&all[id - 1], "value");
        assert_eq!(value(1), "2");
        assert_eq!(value(2), "0");
        assert!(number(&all[3], "value") > 1000, "some keys are kept");
        assert_eq!(value(5), "{}");
        assert_eq!(number(&object(&value(6)), "card.ns@alice"), 3);
        for date in [value(8), value(10)] {
            assert!(date.starts_with("20") && date.ends_with('Z'), "{date}");
        }
        assert!(value(9).contains(r#""units":"#), "{}", value(9));
        let Some(Value::Array(commit)) = object(&value(15)).remove("public:card.ns@alice") else {
            panic!("{}", value(15));
        };
        assert_eq!(json::to_string(&commit), format!("[{},\"*\"]", value(3)));
        let here = inner(&all[15], "value");
        for (name, want) in [("total", 2), ("self", 1), ("other", 0), ("anon", 1)] {
            assert_eq!(number(&here, name), want, "{name}");
        }
        let own = inner(&inner(&all[16], "value"), "self");
        let Some(Value::Array(list)) = own.get("list") else {
            panic!("no list");
        };
        let [Value::Object(one)] = &list[..] else {
            panic!("not one: {}", json::to_string(list));
        };
        assert_eq!(text(one, "from"), ALICE);
        assert!(text(one, "lastAccessed") >= text(one, "created"));
        // Some of them, each once; with a filter where there may be one.
        wire.table(&[
            (
                "stats:7,2,7",
                r#"data: [{"id":"7","name":"secondaryServerVersion","value":"3."#,
            ),
            (
                "stats:15:card",
                r#"data: [{"id":"15","name":"LatestCommitEntryOfEachKey","value":"{\"public:card.ns@alice\":["#,
            ),
            (
                "stats:3:nothing-like-it",
                r#"data: [{"id":"3","name":"lastCommitID","value":"null"}]"#,
            ),
            ("stats:18", "error:AT0003-"),
            ("stats:7:card", "error:AT0003-"),
        ])
        .await;
        assert_eq!(
            stranger.ask("stats:7").await,
            "error:AT0401-Exception: Command cannot be executed without auth"
        );
    });
}

#[test]
fn an_allow_list_shuts_out_who_is_not_on_it() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        wire.table(&[
            ("config:allow:show", "data:null"),
            ("config:allow:add:@device", "data:success"),
            ("config:allow:show", r#"data:["@device"]"#),
        ])
        .await;
        let says = async |who: &str| {
            let mut peer = Wire::open(&world, ALICE).await;
            peer.ask(&format!("from:{who}")).await
        };
        assert!(says(DEVICE).await.starts_with("data:proof:_"));
        assert!(says(ALICE).await.starts_with("data:_"), "the owner never");
        let blocked = "error:AT0013-Exception: Unable to connect";
        assert_eq!(says("@rendezvous").await, blocked);
        // Nor by any other way.
        let mut shut_out = Wire::login(&world, "@rendezvous").await;
        let id = shut_out.data("notify:@alice:x.ns@rendezvous:v").await;
        let status = format!("notify:status:{id}");
        shut_out.until(&status, "data:errored").await;
        wire.table(&[
            ("config:allow:remove:@device", "data:success"),
            ("config:allow:show", "data:null"),
            ("config:allow:add:@@x", "error:AT0003-"),
        ])
        .await;
        assert!(says("@rendezvous").await.starts_with("data:proof:_"));
    });
}

#[test]
fn settings_cannot_be_changed_by_a_client() {
    block_on(async {
        let world = World::start().await;
        let mut wire = Wire::login(&world, ALICE).await;
        let disabled = "data:testing mode disabled by default";
        wire.table(&[
            ("config:set:autoNotify=false", disabled),
            ("config:reset:inboundMaxLimit", disabled),
            ("config:print:maxNotificationRetries", disabled),
            ("config:set:everything=1", "error:AT0003-"),
            ("config:print:", "error:AT0003-"),
        ])
        .await;
    });
}
