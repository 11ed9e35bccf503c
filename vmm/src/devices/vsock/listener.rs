//! The greeting of a host program: one line, `CONNECT <port>`.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Longest line that can be right: "CONNECT 4294967295\n".
const LINE_MAX_BYTES: usize = 32;

/// How far a greeting is.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    /// More bytes must come.
    Incomplete,
    /// The guest port.
    Port(u32),
    /// Not a greeting, or the program went away.
    Invalid,
}

/// Looks at what has come; takes the line, and not a byte more, once it is complete.
pub fn read_greeting(stream: &mut UnixStream) -> Greeting {
    let mut line = [0; LINE_MAX_BYTES];
    // SAFETY: the buffer is valid for its length.
    let count = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            line.as_mut_ptr().cast(),
            line.len(),
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    let Ok(count) = usize::try_from(count) else {
        let again = io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
        return if again {
            Greeting::Incomplete
        } else {
            Greeting::Invalid
        };
    };
    let Some(end) = line[..count].iter().position(|byte| *byte == b'\n') else {
        let hopeless = count == 0 || count == line.len();
        return if hopeless {
            Greeting::Invalid
        } else {
            Greeting::Incomplete
        };
    };
    if stream.read_exact(&mut line[..=end]).is_err() {
        return Greeting::Invalid;
    }
    std::str::from_utf8(&line[..end])
        .ok()
        .and_then(|text| text.strip_prefix("CONNECT "))
        .and_then(|port| port.parse().ok())
        .map_or(Greeting::Invalid, Greeting::Port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn takes_the_line_and_leaves_the_data() {
        let (mut ours, mut theirs) = pair();
        assert_eq!(read_greeting(&mut ours), Greeting::Incomplete);
        theirs.write_all(b"CONNECT 10").unwrap();
        assert_eq!(read_greeting(&mut ours), Greeting::Incomplete);
        theirs.write_all(b"24\nearly data").unwrap();
        assert_eq!(read_greeting(&mut ours), Greeting::Port(1024));
        let mut rest = [0; 16];
        assert_eq!(ours.read(&mut rest).unwrap(), 10);
    }

    #[test]
    fn anything_else_is_invalid() {
        for text in [
            "\n",
            "CONNECT\n",
            "CONNECT -1\n",
            "CONNECT 4294967296\n",
            "connect 1\n",
            "CONNECT 1 2\n",
            "CONNECT 00000000000000000000000000001\n",
        ] {
            let (mut ours, mut theirs) = pair();
            theirs.write_all(text.as_bytes()).unwrap();
            assert_eq!(read_greeting(&mut ours), Greeting::Invalid, "{text:?}");
        }
        let (mut ours, theirs) = pair();
        drop(theirs);
        assert_eq!(read_greeting(&mut ours), Greeting::Invalid);
    }
}
