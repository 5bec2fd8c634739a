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
