use super::*;
use crate::at::vectors::{Vectors, at_protocol, noports};

fn pair(vectors: &Vectors, name: &str) -> KeyPair {
    let key = KeyPair::parse(&vectors.text(&format!("keys.{name}.private_pkcs8_base64")));
    let key = key.unwrap_or_else(|why| panic!("{name}: {why}"));
    assert_eq!(
        key.public().text,
        vectors.text(&format!("keys.{name}.public_spki_base64")),
        "{name}"
    );
    key
}

#[test]
fn aes_agrees_with_the_known_answers() {
    let vectors = at_protocol();
    let section = vectors.at("aes_256_ctr_pkcs7");
    let mut cases: Vec<(String, Vectors)> = section
        .list("cases")
        .into_iter()
        .map(|case| (section.text("key_base64"), case))
        .collect();
    let foreign = section.at("at_c_test_key");
    cases.push((foreign.text("key_base64"), foreign));
    assert_eq!(cases.len(), 11);
    for (key, case) in cases {
        let key = aes_key_from_base64(&key).unwrap();
        let iv = iv_from_base64(&case.text("iv_base64")).unwrap();
        let plain = case.text("plaintext_utf8");
        let cipher = case.text("ciphertext_base64");
        assert_eq!(encrypt(&key, &iv, &plain), cipher, "{plain:?}");
        assert_eq!(decrypt(&key, &iv, &cipher), Ok(plain));
    }
}

#[test]
fn what_is_no_cipher_text_is_refused() {
    let key = Secret::new([1; 32]);
    let sealed = |plain: &[u8]| {
        let mut bytes = plain.to_vec();
        Keystream::new(key.reveal(), &ZERO_IV).apply(&mut bytes);
        to_base64(&bytes)
    };
    for (why, text) in [
        ("empty", String::new()),
        ("not base64", "?".to_owned()),
        ("short", sealed(&[1])),
        ("padding 0", sealed(&[0; 16])),
        ("padding 17", sealed(&[17; 32])),
        ("uneven padding", sealed(b"0123456789abc\x01\x03\x03")),
        (
            "not text",
            sealed(b"\xff\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f"),
        ),
    ] {
        let got = decrypt(&key, &ZERO_IV, &text);
        assert_eq!(got, Err(CryptoError::Decrypt), "{why}");
    }
}

#[test]
fn rsa_opens_the_known_wrapped_keys() {
    let vectors = at_protocol();
    let cases = vectors.list("rsa_pkcs1v15_encryption.cases");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let key = KeyPair::parse(&vectors.text(&case.text("private_key"))).unwrap();
        let plain = key.unwrap(&case.text("ciphertext_base64")).unwrap();
        assert_eq!(*plain.reveal(), case.text("plaintext_utf8"));
    }
}

#[test]
fn rsa_opens_the_known_session_keys() {
    let vectors = noports();
    let wrap = vectors.at("sessionKeyWrap");
    let key = KeyPair::parse(&vectors.text("keys.session.privateKeyPkcs8Base64")).unwrap();
    for (sealed, plain) in [("sessionAESKey", "aesKeyBase64"), ("sessionIV", "ivBase64")] {
        let opened = key.unwrap(&wrap.text(sealed)).unwrap();
        assert_eq!(*opened.reveal(), wrap.text(plain), "{sealed}");
    }
    let expected: [u8; 32] = std::array::from_fn(|i| i as u8);
    let aes = aes_key_from_base64(&wrap.text("aesKeyBase64")).unwrap();
    assert_eq!(aes.reveal(), &expected);
}

#[test]
fn signatures_agree_with_the_known_answers() {
    let vectors = at_protocol();
    let pkam = vectors.at("pkam");
    let key = pair(&vectors, "alice_pkam");
    let challenge = pkam.text("challenge");
    let (short, long) = (
        pkam.text("signature_sha256_base64"),
        pkam.text("signature_sha512_base64"),
    );
    assert_eq!(key.sign(challenge.as_bytes()).unwrap(), short);
    let public = key.public();
    assert_eq!(public.verify(challenge.as_bytes(), &short), Ok(()));
    assert_eq!(public.verify_sha512(challenge.as_bytes(), &long), Ok(()));
    for (message, signature) in [(&b"other"[..], &short), (challenge.as_bytes(), &long)] {
        let got = public.verify(message, signature);
        assert_eq!(got, Err(CryptoError::Signature));
    }

    let data = vectors.at("public_data_signature");
    let signed = pair(&vectors, "alice_encryption").sign(data.text("value").as_bytes());
    assert_eq!(signed.unwrap(), data.text("signature_base64"));
}

#[test]
fn checksum_is_the_md5_of_the_text() {
    let vectors = at_protocol();
    let bob = pair(&vectors, "bob_encryption");
    assert_eq!(bob.public().checksum(), vectors.text("pub_key_cs.md5_hex"));
}

#[test]
fn cram_digest_is_over_secret_then_challenge() {
    let vectors = at_protocol();
    let cram = vectors.at("cram");
    assert_eq!(
        cram_digest(&cram.text("secret"), &cram.text("challenge")),
        cram.text("digest_hex")
    );
}

#[test]
fn a_made_key_pair_reads_back_and_fits_together() {
    let made = KeyPair::generate().unwrap();
    let read = KeyPair::parse(made.private_text().reveal()).unwrap();
    assert_eq!(read.public(), made.public());
    let public = PublicKey::parse(&made.public().text).unwrap();
    assert!(public.is_same_key(read.public()));
    let wrapped = public.wrap("hello").unwrap();
    assert_eq!(read.unwrap(&wrapped).unwrap().reveal(), "hello");
    let signature = read.sign(b"m").unwrap();
    assert_eq!(public.verify(b"m", &signature), Ok(()));
    assert_eq!(made.unwrap("AAAA").unwrap_err(), CryptoError::Decrypt);
}

#[test]
fn public_keys_of_another_size_are_refused() {
    for bits in [1024, 2047, 3072] {
        let key = RsaPrivateKey::new(&mut OsRng, bits).unwrap();
        let der = key.to_public_key().to_public_key_der().unwrap();
        let got = PublicKey::parse(&to_base64(der.as_bytes()));
        assert_eq!(got, Err(CryptoError::BadKey), "{bits} bits");
        let der = key.to_pkcs8_der().unwrap();
        let got = KeyPair::parse(&to_base64(der.as_bytes()));
        assert_eq!(got.unwrap_err(), CryptoError::BadKey, "{bits} bits");
    }
    assert_eq!(PublicKey::parse("AAAA"), Err(CryptoError::BadKey));
}

#[test]
fn secrets_do_not_show_in_debug() {
    let key = pair(&at_protocol(), "alice_pkam");
    assert_eq!(format!("{key:?}"), "KeyPair(***)");
}
