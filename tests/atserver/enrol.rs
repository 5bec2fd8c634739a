//! More devices for one atSign: `enroll`, `otp`, `keys`, and what each may see.

use async_std::task::block_on;
use miniserde::json::{self, Value};

use super::{Wire, object, text};
use crate::world::{ALICE, World, known_pair};

const OTHERS: &str =
    r#""encryptedDefaultEncryptionPrivateKey":"PRIV","encryptedDefaultSelfEncryptionKey":"SELF""#;

/// `enroll:request`; `more` stands between names and key, with a comma at its end.
fn request(world: &World, app: &str, namespaces: &str, more: &str) -> String {
    let keys = world.keys(ALICE);
    let public = &keys.pkam.public().text;
    format!(
        r#"enroll:request:{{"appName":"{app}","deviceName":"pixel","namespaces":{namespaces},{more}"apkamPublicKey":"{public}","encryptedAPKAMSymmetricKey":"SYM"}}"#
    )
}

fn about(id: &str) -> String {
    format!(r#"{{"enrollmentId":"{id}"}}"#)
}

fn approve(id: &str) -> String {
    format!(r#"enroll:approve:{{"enrollmentId":"{id}",{OTHERS}}}"#)
}

/// Asks with a fresh passcode of the owner's; the enrolment's id.
async fn pending(world: &World, owner: &mut Wire, app: &str, namespaces: &str) -> String {
    pending_with(world, owner, app, namespaces, "").await
}

async fn pending_with(
    world: &World,
    owner: &mut Wire,
    app: &str,
    namespaces: &str,
    more: &str,
) -> String {
    let code = owner.data("otp:get").await;
    let more = format!(r#""otp":"{code}",{more}"#);
    let mut device = Wire::open(world, ALICE).await;
    let answer = device.data(&request(world, app, namespaces, &more)).await;
    let answer = object(&answer);
    assert_eq!(text(&answer, "status"), "pending");
    text(&answer, "enrollmentId")
}

/// Logs in with an enrolment.
async fn login(world: &World, id: &str) -> (Wire, String) {
    let mut wire = Wire::open(world, ALICE).await;
    let reply = wire
        .pkam_with(&world.keys(ALICE), &format!("enrollmentId:{id}:"))
        .await;
    (wire, reply)
}

async fn approved(world: &World, owner: &mut Wire, app: &str, namespaces: &str) -> (String, Wire) {
    let id = pending(world, owner, app, namespaces).await;
    let answer = object(&owner.data(&approve(&id)).await);
    assert_eq!(text(&answer, "status"), "approved");
    let (wire, reply) = login(world, &id).await;
    assert_eq!(reply, "data:success");
    (id, wire)
}

#[test]
fn an_enrolment_is_in_one_state_and_moves_as_it_may() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let state =
            |word: &str, id: &str| format!(r#"data:{{"status":"{word}","enrollmentId":"{id}"}}"#);
        let refused = "error:AT0011-Internal server exception : ";

        let id = pending(&world, &mut owner, "one", r#"{"wavi":"rw"}"#).await;
        let (_, reply) = login(&world, &id).await;
        assert_eq!(
            reply,
            format!("error:AT0026:enrollment_id: {id} is pending")
        );
        for (command, start) in [
            (
                format!("enroll:revoke:{}", about(&id)),
                format!(
                    "{refused}Failed to revoke enrollment id: {id}. Cannot revoke a pending enrollment. Only approved enrollments can be revoked"
                ),
            ),
            (approve(&id), state("approved", &id)),
            (
                approve(&id),
                format!(
                    "{refused}Failed to approve enrollment id: {id}. Cannot approve a approved enrollment. Only pending enrollments can be approved"
                ),
            ),
            (format!("enroll:delete:{}", about(&id)), refused.to_owned()),
            (
                format!("enroll:revoke:{}", about(&id)),
                state("revoked", &id),
            ),
            (
                approve(&id),
                format!(
                    "{refused}Failed to approve enrollment id: {id}. Cannot approve a revoked enrollment. Only pending enrollments can be approved"
                ),
            ),
            (
                format!("enroll:unrevoke:{}", about(&id)),
                state("approved", &id),
            ),
        ] {
            let reply = owner.ask(&command).await;
            assert!(reply.starts_with(&start), "{command} → {reply}");
        }
        let (_, reply) = login(&world, &id).await;
        assert_eq!(reply, "data:success", "unrevoked");
        owner.ask(&format!("enroll:revoke:{}", about(&id))).await;
        let (_, reply) = login(&world, &id).await;
        assert_eq!(
            reply,
            format!("error:AT0027:enrollment_id: {id} is revoked")
        );

        let id = pending(&world, &mut owner, "two", r#"{"wavi":"rw"}"#).await;
        let deleted = format!(r#"data:{{"enrollmentId":"{id}","status":"deleted"}}"#);
        for (command, start) in [
            (format!("enroll:deny:{}", about(&id)), state("denied", &id)),
            (
                approve(&id),
                format!(
                    "{refused}Failed to approve enrollment id: {id}. Cannot approve a denied enrollment. Only pending enrollments can be approved"
                ),
            ),
            (
                format!("enroll:revoke:{}", about(&id)),
                format!(
                    "{refused}Failed to revoke enrollment id: {id}. Cannot revoke a denied enrollment. Only approved enrollments can be revoked"
                ),
            ),
        ] {
            let reply = owner.ask(&command).await;
            assert!(reply.starts_with(&start), "{command} → {reply}");
        }
        let (_, reply) = login(&world, &id).await;
        assert_eq!(reply, format!("error:AT0025:enrollment_id: {id} is denied"));
        assert_eq!(
            owner.ask(&format!("enroll:delete:{}", about(&id))).await,
            deleted
        );
        let gone = format!("error:AT0028:enrollment_id: {id} is expired or invalid");
        for command in [approve(&id), format!("enroll:deny:{}", about(&id))] {
            assert_eq!(owner.ask(&command).await, gone, "{command}");
        }
    });
}

#[test]
fn passcodes_open_the_door_once_or_for_a_while() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let invalid = "error:AT0011-Exception: invalid otp. Cannot process enroll request";
        let mut device = Wire::open(&world, ALICE).await;
        let reply = device
            .ask(&request(&world, "a", r#"{"wavi":"rw"}"#, ""))
            .await;
        assert!(reply.starts_with(invalid), "{reply}");

        assert_eq!(owner.ask("otp:put:ABC123").await, "data:ok");
        for app in ["b", "c"] {
            let reply = device
                .ask(&request(
                    &world,
                    app,
                    r#"{"wavi":"rw"}"#,
                    r#""otp":"ABC123","#,
                ))
                .await;
            assert!(reply.contains(r#""status":"pending""#), "{reply}");
        }
        // The same app on the same device cannot ask twice.
        let reply = device
            .ask(&request(
                &world,
                "c",
                r#"{"wavi":"rw"}"#,
                r#""otp":"ABC123","#,
            ))
            .await;
        assert!(
            reply.starts_with("error:AT0011-Exception: Another enrollment with id "),
            "{reply}"
        );

        let code = owner.data("otp:get").await;
        assert!(
            code.len() >= 6 && code.contains(|c: char| c.is_ascii_digit()),
            "{code}"
        );
        assert!(!code.contains(['0', 'O']), "{code}");
        let limit = "error:AT0011-Exception: Enrollment requests have exceeded the limit within the specified time frame";
        let last = request(
            &world,
            "d",
            r#"{"wavi":"rw"}"#,
            &format!(r#""otp":"{code}","#),
        );
        assert!(device.ask(&last).await.contains("pending"));
        assert_eq!(
            device.ask(&last).await,
            limit,
            "the sixth of this connection"
        );
        let mut other = Wire::open(&world, ALICE).await;
        let reply = other.ask(&last).await;
        assert!(
            reply.starts_with(invalid),
            "used up, but not limited: {reply}"
        );
    });
}

#[test]
fn managers_hear_of_a_request_and_others_do_not() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let mut monitor = Wire::login(&world, ALICE).await;
        monitor.monitor("monitor:selfNotifications __manage").await;
        let mut plain = Wire::login(&world, ALICE).await;
        plain.monitor("monitor").await;
        let id = pending(&world, &mut owner, "buzz", r#"{"buzz":"rw"}"#).await;
        let note = monitor.hear().await;
        assert_eq!(
            text(&note, "key"),
            format!("{id}.new.enrollments.__manage@alice")
        );
        let value = object(&text(&note, "value"));
        for (name, want) in [
            ("appName", "buzz"),
            ("deviceName", "pixel"),
            ("encryptedApkamSymmetricKey", "SYM"),
            ("encryptedAPKAMSymmetricKey", "SYM"),
        ] {
            assert_eq!(text(&value, name), want, "{name}");
        }
        // The first it hears is what comes afterwards.
        owner.data("notify:id:later:@alice:x.ns@alice:v").await;
        assert_eq!(text(&plain.hear().await, "id"), "later");
    });
}

#[test]
fn a_device_sees_its_namespaces_and_its_own_keys() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let before = owner.data("update:public:zero@alice v").await;
        let before: u64 = before.parse().unwrap();
        let (id, mut wire) =
            approved(&world, &mut owner, "wavi", r#"{"wavi":"rw","buzz":"r"}"#).await;
        for name in ["wavi", "buzz", "atmosphere"] {
            owner
                .data(&format!("update:@bob:phone.{name}@alice {name}"))
                .await;
            owner
                .data(&format!("update:public:card.{name}@alice {name}"))
                .await;
        }
        // Enrolling left no trace in the log that clients sync from.
        assert_eq!(
            owner.ask("stats:3").await,
            format!(
                r#"data: [{{"id":"3","name":"lastCommitID","value":"{}"}}]"#,
                before + 6
            )
        );
        let unauthorized = format!(
            "error:AT0009-UnAuthorized client in request : Connection with enrollment ID {id} is not authorized to"
        );
        for (command, start) in [
            ("llookup:@bob:phone.wavi@alice", "data:wavi"),
            ("llookup:@bob:phone.buzz@alice", "data:buzz"),
            ("llookup:@bob:phone.atmosphere@alice", unauthorized.as_str()),
            ("llookup:public:card.atmosphere@alice", "data:atmosphere"),
            ("update:@bob:phone.wavi@alice new", "data:"),
            ("update:@bob:phone.buzz@alice new", &unauthorized),
            ("update:x@alice no namespace", &unauthorized),
            ("update:@bob:shared_key@alice needed", "data:"),
            ("delete:@bob:phone.buzz@alice", &unauthorized),
            ("notify:@bob:phone.buzz@alice:v", &unauthorized),
            ("notify:@bob:phone.wavi@alice:v", "data:"),
            (
                &format!("llookup:{id}.new.enrollments.__manage@alice"),
                "error:AT0009-",
            ),
            ("otp:get", "error:AT0009-"),
            (
                "keys:get:self",
                &format!(r#"data:["{id}.default_self_enc_key.__manage@alice"]"#),
            ),
            (
                "keys:get:private",
                &format!(r#"data:["{id}.default_enc_private_key.__manage@alice"]"#),
            ),
            (
                &format!("keys:get:keyName:{id}.default_self_enc_key.__manage@alice"),
                r#"data:{"value":"SELF"}"#,
            ),
            (
                &format!("keys:get:keyName:{id}.default_enc_private_key.__manage@alice"),
                r#"data:{"value":"PRIV"}"#,
            ),
            (
                "keys:get:keyName:@alice:signing_privatekey@alice",
                "error:AT0015-",
            ),
            (
                &format!("enroll:fetch:{}", about(&id)),
                r#"data:{"appName":"wavi","deviceName":"pixel","namespace":{"buzz":"r","wavi":"rw"}"#,
            ),
        ] {
            let reply = wire.ask(command).await;
            assert!(reply.starts_with(start), "{command} → {reply}");
        }
        let scan: Vec<String> = json::from_str(&wire.data("scan (phone|card)").await).unwrap();
        let hidden = "@bob:phone.atmosphere@alice";
        assert_eq!(scan.len(), 5, "{scan:?}");
        assert!(!scan.iter().any(|key| key == hidden), "{scan:?}");
        let sync = wire.data(&format!("sync:from:{before}:limit:25")).await;
        assert!(
            sync.contains("phone.wavi") && !sync.contains("atmosphere"),
            "{sync}"
        );
        let info = object(&wire.data("info").await);
        let Some(Value::Object(apkam)) = info.get("apkam_metadata") else {
            panic!("no apkam_metadata in info");
        };
        assert_eq!(text(apkam, "appName"), "wavi");
        // The key that others look up.
        let public = object(
            &owner
                .data("llookup:public:wavi.pixel.pkam.__pkams.__public_keys@alice")
                .await,
        );
        assert_eq!(
            text(&public, "apkamPublicKey"),
            world.keys(ALICE).pkam.public().text
        );
        // It can log in as before, too.
        let mut wire = Wire::open(&world, ALICE).await;
        assert_eq!(wire.pkam(&world.keys(ALICE)).await, "data:success");
    });
}

#[test]
fn only_rights_one_has_can_be_given() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let (own, mut manager) = approved(
            &world,
            &mut owner,
            "manager",
            r#"{"wavi":"rw","__manage":"rw"}"#,
        )
        .await;
        let inside = pending(&world, &mut manager, "inside", r#"{"wavi":"r"}"#).await;
        let outside = pending(&world, &mut manager, "outside", r#"{"buzz":"rw"}"#).await;
        let refusal = "error:AT0009-UnAuthorized client in request : ";
        for (command, start) in [
            (approve(&inside), "data:"),
            (approve(&outside), refusal),
            (format!("enroll:deny:{}", about(&outside)), refusal),
            (format!("enroll:revoke:{}", about(&own)), "error:AT0031-"),
        ] {
            let reply = manager.ask(&command).await;
            assert!(reply.starts_with(start), "{command} → {reply}");
        }
        for (state, id) in [("approved", &inside), ("pending", &outside)] {
            let list = manager
                .data(&format!(
                    r#"enroll:list:{{"enrollmentStatusFilter":["{state}"]}}"#
                ))
                .await;
            let list = object(&list);
            let key = format!("{id}.new.enrollments.__manage@alice");
            let Some(Value::Object(found)) = list.get(&key) else {
                panic!("{key} is not listed as {state}");
            };
            assert_eq!(text(found, "status"), state);
        }
        let reply = manager
            .data(&format!("enroll:revoke:force:{}", about(&own)))
            .await;
        let reply = object(&reply);
        assert_eq!(text(&reply, "status"), "revoked");
        assert_eq!(
            text(&reply, "message"),
            "Enrollment is revoked. Closing the connection in 10 seconds"
        );
        let (_, reply) = login(&world, &own).await;
        assert_eq!(
            reply,
            format!("error:AT0027:enrollment_id: {own} is revoked")
        );
    });
}

#[test]
fn an_enrolment_that_ends_takes_its_connections_along() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let life = r#""apkamKeysExpiryInMillis":1000,"#;
        let id = pending_with(&world, &mut owner, "short", r#"{"wavi":"rw"}"#, life).await;
        owner.data(&approve(&id)).await;
        let (mut wire, reply) = login(&world, &id).await;
        assert_eq!(reply, "data:success");
        loop {
            wire.send("scan").await;
            match wire.read().await {
                Some(reply) => assert!(reply.starts_with("data:["), "{reply}"),
                None => break,
            }
        }
        let (_, reply) = login(&world, &id).await;
        assert_eq!(
            reply,
            format!("error:AT0028:enrollment_id: {id} is expired or invalid")
        );

        // Revoking ends them at once.
        let (id, mut wire) = approved(&world, &mut owner, "long", r#"{"wavi":"rw"}"#).await;
        owner.data(&format!("enroll:revoke:{}", about(&id))).await;
        assert_eq!(wire.read().await, None);
    });
}

#[test]
fn a_device_keeps_keys_here_for_itself_alone() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let (id, mut wire) = approved(&world, &mut owner, "wavi", r#"{"wavi":"rw"}"#).await;
        let (_, mut other) = approved(&world, &mut owner, "buzz", r#"{"buzz":"rw"}"#).await;
        let before = owner.data("stats:3").await;
        let private = "private:wavi.pixel.mine.__private_keys.__global@alice";
        let own = "wavi.pixel.mine.__self_keys.wavi@alice";
        let public = "public:enc.__public_keys.__global@alice";
        let put = "keys:put:private:namespace:__global:appName:wavi:deviceName:pixel:keyType:aes256:encryptionKeyName:k0:keyName:mine S3CRET text";
        let stored = format!(
            r#"data:{{"value":"S3CRET text","keyType":"aes256","enrollmentId":"{id}","encryptionKeyName":"k0"}}"#
        );
        let default = |name: &str| format!("{id}.default_{name}.__manage@alice");
        let own_list = format!(r#"data:["{own}","{}"]"#, default("self_enc_key"));
        let private_list = format!(r#"data:["{private}","{}"]"#, default("enc_private_key"));
        wire.table(&[
            (put, "data:-1"),
            (
                "keys:put:self:namespace:wavi:appName:wavi:deviceName:pixel:keyName:mine X",
                "data:-1",
            ),
            (
                "keys:put:public:namespace:__global:keyType:rsa2048:keyName:enc PUB",
                "data:-1",
            ),
            (&format!("keys:get:keyName:{private}"), stored.as_str()),
            ("keys:get:private", &private_list),
            ("keys:get:self", &own_list),
            ("keys:get:public", &format!(r#"data:["{public}"]"#)),
            ("keys:get", "data:[]"),
            (
                "keys:put:public:namespace:__manage:keyName:x v",
                "error:AT0009-",
            ),
            (
                "keys:put:public:namespace:buzz:keyName:x v",
                "error:AT0009-",
            ),
            ("keys:put:public:keyName:x v", "error:AT0003-"),
            (
                "keys:put:private:namespace:__global:keyName:x v",
                "error:AT0003-",
            ),
            (
                "keys:put:public:namespace:__global:keyName:x@bob v",
                "error:AT0003-",
            ),
            (
                "keys:put:public:namespace:__global:keyName:x",
                "error:AT0022-",
            ),
        ])
        .await;
        let gone = "error:AT0015-";
        other
            .table(&[
                (put, "error:AT0009-"),
                (&format!("keys:get:keyName:{private}"), gone),
                (&format!("keys:delete:keyName:{public}"), gone),
                (
                    &format!("keys:get:keyName:{}", default("self_enc_key")),
                    gone,
                ),
                ("keys:delete:keyName:privatekey:at_pkam_publickey", gone),
                ("keys:get:public", "data:[]"),
            ])
            .await;
        owner
            .table(&[
                (put, "error:AT0011-"),
                ("keys:get:public", "error:AT0011-"),
                (&format!("llookup:{private}"), "error:AT0003-"),
            ])
            .await;
        let mut anybody = Wire::open(&world, ALICE).await;
        let look = "lookup:enc.__public_keys.__global@alice";
        let seen = anybody.data(look).await;
        assert_eq!(text(&object(&seen), "value"), "PUB");
        // Replaced and deleted by whoever put it; none of it is for other devices to sync.
        wire.table(&[
            (
                "keys:put:public:namespace:__global:keyName:enc PUB2",
                "data:-1",
            ),
            (&format!("keys:delete:keyName:{private}"), "data:-1"),
            (&format!("keys:get:keyName:{private}"), gone),
            (&format!("keys:delete:keyName:{private}"), gone),
        ])
        .await;
        assert_eq!(owner.data("stats:3").await, before);
        // With the enrolment its keys go.
        owner.data(&format!("enroll:revoke:{}", about(&id))).await;
        owner.data(&format!("enroll:delete:{}", about(&id))).await;
        assert!(anybody.ask(look).await.starts_with(gone));
        assert!(owner.ask(&format!("llookup:{own}")).await.starts_with(gone));
    });
}

#[test]
fn a_device_changes_its_own_enrolment_and_proves_that_the_new_key_is_its_own() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let (id, mut wire) = approved(&world, &mut owner, "wavi", r#"{"wavi":"rw"}"#).await;
        let (other, _) = approved(&world, &mut owner, "buzz", r#"{"buzz":"rw"}"#).await;
        let new = known_pair("session");
        let public = &new.public().text;
        let signed = format!("{id}|{public}|rsa2048");
        let good = new.sign(signed.as_bytes()).unwrap();
        let bad = world.keys(ALICE).pkam.sign(signed.as_bytes()).unwrap();
        let update = |more: &str| format!(r#"enroll:update:{{"enrollmentId":"{id}",{more}}}"#);
        let key = |proof: &str| {
            update(&format!(
                r#""apkamPublicKey":"{public}","signingAlgo":"rsa2048","apkamPublicKeySignature":"{proof}""#
            ))
        };
        let done = format!(r#"data:{{"enrollmentId":"{id}","status":"approved"}}"#);
        let refused = "error:AT0011-";
        // Not even the owner does this for it.
        for command in [key(&good), update(r#""metadata":{"a":1}"#)] {
            let reply = owner.ask(&command).await;
            assert!(reply.starts_with(refused), "{command} → {reply}");
        }
        let for_other = key(&good).replace(&id, &other);
        let without = update(&format!(r#""apkamPublicKey":"{public}""#));
        for (command, start) in [
            (for_other, refused),
            (without, refused),
            (key(&bad), refused),
            (update(r#""signingAlgo":"rsa2048""#), refused),
            (update(r#""apsk":{},"apskLegacy":"x""#), refused),
            (update(r#""metadata":[]"#), "error:AT0003-"),
            (update(r#""metadata":{"a":1,"b":{"c":"d"}}"#), &done),
            (
                update(r#""metadata":{"a":"two"},"namespaces":{"*":"rw"}"#),
                &done,
            ),
            (update(r#""apskLegacy":"SIGNING""#), &done),
            (key(&good), &done),
        ] {
            let reply = wire.ask(&command).await;
            assert!(reply.starts_with(start), "{command} → {reply}");
        }
        let fetched = wire.data(&format!("enroll:fetch:{}", about(&id))).await;
        let member = r#""metadata":{"a":"two","b":{"c":"d"}}"#;
        assert!(fetched.contains(member), "{fetched}");
        assert!(
            fetched.contains(r#""namespace":{"wavi":"rw"}"#),
            "{fetched}"
        );
        let published = format!("plookup:_apsk.{id}.a.__e@alice");
        assert_eq!(owner.ask(&published).await, "data:SIGNING");
        // From now on the new key logs in, and the old one does not.
        let (_, reply) = login(&world, &id).await;
        assert!(reply.starts_with("error:AT0401-"), "{reply}");
        let mut again = Wire::open(&world, ALICE).await;
        let challenge = again.data("from:@alice").await;
        let signature = new.sign(challenge.as_bytes()).unwrap();
        let reply = again
            .ask_any(&format!("pkam:enrollmentId:{id}:{signature}"))
            .await;
        assert_eq!(reply, "data:success\n@alice@");
    });
}

#[test]
fn who_has_a_namespace_is_told_to_who_has_it() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        let (one, mut wire) = approved(&world, &mut owner, "one", r#"{"wavi":"rw"}"#).await;
        let (two, _) = approved(&world, &mut owner, "two", r#"{"wavi":"r","buzz":"rw"}"#).await;
        pending(&world, &mut owner, "three", r#"{"wavi":"rw"}"#).await;
        wire.data(&format!(
            r#"enroll:update:{{"enrollmentId":"{one}","metadata":{{"k":"v"}}}}"#
        ))
        .await;
        let first = object(
            &owner
                .data(r#"enroll:list:{"enrollmentStatusFilter":["approved"]}"#)
                .await,
        )
        .into_iter()
        .find_map(|(key, value)| {
            let all = json::to_string(&value).contains(r#""*":"rw""#);
            all.then(|| key.split('.').next().unwrap().to_owned())
        })
        .expect("a first device");
        let roster = |text: String| -> Vec<(String, String)> {
            let all: Vec<json::Object> = json::from_str(&text).unwrap();
            let mut all: Vec<_> = all
                .iter()
                .map(|one| (super::text(one, "enrollmentId"), super::text(one, "access")))
                .collect();
            // The first device, which has everything.
            all.retain(|(id, _)| *id != first);
            all.sort();
            all
        };
        let mut want = vec![
            (one.clone(), "rw".to_owned()),
            (two.clone(), "r".to_owned()),
        ];
        want.sort();
        for (who, namespace) in [("wire", "wavi"), ("wire", "data.wavi"), ("owner", "wavi")] {
            let asks = match who {
                "wire" => &mut wire,
                _ => &mut owner,
            };
            let listed = asks.data(&format!("enroll:listns:{namespace}")).await;
            assert!(listed.contains(r#""metadata":{"k":"v"}"#), "{listed}");
            assert!(listed.contains(r#""metadata":null"#), "{listed}");
            assert!(listed.contains(&world.keys(ALICE).pkam.public().text));
            assert_eq!(roster(listed), want, "{who} {namespace}");
        }
        wire.table(&[
            ("enroll:listns:buzz", "error:AT0009-"),
            ("enroll:infons:buzz", "error:AT0009-"),
            ("enroll:listns:", "error:AT0003-"),
            ("enroll:infons:wavi", r#"data:{"lastRevokedAt":null}"#),
        ])
        .await;
        owner.data(&format!("enroll:revoke:{}", about(&two))).await;
        let listed = wire.data("enroll:listns:wavi").await;
        assert_eq!(roster(listed), [(one, "rw".to_owned())]);
        let info = object(&wire.data("enroll:infons:wavi").await);
        let last = text(&info, "lastRevokedAt");
        assert!(last.contains('T') && last.ends_with('Z'), "{last}");
    });
}
