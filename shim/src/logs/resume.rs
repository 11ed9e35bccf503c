//! How much of the output a log file holds.

use super::writer::open_log;
use crate::journal::LogCheckpoint;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

/// Longest line of a log file that is looked at: content and what comes before it.
const MAX_LOG_LINE: u64 = super::writer::MAX_LINE_BYTES as u64 + 128;

/// Counts the output in the log from the checkpoint on, and cuts off a last line that
/// a crash left unfinished.
pub fn position(path: &Path, checkpoint: LogCheckpoint) -> io::Result<LogCheckpoint> {
    let file = open_log(path)?;
    let size = file.metadata()?.len();
    if size < checkpoint.log_size {
        // Somebody cut or replaced the file: the checkpoint still tells the offsets.
        return Ok(LogCheckpoint {
            log_size: size,
            ..checkpoint
        });
    }
    let mut position = checkpoint;
    let mut reader = BufReader::new(&file);
    reader.seek(SeekFrom::Start(checkpoint.log_size))?;
    loop {
        let mut line = Vec::new();
        let read = io::Read::take(&mut reader, MAX_LOG_LINE).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            break;
        }
        position.log_size += read as u64;
        count(&line, &mut position);
    }
    if position.log_size < size {
        file.set_len(position.log_size)?;
    }
    Ok(position)
}

fn count(line: &[u8], position: &mut LogCheckpoint) {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (_, stream, tag, content) = (fields.next(), fields.next(), fields.next(), fields.next());
    let Some(content) = content else {
        return;
    };
    let bytes = content.len() as u64 + u64::from(tag == Some(b"F"));
    match stream {
        Some(b"stdout") => position.stdout += bytes,
        Some(b"stderr") => position.stderr += bytes,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::{LogWriter, OutputStream};
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_tells_how_much_it_holds_and_a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut writer = LogWriter::open(Some(path.clone()), LogCheckpoint::default()).unwrap();
        writer
            .write(OutputStream::Stdout, true, b"one with spaces")
            .unwrap();
        let checkpoint = writer.position();
        writer.write(OutputStream::Stdout, false, b"part").unwrap();
        writer.write(OutputStream::Stderr, true, b"").unwrap();
        let expected = writer.position();
        let mut file = open_log(&path).unwrap();
        file.write_all(b"2026-11-22T05:00:00.1Z stdout F to")
            .unwrap();
        for from in [LogCheckpoint::default(), checkpoint] {
            assert_eq!(position(&path, from).unwrap(), expected);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), expected.log_size);
    }

    #[test]
    fn a_replaced_log_keeps_the_offsets_of_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = LogCheckpoint {
            log_size: 100,
            stdout: 42,
            stderr: 7,
        };
        let found = position(&dir.path().join("new.log"), checkpoint).unwrap();
        assert_eq!(
            found,
            LogCheckpoint {
                log_size: 0,
                stdout: 42,
                stderr: 7
            }
        );
    }
}
