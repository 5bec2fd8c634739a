//! One direction of an encrypted stream: AES-256-CTR, counter = IV, big-endian over all 128 bits, no padding, no MAC.

use crate::secret::Secret;

/// The key stream of one direction. Where the bytes are cut does not matter.
pub struct Cipher {/* Ctr128BE<Aes256> */}

impl Cipher {
    /// From the first counter block.
    pub fn new(_key: &Secret<[u8; 32]>, _iv: &[u8; 16]) -> Self {
        todo!()
    }
    /// Encrypts or decrypts in place.
    pub fn apply(&mut self, _bytes: &mut [u8]) {
        todo!()
    }
}
