//! JSON web signatures in their compact form (RFC 7515) over JSON, and who can have made them
//! (RFC 7517, RFC 7518).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hull_api::ObjectExt;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A token whose signature nobody has looked at yet.
pub(super) struct Jws<'t> {
    signed: &'t str,
    signature: Vec<u8>,
    /// How it says that it is signed.
    pub algorithm: String,
    /// Which key it says has signed it, or "".
    pub key_id: String,
    /// What it says.
    pub claims: Value,
}

impl<'t> Jws<'t> {
    /// Takes a token apart; `None`: it is none.
    pub(super) fn parse(token: &'t str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let header = decode(header)?;
        // Extensions that must be understood (RFC 7515 §4.1.11): none are.
        if header.get("crit").is_some() {
            return None;
        }
        Some(Jws {
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            algorithm: header.str_at("/alg").to_string(),
            key_id: header.str_at("/kid").to_string(),
            claims: decode(payload)?,
        })
    }

    /// The holder of the key has signed it.
    pub(super) fn is_by(&self, key: &PublicKey) -> bool {
        let signed = self.signed.as_bytes();
        let verified = match (&key.material, self.algorithm.as_str()) {
            (Material::P256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed, &self.signature)
            }
            (Material::P384(point), "ES384") => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
                    .verify(signed, &self.signature)
            }
            (Material::Rsa(rsa), algorithm) => match rsa_parameters(algorithm) {
                Some(parameters) => rsa.verify(parameters, signed, &self.signature),
                None => return false,
            },
            _ => return false,
        };
        verified.is_ok()
    }
}

fn rsa_parameters(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Whose signatures count.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    /// What tokens call it, or "".
    pub id: String,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    /// An uncompressed point.
    P256(Vec<u8>),
    /// An uncompressed point.
    P384(Vec<u8>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

impl PublicKey {
    /// A P-256 key by its uncompressed point.
    pub(super) fn p256(id: &str, point: &[u8]) -> Self {
        PublicKey {
            id: id.to_string(),
            material: Material::P256(point.to_vec()),
        }
    }

    /// Reads a JSON web key; `None`: it is not for signatures, or of a kind that is not supported.
    pub(super) fn from_jwk(jwk: &Value) -> Option<Self> {
        if !matches!(jwk.str_at("/use"), "" | "sig") {
            return None;
        }
        let part = |name: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok()?;
            (!bytes.is_empty()).then_some(bytes)
        };
        // Each coordinate with all its bytes (RFC 7518 §6.2.1.2).
        let point = |bytes: usize| {
            let (x, y) = (part("x")?, part("y")?);
            (x.len() == bytes && y.len() == bytes).then(|| [vec![4], x, y].concat())
        };
        let material = match (jwk.str_at("/kty"), jwk.str_at("/crv")) {
            ("EC", "P-256") => Material::P256(point(32)?),
            ("EC", "P-384") => Material::P384(point(48)?),
            ("RSA", _) => Material::Rsa(RsaPublicKeyComponents {
                n: part("n")?,
                e: part("e")?,
            }),
            _ => return None,
        };
        Some(PublicKey {
            id: jwk.str_at("/kid").to_string(),
            material,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Made with `openssl genrsa 2048`, as are the signatures below with `openssl dgst -sign`.
    const MODULUS: &str = "9OG91GukegyQobL3M-2HXwHeo44MCo_kGZ7CbQEGzzL0FOqwmlrbYJkDKAYghMsOFnNd__QLwGlTI-bDHlP6oEo7kBjdk-Z5nX8pbvBYNoF9qOT09eOtp52sfD8G56VH9TtsX33eMW981qEQ5eydfFi8PysTMSWO5TgiHynT91BzHEGxkLgEMhW9jCvF2WGHfwNMwG4hPoC-lMvdSIrLwTrsVFYZhKxNeH4KLfkA8QtFL8zjZV5Rgs43urBWB1RSKDf5RaHXM4afY531lbbWR-Jmh0g0Y8O4Bjur2Lild4lihb8czhXQwAxWDSHJwytF3Yvw1FHqykejMSqWwbAGUQ";
    const RS256: &str = "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogInJzYSJ9.eyJzdWIiOiJtZSJ9.Be7uF1FTt_EQwEAeJ9L0hEOAkC0BwLkYXMsGWS8YA9qax3rjRgT6lurt1-NPuQ4XwVTvxVYJzPxwnU3vHA6jnVu2YvWW1604WnrYz1DIJvSFuIcXUrrm1wP_rSnVtJ9PGlEpKtRBv5Olb2qsHnFjC-qp6ny9Jq7c8UWO0H1XFNxUXV9z79Ou48kZ_f_lKr-NL4oLjBxvcPhEppsDVYI5S0iPdveYfJtUPbmKXkvnCHqSov2fQ9lF-33a4LG_DRsH-IZS9ChUqjmDYuwsAXmBq-habMkAtYsw3Z4WBbTVFsjYnH7pDYEC_8J4YCWiAjcf_66hXQ7xqxL3Dt0tUMNDlQ";
    const PS384: &str = "eyJhbGciOiAiUFMzODQiLCAia2lkIjogInJzYSJ9.eyJzdWIiOiJtZSJ9.whe0YvHZnm2YLaJ1swN3PP8TmtDFTuCnmIF0GdhHWXdD07uyzV3NehxiYsPoZ0c1egPIAJoxNgnbXtvIsE76c3UvliyDBvBPO5TMcxKfJwd1fts-gNdM5SI5EU2KNk3w5dB9SAiRuenxm5Mya6rQe_x6uWGaLAtQtxtj2gjyN6y1ZewrKhjxm_LRSoQHB1FSC4Woz1OW8VPbtwvdTrXmqGMUYeifT1cI95c6ooMUk8hDt6Rm7HuU0sw4ZXTUI8L-m2GAQNdDLIUsFWIMWsTtCp5Mdw6mhmA3h4ZAycZd-uEIjBCZz4SAhGvwJZAwaVCXo0T_las4BYhsW6p-d6J1GA";

    fn rsa() -> Value {
        json!({"kty": "RSA", "use": "sig", "kid": "rsa", "n": MODULUS, "e": "AQAB"})
    }

    #[test]
    fn signatures_of_rsa_keys_are_known() {
        let key = PublicKey::from_jwk(&rsa()).unwrap();
        for token in [RS256, PS384] {
            let jws = Jws::parse(token).unwrap();
            assert_eq!(
                (jws.claims["sub"].as_str(), &key.id),
                (Some("me"), &jws.key_id)
            );
            assert!(jws.is_by(&key), "{}", jws.algorithm);
        }
        // Another text, another padding, another algorithm.
        let (head, rest) = RS256.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let (other_head, _) = PS384.split_once('.').unwrap();
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for token in [
            format!("{head}.{}.{signature}", encode(r#"{"sub":"root"}"#)),
            format!("{other_head}.{}.{signature}", encode(r#"{"sub":"me"}"#)),
            format!("{}.{rest}", encode(r#"{"alg":"HS256","kid":"rsa"}"#)),
            format!("{}.{rest}", encode(r#"{"alg":"none","kid":"rsa"}"#)),
        ] {
            assert!(!Jws::parse(&token).unwrap().is_by(&key), "{token}");
        }
        let critical = encode(r#"{"alg":"RS256","kid":"rsa","crit":["b64"]}"#);
        assert!(Jws::parse(&format!("{critical}.{rest}")).is_none());
    }

    #[test]
    fn keys_that_cannot_be_used_are_none() {
        for change in [
            json!({"use": "enc"}),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"n": "not base64!"}),
            json!({"n": ""}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
            json!({"kty": "EC", "crv": "P-521"}),
        ] {
            let mut jwk = rsa();
            let fields = change.as_object().unwrap().clone();
            jwk.as_object_mut().unwrap().extend(fields);
            assert!(PublicKey::from_jwk(&jwk).is_none(), "{jwk}");
        }
    }
}
