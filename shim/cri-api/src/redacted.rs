//! Credentials do not show in logs.

use crate::v1::AuthConfig;
use std::fmt;

impl fmt::Debug for AuthConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ContainerConfig, PullImageRequest};

    #[test]
    fn printing_a_pull_request_shows_no_secret() {
        let auth = AuthConfig {
            username: "alice".into(),
            password: "pass-secret".into(),
            auth: "auth-secret".into(),
            identity_token: "identity-secret".into(),
            registry_token: "registry-secret".into(),
            ..Default::default()
        };
        let request = PullImageRequest {
            auth: Some(auth),
            ..Default::default()
        };
        let text = format!("{request:?}");
        assert!(text.contains("alice") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_stored_message_without_newer_fields_is_read() {
        let config: ContainerConfig = serde_json::from_str(r#"{"log_path":"a.log"}"#).unwrap();
        assert_eq!((config.log_path.as_str(), config.stop_signal), ("a.log", 0));
    }
}
