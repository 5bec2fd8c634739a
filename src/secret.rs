//! Values that must not be seen: masked in `Debug`, wiped when dropped, compared in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A secret value. [`Secret::reveal`] is the only way to look at it, so every look can be searched for.
///
/// ```
/// use noports::secret::Secret;
/// let pin = Secret::new(String::from("1234"));
/// assert_eq!(format!("{pin:?}"), "Secret(***)");
/// assert_eq!(pin.reveal(), "1234");
/// ```
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes charge of a secret; whoever had it should keep no copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Looks at the secret.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    /// Takes the same time wherever the values differ (their lengths may show).
    fn eq(&self, other: &Self) -> bool {
        same(self.0.as_ref(), other.0.as_ref())
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Secret<T> {}

/// Compares two byte strings in a time that depends on their lengths only.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        let key = Secret::new([7u8; 32]);
        assert_eq!(
            format!("{key:?} {:?}", Some(&key)),
            "Secret(***) Some(Secret(***))"
        );
    }

    #[test]
    fn equality_is_by_value() {
        assert_eq!(Secret::new([1u8; 4]), Secret::new([1u8; 4]));
        assert_ne!(Secret::new(vec![1u8]), Secret::new(vec![1u8, 2]));
    }
}
