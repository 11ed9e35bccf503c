//! The key that signs tokens: ECDSA P-256 with SHA-256 (`ES256`, RFC 7518 §3.4).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::auth::jws::{Jws, PublicKey};

/// The head of a P-256 public key in SubjectPublicKeyInfo form (RFC 5480), before the point.
const P256_INFO: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file does not hold a PKCS #8 key in PEM.
    #[error("cannot read the service account signing key: {0}")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// It is no P-256 key.
    #[error("the service account signing key is no P-256 key: {0}")]
    Kind(ring::error::KeyRejected),
    /// The system gives no randomness.
    #[error("cannot sign a token")]
    Sign,
}

/// The signing key with its identifier.
pub(crate) struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    random: SystemRandom,
    id: String,
}

impl SigningKey {
    /// Reads a PKCS #8 key.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(KeyError::Pem)?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            der.secret_pkcs8_der(),
            &random,
        )
        .map_err(KeyError::Kind)?;
        let info = [P256_INFO, pair.public_key().as_ref()].concat();
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &info));
        Ok(SigningKey {
            public: PublicKey::p256(&id, pair.public_key().as_ref()),
            pair,
            random,
            id,
        })
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .pair
            .sign(&self.random, signed.as_bytes())
            .map_err(|_| KeyError::Sign)?;
        Ok(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(signature.as_ref())
        ))
    }

    /// The claims of a token that this key signed.
    pub(crate) fn verify(&self, token: &str) -> Option<Value> {
        let token = Jws::parse(token)?;
        let is_ours = token.key_id == self.id && token.is_by(&self.public);
        is_ours.then_some(token.claims)
    }

    /// The public key (RFC 7517).
    pub(crate) fn to_jwk(&self) -> Value {
        // An uncompressed point: 4, then x and y of 32 bytes each.
        let point = self.pair.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| {
            URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default())
        };
        json!({
            "use": "sig",
            "kty": "EC",
            "kid": self.id,
            "crv": "P-256",
            "alg": "ES256",
            "x": part(1..33),
            "y": part(33..65),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    #[test]
    fn only_what_this_key_signed_is_believed() {
        let (key, other) = (key(), key());
        let claims = json!({"sub": "me"});
        let token = key.sign(&claims).unwrap();
        assert_eq!(key.verify(&token), Some(claims));
        assert_eq!(other.verify(&token), None);
        let forged = |header: Value, body: Value| {
            let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signature = token.rsplit_once('.').unwrap().1;
            format!("{}.{}.{signature}", encode(&header), encode(&body))
        };
        for bad in [
            forged(
                json!({"alg": "ES256", "kid": key.id}),
                json!({"sub": "root"}),
            ),
            forged(
                json!({"alg": "none", "kid": key.id}),
                json!({"sub": "root"}),
            ),
            forged(json!({"alg": "ES256"}), json!({"sub": "me"})),
            format!("{}.", token.rsplit_once('.').unwrap().0),
            String::new(),
            "a.b.c".to_string(),
            "....".to_string(),
            "x".repeat(1 << 20),
        ] {
            assert_eq!(key.verify(&bad), None, "{bad}");
        }
    }

    #[test]
    fn the_published_key_verifies_what_was_signed() {
        let key = key();
        let published = PublicKey::from_jwk(&key.to_jwk()).unwrap();
        let token = key.sign(&json!({})).unwrap();
        assert!(Jws::parse(&token).unwrap().is_by(&published));
    }
}
