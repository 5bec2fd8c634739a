//! ○ Records: one direction of a session, so that nobody between the two ends can read, change, leave out, repeat or end it
//! without being found out.
//!
//! ```text
//!   one record    length (2 bytes, big-endian)     of what follows: 17 … 16,401
//!                 sealed( kind (1 byte) │ content (0 … 16,384 bytes) ) │ tag (16 bytes)
//!
//!   the whole     HELLO  DATA*  (NEXT_KEY DATA*)*  END          HELLO and END are empty, and are authenticated as all is
//! ```
//! The two length bytes are authenticated with the rest. The nonce is the number of the record under its key, four zero
//! bytes and eight big-endian ones; it is never sent, so a record that is missing, repeated or out of its order opens
//! nowhere. Each direction has its own secret, so what one end sent is no record for itself either.
//!
//! | what | from | value |
//! | --- | --- | --- |
//! | key of epoch n | HKDF-Expand-SHA-256(secret n, `noports record key`) | 32 bytes |
//! | secret of epoch n + 1 | HKDF-Expand-SHA-256(secret n, `noports record next`) | 32 bytes |
//! | epoch's end | NEXT_KEY, the last record under its key | at most [`EPOCH_RECORDS`] records or [`EPOCH_TIME`] |
//!
//! An old key and its secret are erased, so who learns a later one reads nothing of what was before. The first record that
//! opens shows that both ends have the same keys. A stream that is over without END was cut on the way.
//!
//! | what came | verdict |
//! | --- | --- |
//! | a length below 17 or above 16,401 | [`RecordError::Length`], before anything is kept of it |
//! | a first record that does not open | [`RecordError::OtherKeys`] |
//! | a later one that does not open | [`RecordError::Changed`] |
//! | one that opens, but is due at another time, or of no known kind | [`RecordError::Order`] |
//! | anything behind END | [`RecordError::Order`] |
//! | the end of the bytes without END | [`RecordError::Cut`] |

use std::{
    fmt,
    ops::Range,
    time::{Duration, Instant},
};

use ring::{
    aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk},
};

use super::cipher::Side;
use crate::secret::Secret;

/// Most bytes of content in one record.
pub const MAX_CONTENT: usize = 16 * 1024;
/// What a record is longer than its content: length, kind, tag.
pub const OVERHEAD: usize = LENGTH + KIND + TAG;
/// Most records under one key. AES-GCM bears sixteen times as many of this size.
pub const EPOCH_RECORDS: u64 = 1 << 20;
/// Longest use of one key.
pub const EPOCH_TIME: Duration = Duration::from_secs(3600);

const LENGTH: usize = 2;
const KIND: usize = 1;
const TAG: usize = 16;
const KEY_LABEL: &[u8] = b"noports record key";
const NEXT_LABEL: &[u8] = b"noports record next";

/// How records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Where the machine computes AES by itself.
    Aes256Gcm,
    /// Faster everywhere else.
    ChaCha20Poly1305,
}

impl Suite {
    /// As it stands in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes256gcm",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Aes256Gcm, Self::ChaCha20Poly1305];
        all.into_iter().find(|suite| suite.name() == name)
    }

    /// What suits both ends: AES where it is the faster one for both.
    pub fn common(self, other: Self) -> Self {
        if self == other {
            self
        } else {
            Self::ChaCha20Poly1305
        }
    }

    /// The faster one on this machine.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_aes = is_x86_feature_detected!("aes");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The first one.
    Hello = 1,
    /// Bytes of the stream.
    Data = 2,
    /// The last one under this key.
    NextKey = 3,
    /// The last one.
    End = 4,
}

/// Why a direction cannot go on. Nothing of the record at fault has been given to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No record is so short or so long.
    #[error("what came from the other end is no record of this session")]
    Length,
    /// The first one does not open.
    #[error(
        "the other end does not have this session's keys, or somebody in between has changed what it sent"
    )]
    OtherKeys,
    /// A later one does not open.
    #[error("what the other end sent was changed on the way")]
    Changed,
    /// Authentic, and not allowed here.
    #[error("the other end sent a record that is not due")]
    Order,
    /// No END.
    #[error(
        "the stream was cut on the way: the rendezvous has closed it, or the program at the other end has died"
    )]
    Cut,
}

/// The key of one epoch, and where the next one comes from.
struct Epoch {
    suite: Suite,
    secret: Secret<[u8; 32]>,
    key: LessSafeKey,
    /// Number of the next record.
    record: u64,
}

impl Epoch {
    fn new(suite: Suite, secret: Secret<[u8; 32]>) -> Self {
        let key = Secret::new(expand(secret.reveal(), KEY_LABEL));
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key =
            UnboundKey::new(algorithm, key.reveal()).expect("32 bytes are a key of both suites");
        Self {
            suite,
            secret,
            key: LessSafeKey::new(key),
            record: 0,
        }
    }

    fn next(&self) -> Self {
        Self::new(
            self.suite,
            Secret::new(expand(self.secret.reveal(), NEXT_LABEL)),
        )
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.record.to_be_bytes());
        self.record += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// HKDF-Expand to 32 bytes.
fn expand(secret: &[u8; 32], label: &[u8]) -> [u8; 32] {
    struct Bytes32;
    impl KeyType for Bytes32 {
        fn len(&self) -> usize {
            32
        }
    }
    let mut out = [0; 32];
    let prk = Prk::new_less_safe(HKDF_SHA256, secret);
    let filled = prk
        .expand(&[label], Bytes32)
        .and_then(|okm| okm.fill(&mut out));
    filled.expect("HKDF gives up to 8,160 bytes");
    out
}

/// The two secrets of a session, one for each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordKeys {
    /// How records are sealed.
    pub suite: Suite,
    /// What the client sends.
    pub to_device: Secret<[u8; 32]>,
    /// What the device sends.
    pub to_client: Secret<[u8; 32]>,
}

impl RecordKeys {
    /// What this end sends with, and what it hears with.
    pub fn ends(&self, side: Side) -> (Sealer, Opener) {
        let (ours, theirs) = match side {
            Side::Client => (&self.to_device, &self.to_client),
            Side::Device => (&self.to_client, &self.to_device),
        };
        (
            Sealer::new(self.suite, ours.clone()),
            Opener::new(self.suite, theirs.clone()),
        )
    }
}

/// Makes the records of one direction.
pub struct Sealer {
    epoch: Epoch,
    since: Option<Instant>,
}

impl Sealer {
    /// From the first one.
    pub fn new(suite: Suite, secret: Secret<[u8; 32]>) -> Self {
        Self {
            epoch: Epoch::new(suite, secret),
            since: None,
        }
    }

    /// Appends the records for these bytes of the stream to `out`; before the first of all, it says hello.
    pub fn seal(&mut self, content: &[u8], now: Instant, out: &mut Vec<u8>) {
        self.hello(now, out);
        for piece in content.chunks(MAX_CONTENT) {
            self.seal_one(&[], piece, now, out);
        }
    }

    /// Appends one record with these two parts, which have together at most [`MAX_CONTENT`] bytes, and not none.
    pub fn seal_one(&mut self, head: &[u8], body: &[u8], now: Instant, out: &mut Vec<u8>) {
        debug_assert!((1..=MAX_CONTENT).contains(&(head.len() + body.len())));
        self.hello(now, out);
        let is_old = self
            .since
            .is_some_and(|since| now.duration_since(since) >= EPOCH_TIME);
        if is_old || self.epoch.record + 1 >= EPOCH_RECORDS {
            self.append(Kind::NextKey, &[], &[], out);
            self.epoch = self.epoch.next();
            self.since = Some(now);
        }
        self.append(Kind::Data, head, body, out);
    }

    /// The first record, if it has not been.
    pub(super) fn hello(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.since.is_none() {
            self.since = Some(now);
            self.append(Kind::Hello, &[], &[], out);
        }
    }

    /// Appends the end, which is the last.
    pub fn end(mut self, now: Instant, out: &mut Vec<u8>) {
        self.hello(now, out);
        self.append(Kind::End, &[], &[], out);
    }

    fn append(&mut self, kind: Kind, head: &[u8], body: &[u8], out: &mut Vec<u8>) {
        let length = (KIND + head.len() + body.len() + TAG) as u16;
        let length = length.to_be_bytes();
        out.extend_from_slice(&length);
        let start = out.len();
        out.push(kind as u8);
        out.extend_from_slice(head);
        out.extend_from_slice(body);
        let nonce = self.epoch.nonce();
        let sealed =
            self.epoch
                .key
                .seal_in_place_separate_tag(nonce, Aad::from(length), &mut out[start..]);
        out.extend_from_slice(
            sealed
                .expect("a record is far below the ciphers' limit")
                .as_ref(),
        );
    }
}

/// Where in a stream of records one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Hello,
    More,
    Nothing,
    /// Whatever comes behind a record at fault fails as that did.
    Failed(RecordError),
}

/// Opens the records of one direction.
pub struct Opener {
    epoch: Epoch,
    due: Due,
}

/// What [`Opener::open`] has made of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// So many bytes of the stream stand at the front.
    pub content: usize,
    /// Here stands the beginning of a record of which more has to come.
    pub rest: Range<usize>,
}

impl Opener {
    /// From the first one.
    pub fn new(suite: Suite, secret: Secret<[u8; 32]>) -> Self {
        Self {
            epoch: Epoch::new(suite, secret),
            due: Due::Hello,
        }
    }

    /// Opens all whole records in place, and moves their contents together to the front.
    ///
    /// # Errors
    /// Then none of these bytes are to be used, and nothing opens any more.
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Opened, RecordError> {
        let opened = self.open_all(bytes);
        if let Err(error) = opened {
            self.due = Due::Failed(error);
        }
        opened
    }

    fn open_all(&mut self, bytes: &mut [u8]) -> Result<Opened, RecordError> {
        if let Due::Failed(error) = self.due {
            return Err(error);
        }
        let (mut content, mut at) = (0, 0);
        while let Some(length) = next_length(&bytes[at..])? {
            let sealed = at + LENGTH;
            let Some(record) = bytes.get_mut(content..sealed + length) else {
                break;
            };
            content += self.open_one(record, sealed - content)?;
            at = sealed + length;
        }
        if self.due == Due::Nothing && at < bytes.len() {
            return Err(RecordError::Order);
        }
        Ok(Opened {
            content,
            rest: at..bytes.len(),
        })
    }

    /// The record stands at `sealed` until the end; its content is moved to the front. Returns how long it is.
    fn open_one(&mut self, bytes: &mut [u8], sealed: usize) -> Result<usize, RecordError> {
        let length = ((bytes.len() - sealed) as u16).to_be_bytes();
        let nonce = self.epoch.nonce();
        // The kind is moved to the front with the content, and the content over it after that.
        let opened = self
            .epoch
            .key
            .open_within(nonce, Aad::from(length), bytes, sealed..);
        let failed = match self.due {
            Due::Hello => RecordError::OtherKeys,
            Due::More | Due::Nothing | Due::Failed(_) => RecordError::Changed,
        };
        let opened = opened.map_err(|_| failed)?;
        let (kind, content) = (opened[0], opened.len() - KIND);
        opened.copy_within(KIND.., 0);
        self.due = match (self.due, kind) {
            (Due::Hello, HELLO) if content == 0 => Due::More,
            (Due::More, DATA) if content > 0 => Due::More,
            (Due::More, NEXT_KEY) if content == 0 => {
                self.epoch = self.epoch.next();
                Due::More
            }
            (Due::More, END) if content == 0 => Due::Nothing,
            _ => return Err(RecordError::Order),
        };
        Ok(content)
    }

    /// Whether the other end has been heard, and has the same keys.
    pub fn has_begun(&self) -> bool {
        self.due != Due::Hello
    }

    /// Whether the other end has ended the stream.
    pub fn has_ended(&self) -> bool {
        self.due == Due::Nothing
    }
}

const HELLO: u8 = Kind::Hello as u8;
const DATA: u8 = Kind::Data as u8;
const NEXT_KEY: u8 = Kind::NextKey as u8;
const END: u8 = Kind::End as u8;

/// The length of the record that begins here, when it is known.
fn next_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(length) = bytes.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if (KIND + TAG..=KIND + MAX_CONTENT + TAG).contains(&length) {
        Ok(Some(length))
    } else {
        Err(RecordError::Length)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::Vectors;

    fn pair() -> (Sealer, Opener) {
        let secret = || Secret::new([7; 32]);
        (
            Sealer::new(Suite::Aes256Gcm, secret()),
            Opener::new(Suite::Aes256Gcm, secret()),
        )
    }

    #[test]
    fn whatever_way_the_bytes_are_cut_the_stream_comes_out() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let mut sealer = Sealer::new(suite, Secret::new([7; 32]));
            let now = Instant::now();
            let said: Vec<u8> = (0..50_000u32).map(|n| (n % 251) as u8).collect();
            let mut wire = Vec::new();
            sealer.seal(&said[..3], now, &mut wire);
            sealer.seal(&said[3..40_000], now, &mut wire);
            sealer.seal(&said[40_000..], now + EPOCH_TIME, &mut wire);
            sealer.end(now, &mut wire);
            for cut in [1, 2, 17, 1000, 16_403, 1 << 20] {
                let mut opener = Opener::new(suite, Secret::new([7; 32]));
                let (mut heard, mut held) = (Vec::new(), Vec::new());
                for piece in wire.chunks(cut) {
                    held.extend_from_slice(piece);
                    let opened = opener.open(&mut held).unwrap();
                    heard.extend_from_slice(&held[..opened.content]);
                    held = held[opened.rest].to_vec();
                }
                assert!(
                    heard == said && held.is_empty() && opener.has_ended(),
                    "{cut}"
                );
            }
        }
    }

    /// Each of these was sealed by somebody else's code.
    #[test]
    fn the_known_records_open_and_are_what_we_seal() {
        let (vectors, now) = (Vectors::of_data_plane(), Instant::now());
        for at in ["0", "1"] {
            let suite = Suite::named(vectors.text(&["records", at, "suite"])).unwrap();
            let secret = vectors.bytes(&["records", at, "secretHex"]);
            let secret = || Secret::new(<[u8; 32]>::try_from(&*secret).unwrap());
            let record = |number| vectors.bytes(&["records", at, "recordsHex", number]);
            let known: Vec<u8> = ["0", "1", "2", "3", "4"]
                .into_iter()
                .flat_map(record)
                .collect();
            let mut opener = Opener::new(suite, secret());
            let mut bytes = known.clone();
            let opened = opener.open(&mut bytes).unwrap();
            assert_eq!(&bytes[..opened.content], b"firstsecond");
            assert!(opener.has_ended());
            let (mut sealer, mut ours) = (Sealer::new(suite, secret()), Vec::new());
            sealer.seal(b"first", now, &mut ours);
            sealer.seal(b"second", now + EPOCH_TIME, &mut ours);
            sealer.end(now, &mut ours);
            assert_eq!(ours, known);
        }
    }

    /// What ring seals, another hand opens.
    #[test]
    fn records_of_any_length_are_aes_gcm_to_somebody_else() {
        use aes_gcm::{
            Aes256Gcm, KeyInit,
            aead::{Aead, Payload},
        };
        let (mut sealer, _) = pair();
        let key = expand(&[7; 32], KEY_LABEL);
        let other = Aes256Gcm::new(&key.into());
        for (number, length) in [0, 1, 15, 16, 17, 1000, MAX_CONTENT]
            .into_iter()
            .enumerate()
        {
            let (content, mut wire) = (vec![length as u8; length], Vec::new());
            sealer.seal(&content, Instant::now(), &mut wire);
            let (aad, sealed) = wire.split_at(LENGTH);
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&(number as u64).to_be_bytes());
            let opened = other
                .decrypt(&nonce.into(), Payload { msg: sealed, aad })
                .unwrap();
            let kind = if length == 0 { HELLO } else { DATA };
            assert_eq!((opened[0], &opened[1..]), (kind, &content[..]));
        }
    }

    #[test]
    fn one_changed_bit_anywhere_is_found_and_nothing_of_its_record_given() {
        let (mut sealer, _) = pair();
        let mut wire = Vec::new();
        sealer.seal(b"first", Instant::now(), &mut wire);
        sealer.seal(b"second", Instant::now(), &mut wire);
        sealer.end(Instant::now(), &mut wire);
        for bit in 0..wire.len() * 8 {
            let mut bytes = wire.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut opener = pair().1;
            match opener.open(&mut bytes) {
                Err(_) => {}
                // A longer length waits for more, which never comes: the end of the bytes is not the stream's.
                Ok(_) => assert!(!opener.has_ended(), "{bit}"),
            }
        }
    }

    #[test]
    fn left_out_repeated_swapped_and_late_records_are_found() {
        let (mut sealer, _) = pair();
        let (mut records, now) = (Vec::new(), Instant::now());
        for word in [&b""[..], b"one", b"two"] {
            let mut record = Vec::new();
            sealer.seal(word, now, &mut record);
            records.push(record);
        }
        let mut end = Vec::new();
        sealer.end(now, &mut end);
        records.push(end);
        let verdict = |order: &[usize]| {
            let mut bytes = order
                .iter()
                .flat_map(|&at| records[at].clone())
                .collect::<Vec<u8>>();
            let mut opener = pair().1;
            opener.open(&mut bytes).map(|_| opener.has_ended())
        };
        assert_eq!(verdict(&[0, 1, 2, 3]), Ok(true));
        assert_eq!(verdict(&[0, 1, 2]), Ok(false));
        assert_eq!(verdict(&[1, 2, 3]), Err(RecordError::OtherKeys));
        for order in [
            &[0, 2, 3][..],
            &[0, 1, 1],
            &[0, 0],
            &[0, 2, 1, 3],
            &[0, 1, 3],
        ] {
            assert_eq!(verdict(order), Err(RecordError::Changed), "{order:?}");
        }
        assert_eq!(verdict(&[0, 1, 2, 3, 3]), Err(RecordError::Changed));
    }

    #[test]
    fn lengths_that_no_record_has_are_refused_at_once() {
        for length in [0u16, 16, 16_402, 65_535] {
            assert_eq!(
                pair().1.open(&mut length.to_be_bytes()),
                Err(RecordError::Length),
                "{length}"
            );
        }
    }

    #[test]
    fn the_wrong_key_and_the_other_direction_open_nothing() {
        let mut wire = Vec::new();
        pair().0.seal(b"x", Instant::now(), &mut wire);
        let mut other = Opener::new(Suite::Aes256Gcm, Secret::new([8; 32]));
        assert_eq!(other.open(&mut wire.clone()), Err(RecordError::OtherKeys));
        let mut suite = Opener::new(Suite::ChaCha20Poly1305, Secret::new([7; 32]));
        assert_eq!(suite.open(&mut wire), Err(RecordError::OtherKeys));
    }

    #[test]
    fn a_key_is_used_for_so_many_records_and_no_more() {
        let (mut sealer, mut opener) = pair();
        let (now, mut wire) = (Instant::now(), Vec::new());
        sealer.seal(&[], now, &mut wire);
        opener.open(&mut wire).unwrap();
        (sealer.epoch.record, opener.epoch.record) = (EPOCH_RECORDS - 2, EPOCH_RECORDS - 2);
        for _ in 0..3 {
            let mut wire = Vec::new();
            sealer.seal(b"x", now, &mut wire);
            assert_eq!(opener.open(&mut wire).unwrap().content, 1);
        }
        assert_eq!((sealer.epoch.record, opener.epoch.record), (2, 2));
    }
}
