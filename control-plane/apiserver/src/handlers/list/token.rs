//! Continue tokens: where the next page of a list begins, and of which revision it is.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hull_api::ApiError;
use hull_store::Revision;
use serde_json::{Value, json};

/// In a token: the list goes on at whatever is newest.
const ANY_REVISION: i64 = -1;

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The revision that the list shows; `None`: the newest.
    pub revision: Option<Revision>,
    /// The first key.
    pub start: String,
}

impl Token {
    pub(super) fn write(&self) -> String {
        let revision = self.revision.map_or(json!(ANY_REVISION), |rv| json!(rv));
        let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    pub(super) fn read(text: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        let field = |name: &str| token.get(name).ok_or_else(invalid);
        let revision = match field("rv")? {
            number if number.as_i64() == Some(ANY_REVISION) => None,
            number => Some(number.as_u64().ok_or_else(invalid)?),
        };
        let start = field("start")?.as_str().ok_or_else(invalid)?.to_owned();
        Ok(Token { revision, start })
    }

    /// The token's revision is forgotten: 410, with a token that goes on all the same.
    pub(super) fn expired(self) -> ApiError {
        let mut error = ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You \
             can start a new list without the continue parameter, or use the continue token in \
             this response to retrieve the remainder of the results. Continuing with the provided \
             token results in an inconsistent list - objects that were created, modified, or \
             deleted between the time the first chunk was returned and now may show up in the \
             list.",
        );
        let next = Token {
            revision: None,
            ..self
        };
        error.details.continue_token = next.write();
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back_whole_and_garbage_is_refused() {
        for revision in [Some(7), None] {
            let start = "/registry/pods/a/b\0".to_owned();
            let token = Token { revision, start };
            assert_eq!(Token::read(&token.write()).unwrap(), token);
        }
        for bad in ["", "!", "e30", "eyJydiI6LTF9"] {
            assert_eq!(Token::read(bad).unwrap_err().code(), 400, "{bad}");
        }
        let other = URL_SAFE_NO_PAD.encode(json!({"rv": -2, "start": "/a"}).to_string());
        assert_eq!(Token::read(&other).unwrap_err().code(), 400);
    }
}
