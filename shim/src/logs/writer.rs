//! Writing CRI log lines.

use crate::journal::LogCheckpoint;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest content of one log line, bytes; a longer line of output is cut into partial ones.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// One of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        }
    }
}

/// A log file and how much of the output it holds.
pub struct LogWriter {
    path: Option<PathBuf>,
    file: Option<File>,
    position: LogCheckpoint,
}

impl LogWriter {
    /// Goes on at `position`; without a path nothing is written, and only counted.
    pub fn open(path: Option<PathBuf>, position: LogCheckpoint) -> io::Result<Self> {
        let mut writer = Self {
            path,
            file: None,
            position,
        };
        writer.reopen()?;
        Ok(writer)
    }

    /// Opens the file of that name again, after it was moved away.
    pub fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let file = open_log(path)?;
        self.position.log_size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// How much of the output is written.
    pub fn position(&self) -> LogCheckpoint {
        self.position
    }

    /// Writes content that ends in a newline (which is not part of `content`) or is
    /// only a part of a line.
    pub fn write(&mut self, stream: OutputStream, whole: bool, content: &[u8]) -> io::Result<()> {
        let consumed = content.len() as u64 + u64::from(whole);
        if let Some(file) = &mut self.file {
            let tag = if whole { "F" } else { "P" };
            let mut line =
                format!("{:.9} {} {tag} ", jiff::Timestamp::now(), stream.name()).into_bytes();
            line.extend_from_slice(content);
            line.push(b'\n');
            file.write_all(&line)?;
            self.position.log_size += line.len() as u64;
        }
        match stream {
            OutputStream::Stdout => self.position.stdout += consumed,
            OutputStream::Stderr => self.position.stderr += consumed,
        }
        Ok(())
    }
}

/// Opens a log file to append to it, and makes its directory.
pub fn open_log(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Cuts output into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    held: Vec<u8>,
}

impl LineSplitter {
    /// Takes output and calls `emit(whole, content)` for what can be written.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut emit: impl FnMut(bool, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = MAX_LINE_BYTES - self.held.len();
            match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(at) => {
                    self.held.extend_from_slice(&bytes[..at]);
                    bytes = &bytes[at + 1..];
                    emit(true, &self.held)?;
                    self.held.clear();
                }
                None if bytes.len() > room => {
                    self.held.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    emit(false, &self.held)?;
                    self.held.clear();
                }
                None => {
                    self.held.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        Ok(())
    }

    /// The end of the output: what is held is written as a line.
    pub fn finish(
        &mut self,
        mut emit: impl FnMut(bool, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        emit(true, &held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(bool, usize)> {
        let mut splitter = LineSplitter::default();
        let mut out = Vec::new();
        for chunk in chunks {
            splitter
                .push(chunk, |whole, content| {
                    out.push((whole, content.len()));
                    Ok(())
                })
                .unwrap();
        }
        splitter
            .finish(|whole, content| {
                out.push((whole, content.len()));
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn lines_are_whole_and_long_ones_partial() {
        assert_eq!(
            split(&[b"ab\nc", b"d\n\n"]),
            [(true, 2), (true, 2), (true, 0)]
        );
        assert_eq!(split(&[b"no newline"]), [(true, 10)]);
        let long = vec![b'x'; MAX_LINE_BYTES + 5];
        assert_eq!(split(&[&long, b"\n"]), [(false, MAX_LINE_BYTES), (true, 5)]);
        let mut exact = vec![b'x'; MAX_LINE_BYTES];
        exact.push(b'\n');
        assert_eq!(split(&[&exact]), [(true, MAX_LINE_BYTES)]);
    }

    #[test]
    fn lines_have_the_cri_shape() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c").join("0.log");
        let mut writer = LogWriter::open(Some(path.clone()), LogCheckpoint::default()).unwrap();
        writer.write(OutputStream::Stdout, true, b"hello").unwrap();
        writer.write(OutputStream::Stderr, false, b"part").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.splitn(4, ' ').collect())
            .collect();
        assert_eq!(lines[0][1..], ["stdout", "F", "hello"]);
        assert_eq!(lines[1][1..], ["stderr", "P", "part"]);
        let stamp: jiff::Timestamp = lines[0][0].parse().unwrap();
        assert!(
            lines[0][0].len() == "2026-11-22T05:00:00.123456789Z".len(),
            "{stamp}"
        );
        let position = writer.position();
        assert_eq!((position.stdout, position.stderr), (6, 4));
        assert_eq!(position.log_size, text.len() as u64);
    }
}
