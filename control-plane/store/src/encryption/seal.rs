//! One key of one provider.

use bytes::Bytes;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305, aead::AeadInPlace};
use ring::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

/// What every encrypted value begins with.
pub(super) const MARK: &[u8] = b"k8s:enc:";

/// Nonce and tag of secretbox, in bytes.
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_TAG: usize = 16;

enum Cipher {
    AesGcm(Box<LessSafeKey>),
    SecretBox(Box<XSalsa20Poly1305>),
    Identity,
}

/// Writes and reads values with one key.
pub(super) struct Sealer {
    cipher: Cipher,
    /// What its values begin with.
    mark: Vec<u8>,
    random: SystemRandom,
}

impl Sealer {
    fn new(cipher: Cipher, mark: String) -> Self {
        Sealer {
            cipher,
            mark: mark.into_bytes(),
            random: SystemRandom::new(),
        }
    }

    pub(super) fn identity() -> Self {
        Sealer::new(Cipher::Identity, String::new())
    }

    pub(super) fn aesgcm(name: &str, secret: &[u8]) -> Result<Self, &'static str> {
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            24 => return Err("unimplemented: AES with 24 bytes; take 16 or 32"),
            _ => return Err("an aesgcm secret has 16 or 32 bytes"),
        };
        let key = UnboundKey::new(algorithm, secret).map_err(|_| "its secret is unusable")?;
        let cipher = Cipher::AesGcm(Box::new(LessSafeKey::new(key)));
        Ok(Sealer::new(cipher, format!("k8s:enc:aesgcm:v1:{name}:")))
    }

    pub(super) fn secretbox(name: &str, secret: &[u8]) -> Result<Self, &'static str> {
        let cipher = XSalsa20Poly1305::new_from_slice(secret)
            .map_err(|_| "a secretbox secret has 32 bytes")?;
        let cipher = Cipher::SecretBox(Box::new(cipher));
        Ok(Sealer::new(cipher, format!("k8s:enc:secretbox:v1:{name}:")))
    }

    pub(super) fn is_identity(&self) -> bool {
        matches!(self.cipher, Cipher::Identity)
    }

    /// Whether a stored value is of this key.
    pub(super) fn wrote(&self, stored: &[u8]) -> bool {
        match self.cipher {
            Cipher::Identity => !stored.starts_with(MARK),
            _ => stored.starts_with(&self.mark),
        }
    }

    pub(super) fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, &'static str> {
        match &self.cipher {
            Cipher::Identity => Ok(value),
            Cipher::AesGcm(cipher) => {
                let nonce: [u8; NONCE_LEN] = self.nonce()?;
                let mut text = value.to_vec();
                cipher
                    .seal_in_place_append_tag(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::from(key.as_bytes()),
                        &mut text,
                    )
                    .map_err(|_| "it could not be encrypted")?;
                Ok(Bytes::from([&self.mark, &nonce[..], &text].concat()))
            }
            Cipher::SecretBox(cipher) => {
                let nonce: [u8; SECRETBOX_NONCE] = self.nonce()?;
                let mut text = value.to_vec();
                let tag = cipher
                    .encrypt_in_place_detached((&nonce).into(), &[], &mut text)
                    .map_err(|_| "it could not be encrypted")?;
                // NaCl's box has the tag first.
                Ok(Bytes::from([&self.mark, &nonce[..], &tag, &text].concat()))
            }
        }
    }

    pub(super) fn open(&self, key: &str, stored: &Bytes) -> Result<Bytes, &'static str> {
        const TOO_SHORT: &str = "it is too short";
        const WRONG: &str = "it was changed, moved, or written with another secret";
        if self.is_identity() {
            return Ok(stored.clone());
        }
        let sealed = stored.get(self.mark.len()..).ok_or(TOO_SHORT)?;
        match &self.cipher {
            Cipher::Identity => Ok(stored.clone()),
            Cipher::AesGcm(cipher) => {
                let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(TOO_SHORT)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| TOO_SHORT)?;
                let mut text = text.to_vec();
                let length = cipher
                    .open_in_place(nonce, Aad::from(key.as_bytes()), &mut text)
                    .map_err(|_| WRONG)?
                    .len();
                text.truncate(length);
                Ok(Bytes::from(text))
            }
            Cipher::SecretBox(cipher) => {
                let (nonce, rest) = sealed.split_at_checked(SECRETBOX_NONCE).ok_or(TOO_SHORT)?;
                let (tag, text) = rest.split_at_checked(SECRETBOX_TAG).ok_or(TOO_SHORT)?;
                let mut text = text.to_vec();
                cipher
                    .decrypt_in_place_detached(nonce.into(), &[], &mut text, tag.into())
                    .map_err(|_| WRONG)?;
                Ok(Bytes::from(text))
            }
        }
    }

    fn nonce<const N: usize>(&self) -> Result<[u8; N], &'static str> {
        let mut nonce = [0; N];
        self.random
            .fill(&mut nonce)
            .map_err(|_| "there is no randomness")?;
        Ok(nonce)
    }
}
