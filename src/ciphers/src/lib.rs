//! AES-256-CTR: what every byte of a session passes through. Nothing that leaves this crate is generic or inlined, so all
//! of it is compiled here, for speed.

use std::fmt;

use aes::Aes256;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit, StreamCipher},
};

/// A key stream; the counter is big-endian over all 128 bits. Its key is zeroed when it goes.
pub struct Keystream(Ctr128BE<Aes256>);

impl Keystream {
    /// From a key and the first counter block.
    #[inline(never)]
    pub fn new(key: &[u8; 32], iv: &[u8; 16]) -> Self {
        Self(Ctr128BE::new(key.into(), iv.into()))
    }

    /// Encrypts or decrypts in place. Where the bytes are cut does not matter.
    #[inline(never)]
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl fmt::Debug for Keystream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keystream")
    }
}

/// Does this processor have instructions for AES?
pub fn hardware_accelerated() -> bool {
    aes::hardware_accelerated()
}
