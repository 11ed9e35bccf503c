//! The remote command subprotocols: binary messages whose first byte is a channel.
//!
//! | channel | bytes |
//! |---|---|
//! | 0, 1, 2 | standard input, output, error |
//! | 3 | at the end: a `metav1.Status` as JSON |
//! | 4 | terminal size as JSON, `{"Width":80,"Height":24}` |
//! | 255 | v5 only: the channel named by the next byte is closed |

use serde::Deserialize;
use serde_json::{Value, json};

/// In the order of preference.
pub const SUBPROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// See the table.
pub const STDIN: u8 = 0;
/// See the table.
pub const STDOUT: u8 = 1;
/// See the table.
pub const STDERR: u8 = 2;
/// See the table.
pub const ERROR: u8 = 3;
/// See the table.
pub const RESIZE: u8 = 4;
/// See the table.
pub const CLOSE: u8 = 255;

/// Terminal size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height")]
    pub height: u16,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// Bytes for standard input.
    Stdin(&'a [u8]),
    /// No more standard input.
    CloseStdin,
    /// A new terminal size.
    Resize(TerminalSize),
    /// Nothing that matters here.
    Ignored,
}

/// Parses a binary message.
pub fn parse(message: &[u8]) -> ClientMessage<'_> {
    match message {
        [STDIN, bytes @ ..] => ClientMessage::Stdin(bytes),
        [CLOSE, STDIN] => ClientMessage::CloseStdin,
        [RESIZE, bytes @ ..] => {
            serde_json::from_slice(bytes).map_or(ClientMessage::Ignored, ClientMessage::Resize)
        }
        _ => ClientMessage::Ignored,
    }
}

/// A message on a channel.
pub fn frame(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    message
}

/// The status of a process that ended.
pub fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The status of a stream that failed.
pub fn failure_status(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_messages_are_understood() {
        assert_eq!(parse(b"\0abc"), ClientMessage::Stdin(b"abc"));
        assert_eq!(parse(&[255, 0]), ClientMessage::CloseStdin);
        assert_eq!(
            parse(b"\x04{\"Width\":80,\"Height\":24}"),
            ClientMessage::Resize(TerminalSize {
                width: 80,
                height: 24
            })
        );
        for nonsense in [&b""[..], b"\x04{", b"\x09x", b"\xff\x07"] {
            assert_eq!(parse(nonsense), ClientMessage::Ignored);
        }
    }

    #[test]
    fn exit_codes_are_in_the_causes() {
        assert_eq!(exit_status(0)["status"], "Success");
        assert_eq!(exit_status(3)["details"]["causes"][0]["message"], "3");
    }
}
