//! Reads a log file from the right place and follows it, across rotation.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::line;
use super::select::{LogOptions, Selector};

/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest line that is kept together; runtimes split at 16 KiB.
const MAX_LINE_BYTES: usize = 1 << 20;
/// How often a followed file is looked at for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// A log file being read. Each [`LogReader::next`] is a piece of the answer.
pub struct LogReader {
    path: PathBuf,
    file: File,
    inode: u64,
    position: u64,
    pending: Vec<u8>,
    selector: Selector,
    follow: bool,
    /// The file was rotated away; what was written to it before is still to be read.
    draining: bool,
    done: bool,
}

impl LogReader {
    /// Opens the log at the first line that the options want.
    pub async fn open(path: &Path, options: LogOptions) -> std::io::Result<Self> {
        let mut file = File::open(path).await?;
        let start = match options.tail_lines {
            Some(lines) => tail_start(&mut file, lines).await?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start)).await?;
        let inode = file.metadata().await?.ino();
        Ok(LogReader {
            path: path.to_owned(),
            file,
            inode,
            position: start,
            pending: Vec::new(),
            follow: options.follow,
            selector: Selector::new(options),
            draining: false,
            done: false,
        })
    }

    /// The next piece; `None` at the end. While following, waits for more until `ended` says that
    /// nothing writes the log any longer.
    pub async fn next<F: Future<Output = bool>>(
        &mut self,
        mut ended: impl FnMut() -> F,
    ) -> std::io::Result<Option<Vec<u8>>> {
        let mut last_look = false;
        while !self.done {
            let output = self.read_some().await?;
            if let Some(output) = output {
                if !output.is_empty() {
                    return Ok(Some(output));
                }
                continue;
            }
            // At the end of the file.
            if self.reopen_if_rotated().await? {
                continue;
            }
            if !self.follow || last_look {
                self.done = true;
                let rest = std::mem::take(&mut self.pending);
                let mut output = Vec::new();
                if let Some(parsed) = line::parse(&rest) {
                    self.selector.write(&parsed, &mut output);
                }
                return Ok((!output.is_empty()).then_some(output));
            }
            // What was written before the end is still to be read.
            last_look = ended().await;
            if !last_look {
                tokio::time::sleep(FOLLOW_INTERVAL).await;
            }
        }
        Ok(None)
    }

    /// Reads a chunk and renders its whole lines; `None` at the end of the file.
    async fn read_some(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = self.file.read(&mut chunk).await?;
        if count == 0 {
            return Ok(None);
        }
        self.position += count as u64;
        self.pending.extend_from_slice(&chunk[..count]);
        let mut output = Vec::new();
        let mut consumed = 0;
        while let Some(length) = self.pending[consumed..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let raw = &self.pending[consumed..=consumed + length];
            consumed += length + 1;
            if let Some(parsed) = line::parse(raw)
                && !self.selector.write(&parsed, &mut output)
            {
                self.done = true;
                break;
            }
        }
        self.pending.drain(..consumed);
        if self.pending.len() > MAX_LINE_BYTES {
            self.pending.clear();
        }
        Ok(Some(output))
    }

    /// A new file at the path (rotation), or one cut short, is read from its start. The old one is
    /// first read to its end once more: once there is a new one nothing writes it any longer.
    async fn reopen_if_rotated(&mut self) -> std::io::Result<bool> {
        if !self.follow {
            return Ok(false);
        }
        let Ok(metadata) = tokio::fs::metadata(&self.path).await else {
            return Ok(false);
        };
        if metadata.ino() == self.inode && metadata.len() >= self.position {
            return Ok(false);
        }
        if !std::mem::replace(&mut self.draining, true) && metadata.ino() != self.inode {
            return Ok(true);
        }
        self.draining = false;
        self.file = File::open(&self.path).await?;
        self.inode = metadata.ino();
        self.position = 0;
        Ok(true)
    }
}

/// The offset at which the last `lines` whole lines begin. Parts of one long line count once.
async fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    // The lines found so far, newest last, and the bytes before them that are not whole yet.
    let mut found = 0;
    let mut start = end;
    let mut carry: Vec<u8> = Vec::new();
    while end > 0 {
        let size = end.min(CHUNK_BYTES as u64);
        end -= size;
        file.seek(SeekFrom::Start(end)).await?;
        let mut block = vec![0; usize::try_from(size).unwrap_or(CHUNK_BYTES)];
        file.read_exact(&mut block).await?;
        block.append(&mut carry);
        // Whole lines of this block begin after each newline, and at the file's start.
        let mut stop = block.len();
        while stop > 0 {
            let before = block[..stop - 1].iter().rposition(|byte| *byte == b'\n');
            let begin = match before {
                Some(newline) => newline + 1,
                None if end == 0 => 0,
                None => break,
            };
            let whole = line::parse(&block[begin..stop]).is_some_and(|line| !line.partial);
            if whole {
                if found == lines {
                    return Ok(start);
                }
                found += 1;
            }
            start = end + begin as u64;
            stop = begin;
        }
        block.truncate(stop);
        carry = block;
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn log(lines: &[&str]) -> String {
        lines
            .iter()
            .map(|line| format!("2026-11-22T05:00:00.1Z stdout {line}\n"))
            .collect()
    }

    async fn read(path: &Path, options: LogOptions) -> String {
        let mut reader = LogReader::open(path, options).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = reader.next(|| async { true }).await.unwrap() {
            text.extend(piece);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn tail_counts_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, log(&["F a", "P b1-", "F b2", "F c"])).unwrap();
        for (lines, expected) in [
            (0, ""),
            (1, "c\n"),
            (2, "b1-b2\nc\n"),
            (3, "a\nb1-b2\nc\n"),
            (9, "a\nb1-b2\nc\n"),
        ] {
            let options = LogOptions {
                tail_lines: Some(lines),
                ..Default::default()
            };
            assert_eq!(read(&path, options).await, expected, "tail {lines}");
        }
    }

    #[tokio::test]
    async fn tail_crosses_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let long = "x".repeat(1000);
        let lines: Vec<String> = (0..500).map(|n| format!("F {n} {long}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        std::fs::write(&path, log(&lines)).unwrap();
        for count in [1u64, 63, 64, 65, 66, 200, 499, 500] {
            let options = LogOptions {
                tail_lines: Some(count),
                ..Default::default()
            };
            let text = read(&path, options).await;
            assert_eq!(text.lines().count() as u64, count);
            assert!(
                text.starts_with(&format!("{} ", 500 - count)),
                "tail {count}"
            );
        }
    }

    #[tokio::test]
    async fn following_crosses_rotation_and_ends_with_the_container() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, log(&["F a"])).unwrap();
        let options = LogOptions {
            follow: true,
            ..Default::default()
        };
        let mut reader = LogReader::open(&path, options).await.unwrap();
        let next = reader.next(|| async { false }).await.unwrap().unwrap();
        assert_eq!(next, b"a\n");
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(log(&["F b"]).as_bytes()).unwrap();
        assert_eq!(
            reader.next(|| async { false }).await.unwrap().unwrap(),
            b"b\n"
        );
        // Written after the last read and before the rotation: not lost.
        file.write_all(log(&["F c"]).as_bytes()).unwrap();
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        std::fs::write(&path, log(&["F d"])).unwrap();
        assert_eq!(
            reader.next(|| async { false }).await.unwrap().unwrap(),
            b"c\n"
        );
        assert_eq!(
            reader.next(|| async { false }).await.unwrap().unwrap(),
            b"d\n"
        );
        assert_eq!(reader.next(|| async { true }).await.unwrap(), None);
    }

    #[tokio::test]
    async fn unfinished_line_is_shown_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, "garbage\n2026-11-22T05:00:00.1Z stdout F a").unwrap();
        assert_eq!(read(&path, LogOptions::default()).await, "a\n");
    }
}
