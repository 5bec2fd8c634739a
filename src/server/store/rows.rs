//! What the keys of rows look like. Numbers are big-endian, so that rows sort as the numbers do.
//!
//! | first byte | then | value |
//! | --- | --- | --- |
//! | [`SCHEMA`] | | version of this table |
//! | [`REGISTER`] | atSign | its number and port |
//! | [`RECORD`] | number, key | metadata and value |
//! | [`COMMIT`] | number, commit id | operation, time, key |
//! | [`LATEST`] | number, key | commit id |
//! | [`COUNTER`] | number, name | count |
//! | [`EXPIRY`] | number, time, key | |
//! | [`NOTE`] | number, id, 0, sender | notification |
//! | [`INBOX`] | number, time | row of the note |
//! | [`OUTBOX`] | number, recipient, 0, count | row of the note |
//! | [`NOTE_EXPIRY`] | number, time, row of the note | |
//! | [`SENDER`] | number, sender, 0, time | row of the received note |
//! | [`SHARE`] | number, sender | how many received notes, how many bytes |
//! | [`LARGEST`] | number, largest number − size of the share, sender | |
//! | [`COPY`] | number, owner, 0, time, key | |
//! | [`COPIES`] | number, owner | how many bytes of copies |
//! | [`MOST_COPIES`] | number, largest number − bytes, owner | |
//! | [`SPENT`] | number, time, row of the sent note that waits no more | its bytes |
//!
//! `number` (four bytes) is an atSign's place in this store; it is never given to another atSign.

/// See the table above.
pub const SCHEMA: u8 = 1;
/// See the table above.
pub const REGISTER: u8 = 2;
/// See the table above.
pub const RECORD: u8 = 3;
/// See the table above.
pub const COMMIT: u8 = 4;
/// See the table above.
pub const LATEST: u8 = 5;
/// See the table above.
pub const COUNTER: u8 = 6;
/// See the table above.
pub const EXPIRY: u8 = 7;
/// See the table above.
pub const NOTE: u8 = 8;
/// See the table above.
pub const INBOX: u8 = 9;
/// See the table above.
pub const OUTBOX: u8 = 10;
/// See the table above.
pub const NOTE_EXPIRY: u8 = 11;
/// See the table above.
pub const SENDER: u8 = 12;
/// See the table above.
pub const SHARE: u8 = 13;
/// See the table above.
pub const LARGEST: u8 = 14;
/// See the table above.
pub const COPY: u8 = 15;
/// See the table above.
pub const COPIES: u8 = 16;
/// See the table above.
pub const MOST_COPIES: u8 = 17;
/// See the table above.
pub const SPENT: u8 = 18;
/// All tables that hold rows of one atSign.
pub const OWNED: [u8; 16] = [
    RECORD,
    COMMIT,
    LATEST,
    COUNTER,
    EXPIRY,
    NOTE,
    INBOX,
    OUTBOX,
    NOTE_EXPIRY,
    SENDER,
    SHARE,
    LARGEST,
    COPY,
    COPIES,
    MOST_COPIES,
    SPENT,
];

/// Puts a row key together.
pub fn key(table: u8, number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![table];
    key.extend_from_slice(&number.to_be_bytes());
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Whose row this is; `None`: nobody's.
pub fn owned_by(key: &[u8]) -> Option<u32> {
    key.first().filter(|table| OWNED.contains(table))?;
    let number = key.get(1..HEAD)?;
    Some(u32::from_be_bytes(number.try_into().ok()?))
}

/// Length of `table, number` in front of a row key's own part.
pub const HEAD: usize = 5;

/// The first key behind all keys that start with `prefix`.
pub fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; prefix.len() + 1]
}

/// Eight bytes as a number.
pub fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?))
}

/// Several byte strings as one: each with its length in front.
pub fn pack(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Takes apart what [`pack`] made; `None` when it did not.
pub fn unpack<const N: usize>(mut bytes: &[u8]) -> Option<[&[u8]; N]> {
    let mut parts = [&bytes[..0]; N];
    for part in &mut parts {
        let (length, rest) = bytes.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        (*part, bytes) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    }
    bytes.is_empty().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys_and_before_the_next() {
        for (prefix, end) in [
            (&[1u8, 2][..], &[1u8, 3][..]),
            (&[1, 255], &[2]),
            (&[255], &[255, 255]),
        ] {
            assert_eq!(behind(prefix), end, "{prefix:?}");
        }
    }

    #[test]
    fn parts_survive_packing_and_cut_ones_are_refused() {
        let packed = pack(&[b"ab", b"", b"c"]);
        assert_eq!(unpack::<3>(&packed), Some([&b"ab"[..], b"", b"c"]));
        assert_eq!(unpack::<2>(&packed), None);
        for cut in 0..packed.len() {
            assert_eq!(unpack::<3>(&packed[..cut]), None, "{cut}");
        }
    }
}
