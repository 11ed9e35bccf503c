//! Byte streams. The host connects to [`crate::STREAM_PORT`] and writes one header
//! line; the agent answers `ok <offset>\n` or `error <message>\n`; from there on the
//! connection carries raw bytes until either side closes (half-close is honoured).
//!
//! | header | bytes |
//! |---|---|
//! | `stdin <container> <exec or ->` | host to guest; shutting down the write side closes the process's stdin (of a container only if it was created with `stdin_once`) |
//! | `stdout <container> <exec or -> <offset>` | guest to host, from byte `offset` of the process's output as far as it is still buffered; the answer says the offset of the first byte that follows. EOF when the process has closed it |
//! | `stderr <container> <exec or -> <offset>` | likewise; not with a tty |
//! | `connect <port>` | both ways, to 127.0.0.1 or ::1 at this TCP port inside the sandbox |
//!
//! Output is kept in the agent until it has been sent, and the last
//! [`REPLAY_BYTES`] of what was sent are kept too, so that a host that was killed
//! can fetch again what it had received and not yet written down. A process that
//! writes while nobody reads is stopped by its full pipe once the buffer is full.
//! An output stream has one reader: a new connection ends the one before it.

use std::fmt;

/// Bytes of already sent output that the agent keeps per stream for a reconnecting host.
pub const REPLAY_BYTES: usize = 256 * 1024;
/// Longest header or answer line in bytes, its newline included.
pub const MAX_LINE: usize = 1024;

/// The first line of a stream connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// Bytes for a process's standard input.
    Stdin {
        /// Container id.
        container: String,
        /// Exec id; `None`: the container's first process.
        exec: Option<String>,
    },
    /// A process's output.
    Output {
        /// Container id.
        container: String,
        /// Exec id; `None`: the container's first process.
        exec: Option<String>,
        /// Standard error instead of standard output.
        stderr: bool,
        /// First byte wanted.
        offset: u64,
    },
    /// A TCP connection to the sandbox's loopback.
    Connect {
        /// TCP port.
        port: u16,
    },
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = |e: &Option<String>| e.clone().unwrap_or_else(|| "-".into());
        match self {
            Header::Stdin { container, exec } => write!(f, "stdin {container} {}", dash(exec)),
            Header::Output {
                container,
                exec,
                stderr,
                offset,
            } => {
                let name = if *stderr { "stderr" } else { "stdout" };
                write!(f, "{name} {container} {} {offset}", dash(exec))
            }
            Header::Connect { port } => write!(f, "connect {port}"),
        }
    }
}

/// Why a header line was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed stream header {0:?}")]
pub struct MalformedHeader(pub String);

impl std::str::FromStr for Header {
    type Err = MalformedHeader;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let bad = || MalformedHeader(line.chars().take(80).collect());
        let words: Vec<&str> = line.split(' ').collect();
        let exec = |w: &str| (w != "-").then(|| w.to_string());
        match words.as_slice() {
            ["stdin", c, e] => Ok(Header::Stdin {
                container: c.to_string(),
                exec: exec(e),
            }),
            [name @ ("stdout" | "stderr"), c, e, o] => Ok(Header::Output {
                container: c.to_string(),
                exec: exec(e),
                stderr: *name == "stderr",
                offset: o.parse().map_err(|_| bad())?,
            }),
            ["connect", p] => Ok(Header::Connect {
                port: p.parse().map_err(|_| bad())?,
            }),
            _ => Err(bad()),
        }
    }
}

/// The agent's answer to a [`Header`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Bytes follow; the offset of the first one in the process's output, 0 for other streams.
    Ok(u64),
    /// Refused, with the reason; the connection is closed.
    Error(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ok(offset) => write!(f, "ok {offset}"),
            Answer::Error(message) => write!(f, "error {}", message.replace(['\n', '\r'], " ")),
        }
    }
}

impl std::str::FromStr for Answer {
    type Err = MalformedHeader;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let bad = || MalformedHeader(line.chars().take(80).collect());
        match line.split_once(' ') {
            Some(("ok", offset)) => offset.parse().map(Answer::Ok).map_err(|_| bad()),
            Some(("error", message)) => Ok(Answer::Error(message.to_string())),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_survives_its_text_form() {
        for h in [
            Header::Stdin {
                container: "c1".into(),
                exec: None,
            },
            Header::Output {
                container: "c1".into(),
                exec: Some("e".into()),
                stderr: true,
                offset: 7,
            },
            Header::Connect { port: 80 },
        ] {
            assert_eq!(h.to_string().parse::<Header>(), Ok(h));
        }
    }

    #[test]
    fn answers_survive_their_text_form_on_one_line() {
        for answer in [Answer::Ok(9), Answer::Error("no such thing".into())] {
            assert_eq!(answer.to_string().parse::<Answer>(), Ok(answer));
        }
        assert_eq!(Answer::Error("a\nb".into()).to_string(), "error a b");
        assert!("maybe 1".parse::<Answer>().is_err());
    }

    #[test]
    fn malformed_headers_are_refused() {
        for line in [
            "",
            "stdout c -",
            "stdout c - x",
            "connect 70000",
            "stdin c",
            "other a b",
        ] {
            assert!(line.parse::<Header>().is_err(), "{line}");
        }
    }
}
