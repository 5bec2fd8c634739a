//! ○ What stands in the authority's certificates, and which of several is a key's own.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber,
};

use super::error::AuthorityError;

const END_OF_PEM: &str = "-----END CERTIFICATE-----";

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
/// Certificates begin this long before they are made, for clients whose clock is slow.
pub(super) const SLOW_CLOCKS: Duration = DAY;

const AUTHORITY_DAYS: u32 = 20 * 365;

/// 2024-01-01 in seconds since 1970. A clock before it was never set.
const CLOCK_FLOOR: Duration = Duration::from_secs(1_704_067_200);

/// The given names and this machine's own, each once.
pub(super) fn all_names(given: &[String]) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    let own = ["localhost", "127.0.0.1", "::1"];
    for name in given.iter().map(String::as_str).chain(own) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The name and uses of the authority. All of it follows from the key, so that a certificate need
/// not be read back to sign with it.
pub(super) fn authority_params(key: &KeyPair) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    date(&mut params, AUTHORITY_DAYS, SystemTime::now())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, authority_name(key));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial(key));
    Ok(params)
}

fn fingerprint(key: &KeyPair) -> impl AsRef<[u8]> {
    ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info())
}

/// Two authorities have different names: some TLS libraries choose by name.
fn authority_name(key: &KeyPair) -> String {
    let short: String = fingerprint(key).as_ref()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("noports authority {short}")
}

/// Unique because the key is: a serial number must not come twice from one authority.
pub(super) fn serial(key: &KeyPair) -> SerialNumber {
    let mut bytes = fingerprint(key).as_ref()[..16].to_vec();
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and never shortened
    SerialNumber::from(bytes)
}

/// Valid from a day before `now` until this many days after.
pub(super) fn date(
    params: &mut CertificateParams,
    days: u32,
    now: SystemTime,
) -> Result<(), AuthorityError> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .filter(|now| *now > CLOCK_FLOOR)
        .ok_or(AuthorityError::Clock)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - SLOW_CLOCKS);
    params.not_after = epoch + (now + DAY * days);
    Ok(())
}

/// The certificate that is this key's and names it as we would, in PEM.
pub(super) fn own_certificate(
    ca_pem: &str,
    key: &KeyPair,
    key_file: &Path,
    ca_file: &Path,
) -> Result<String, AuthorityError> {
    let certs = rustls_pemfile::certs(&mut ca_pem.as_bytes()).unwrap_or_default();
    if certs.is_empty() {
        return Err(AuthorityError::BadCertificate(ca_file.to_owned()));
    }
    let (public, name) = (key.subject_public_key_info(), authority_name(key));
    let pems = ca_pem.split_inclusive(END_OF_PEM);
    for (der, pem) in certs.iter().zip(pems) {
        let holds = |part: &[u8]| der.windows(part.len()).any(|window| window == part);
        if holds(&public) && holds(name.as_bytes()) {
            return Ok(pem.trim_start().to_owned() + "\n");
        }
    }
    Err(AuthorityError::Mismatch {
        cert: ca_file.to_owned(),
        key: key_file.to_owned(),
    })
}
