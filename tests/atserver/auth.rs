//! Logging in: `from`, `cram`, `pkam`, again and again, with every kind of key.

use async_std::task::block_on;
use noports::at::crypto::{cram_digest, to_base64};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};

use super::Wire;
use crate::world::{ALICE, World, known_pair};

#[test]
fn one_connection_may_log_in_again_and_again_in_either_form() {
    block_on(async {
        let world = World::start().await;
        let keys = world.keys(ALICE);
        let mut wire = Wire::open(&world, ALICE).await;
        for round in 0..10 {
            let form = ["", "signingAlgo:rsa2048:hashingAlgo:sha256:"][round % 2];
            assert_eq!(
                wire.pkam_with(&keys, form).await,
                "data:success",
                "{round} {form}"
            );
            assert_eq!(wire.ask("noop:0").await, "data:ok", "{round}");
        }
        // An algorithm that does not exist, and one that the signature is not made with.
        for form in [
            "signingAlgo:rsa2047:hashingAlgo:sha256:",
            "hashingAlgo:sha512:",
        ] {
            let reply = wire.pkam_with(&keys, form).await;
            assert_eq!(
                reply, "error:AT0401-Exception: pkam authentication failed",
                "{form}"
            );
        }
        assert_eq!(
            wire.ask("llookup:x.ns@alice").await,
            "error:AT0401-Exception: Command cannot be executed without auth"
        );
    });
}

#[test]
fn a_login_key_may_be_replaced_even_by_one_of_another_kind() {
    block_on(async {
        let world = World::start().await;
        let secret = world.add("@carol").await;
        let mut wire = Wire::open(&world, "@carol").await;
        let cram = async |wire: &mut Wire| {
            let challenge = wire.ask_any("from:carol").await;
            let challenge = challenge.lines().next().unwrap().strip_prefix("data:");
            let digest = cram_digest(secret.reveal(), challenge.unwrap());
            let reply = wire.ask_any(&format!("cram:{digest}")).await;
            assert_eq!(reply, "data:success\n@carol@");
            wire.expect_prompt("@carol@");
        };
        cram(&mut wire).await;
        let rsa = known_pair("session");
        let update = format!("update:privatekey:at_pkam_publickey {}", rsa.public().text);
        assert_eq!(wire.ask(&update).await, "data:-1");

        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, pair.as_ref(), &random).unwrap();
        let public = hex(pair.public_key().as_ref());
        let update = format!("update:privatekey:at_pkam_publickey {public}");
        assert_eq!(wire.ask(&update).await, "data:-1");
        let challenge = wire.data("from:@carol").await;
        let signature = pair.sign(&random, challenge.as_bytes()).unwrap();
        let signature = to_base64(hex(signature.as_ref()).as_bytes());
        let pkam = format!("pkam:signingAlgo:ecc_secp256r1:hashingAlgo:sha256:{signature}");
        assert_eq!(wire.ask(&pkam).await, "data:success");
        cram(&mut wire).await;
    });
}

#[test]
fn strangers_see_what_is_public_and_nothing_else() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        owner.ask("update:public:card.ns@alice for all").await;
        owner.ask("update:diary.ns@alice for me").await;
        let mut wire = Wire::open(&world, ALICE).await;
        wire.table(&[
            ("scan ns", r#"data:["card.ns@alice"]"#),
            ("lookup:card.ns@alice", "data:for all"),
            ("lookup:diary.ns@alice", "error:AT0015-Exception: "),
            ("llookup:diary.ns@alice", "error:AT0401-"),
            (
                "keys:get:self",
                "error:AT0401-Exception: Command cannot be executed without auth",
            ),
            (
                "keys:put:public:namespace:__global:keyType:rsa2048:keyName:encryption_1 v",
                "error:AT0401-Exception: Command cannot be executed without auth",
            ),
            ("enroll:deny:{\"enrollmentId\":\"1\"}", "error:AT0401-"),
            ("enroll:approve:{\"enrollmentId\":\"1\"}", "error:AT0401-"),
            ("info:brief", r#"data:{"version":"3."#),
        ])
        .await;
    });
}

#[test]
fn a_client_that_says_goodbye_is_let_go_without_a_word() {
    block_on(async {
        let world = World::start().await;
        let (stranger, owner) = (Wire::open(&world, ALICE), Wire::login(&world, ALICE));
        for mut wire in [stranger.await, owner.await] {
            wire.send("@exit").await;
            assert_eq!(wire.read().await, None);
        }
    });
}
