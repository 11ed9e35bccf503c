//! Random parts of names.

use rand::Rng;

/// Characters of a random suffix: no vowels, no look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Their number.
pub(crate) const SUFFIX_LENGTH: usize = 5;

/// A suffix that makes a name unique enough.
pub(crate) fn random_suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH)
        .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]))
        .collect()
}
