//! Frames on the command channel: one kind byte, a big-endian `u32` length, the payload.
//!
//! The first frame of a connection is the client's [`Kind::Request`]. Afterwards the
//! client sends `Stdin`, `StdinEnd`, `Signal` and `Resize`; the agent sends `Started`,
//! `Stdout`, `Stderr`, `StdinTaken` and, last of all, `Exit` or `Failed`.

use std::io::{self, Read, Write};

/// Longest payload in bytes that either side accepts.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Bytes of standard input that a client may have in flight before `StdinTaken`
/// gives them back.
pub const STDIN_WINDOW: usize = 1 << 20;
/// Size in bytes of one read from a stream that is forwarded.
pub const CHUNK: usize = 64 << 10;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: JSON [`crate::protocol::Request`].
    Request = 1,
    /// Client: bytes for the command's standard input.
    Stdin = 2,
    /// Client: standard input has ended.
    StdinEnd = 3,
    /// Client: signal number (`i32`, big endian) for the command's process group.
    Signal = 4,
    /// Client: rows and columns (two `u16`, big endian) of the terminal.
    Resize = 5,
    /// Agent: the command runs; its pid (`i32`, big endian).
    Started = 16,
    /// Agent: bytes from the command's standard output.
    Stdout = 17,
    /// Agent: bytes from the command's standard error.
    Stderr = 18,
    /// Agent: this many bytes (`u32`, big endian) of standard input were consumed.
    StdinTaken = 19,
    /// Agent: JSON [`crate::protocol::Exit`]; the connection ends.
    Exit = 20,
    /// Agent: why the request was refused (UTF-8); the connection ends.
    Failed = 21,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Request,
            2 => Self::Stdin,
            3 => Self::StdinEnd,
            4 => Self::Signal,
            5 => Self::Resize,
            16 => Self::Started,
            17 => Self::Stdout,
            18 => Self::Stderr,
            19 => Self::StdinTaken,
            20 => Self::Exit,
            21 => Self::Failed,
            _ => return None,
        })
    }
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed or ended in the middle of a frame.
    #[error("command channel: {0}")]
    Io(#[from] io::Error),
    /// The kind byte is none of [`Kind`].
    #[error("command channel: unknown frame kind {0}")]
    UnknownKind(u8),
    /// The length is above [`MAX_PAYLOAD`].
    #[error("command channel: frame of {0} bytes is longer than {MAX_PAYLOAD}")]
    TooLong(usize),
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// Its bytes, at most [`MAX_PAYLOAD`].
    pub payload: Vec<u8>,
}

impl Frame {
    /// The payload as a big-endian `u32`, if it is exactly that long.
    pub fn as_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.as_slice().try_into().ok()?))
    }

    /// The payload as a big-endian `i32`, if it is exactly that long.
    pub fn as_i32(&self) -> Option<i32> {
        Some(i32::from_be_bytes(self.payload.as_slice().try_into().ok()?))
    }

    /// The payload as rows and columns, if it is exactly that long.
    pub fn as_size(&self) -> Option<(u16, u16)> {
        let bytes: [u8; 4] = self.payload.as_slice().try_into().ok()?;
        let [a, b, c, d] = bytes;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

/// Writes one frame in a single `write_all`, so frames of several threads that share
/// a lock never interleave.
pub fn write(to: &mut impl Write, kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::TooLong(payload.len()));
    }
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind as u8);
    // The length fits: MAX_PAYLOAD is far below u32::MAX.
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    to.write_all(&bytes)?;
    to.flush()?;
    Ok(())
}

/// Reads one frame; `None` when the stream ended cleanly between two frames.
pub fn read(from: &mut impl Read) -> Result<Option<Frame>, FrameError> {
    let mut kind = [0u8; 1];
    loop {
        match from.read(&mut kind) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let [byte] = kind;
    let kind = Kind::from_byte(byte).ok_or(FrameError::UnknownKind(byte))?;
    let mut length = [0u8; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Some(Frame { kind, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_a_round_trip_in_order() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Stdout, b"hello").unwrap();
        write(&mut wire, Kind::StdinEnd, b"").unwrap();
        write(&mut wire, Kind::Signal, &15i32.to_be_bytes()).unwrap();
        let mut stream = wire.as_slice();
        let first = read(&mut stream).unwrap().unwrap();
        assert_eq!(
            (first.kind, first.payload.as_slice()),
            (Kind::Stdout, &b"hello"[..])
        );
        assert_eq!(read(&mut stream).unwrap().unwrap().kind, Kind::StdinEnd);
        assert_eq!(read(&mut stream).unwrap().unwrap().as_i32(), Some(15));
        assert!(read(&mut stream).unwrap().is_none());
    }

    #[test]
    fn refuses_a_length_above_the_limit_without_allocating_it() {
        let wire = [17u8, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(
            read(&mut wire.as_slice()),
            Err(FrameError::TooLong(_))
        ));
        let mut sink = Vec::new();
        assert!(write(&mut sink, Kind::Stdin, &vec![0; MAX_PAYLOAD + 1]).is_err());
        assert!(sink.is_empty());
    }

    #[test]
    fn refuses_an_unknown_kind() {
        let wire = [99u8, 0, 0, 0, 0];
        assert!(matches!(
            read(&mut wire.as_slice()),
            Err(FrameError::UnknownKind(99))
        ));
    }

    #[test]
    fn a_frame_cut_short_is_an_error_not_an_end() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Stdout, b"hello").unwrap();
        wire.truncate(7);
        assert!(matches!(read(&mut wire.as_slice()), Err(FrameError::Io(_))));
    }

    #[test]
    fn typed_payloads_need_their_exact_length() {
        let short = Frame {
            kind: Kind::Signal,
            payload: vec![1, 2],
        };
        assert_eq!(
            (short.as_i32(), short.as_u32(), short.as_size()),
            (None, None, None)
        );
        let size = Frame {
            kind: Kind::Resize,
            payload: vec![0, 24, 0, 80],
        };
        assert_eq!(size.as_size(), Some((24, 80)));
    }
}
