//! Where the console output goes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Newest output that is kept in memory, bytes.
pub const RING_BYTES: usize = 64 * 1024;
/// Most output that is written to the file, bytes; the guest must not fill the disk.
pub const FILE_MAX_BYTES: u64 = 16 << 20;
/// Output without a line end that is held back from the file, bytes.
const LINE_MAX_BYTES: usize = 512;
const LIMIT_NOTE: &[u8] = b"\n[console file limit reached]\n";
/// How Linux begins the first line of a panic.
const PANIC_TEXT: &[u8] = b"Kernel panic - not syncing";

struct Inner {
    ring: VecDeque<u8>,
    file: File,
    line: Vec<u8>,
    written: u64,
    total: u64,
    panic_seen: bool,
}

/// Shared by the serial port, the control socket and the end of the VM.
#[derive(Clone)]
pub struct Console {
    inner: Arc<Mutex<Inner>>,
}

impl Console {
    /// Writes to `file` from its current position on.
    pub fn new(file: File) -> Self {
        let inner = Inner {
            ring: VecDeque::with_capacity(RING_BYTES),
            file,
            line: Vec::with_capacity(LINE_MAX_BYTES),
            written: 0,
            total: 0,
            panic_seen: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest `max_bytes` bytes as text, none of the first `after` that were ever
    /// written among them; and where the text ends, as bytes from the first. A character of
    /// which a part is still to come is left out.
    pub fn tail(&self, max_bytes: usize, after: u64) -> (String, u64) {
        let inner = self.lock();
        let fresh = usize::try_from(inner.total.saturating_sub(after)).unwrap_or(usize::MAX);
        let skip = inner.ring.len().saturating_sub(max_bytes.min(fresh));
        let mut bytes: Vec<u8> = inner.ring.iter().skip(skip).copied().collect();
        let part = unfinished(&bytes);
        bytes.truncate(bytes.len() - part);
        let end = inner.total - part as u64;
        (String::from_utf8_lossy(&bytes).into_owned(), end)
    }

    /// Whether a kernel panic was printed.
    pub fn panic_seen(&self) -> bool {
        self.lock().panic_seen
    }

    /// Bytes that the guest wrote so far.
    pub fn total_bytes(&self) -> u64 {
        self.lock().total
    }

    /// Writes out what is held back.
    pub fn flush(&self) {
        self.lock().flush_line();
    }
}

/// Bytes at the end that begin a UTF-8 character without ending it.
fn unfinished(bytes: &[u8]) -> usize {
    let from_the_end = bytes.iter().rev().zip(1..4);
    let lead = from_the_end.skip_while(|(byte, _)| **byte & 0xc0 == 0x80);
    let (byte, have) = match lead.into_iter().next() {
        Some((byte, have)) => (*byte, have),
        None => return 0,
    };
    let needed = match byte {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if needed > have { have } else { 0 }
}

impl Inner {
    fn push(&mut self, byte: u8) {
        if self.ring.len() == RING_BYTES {
            self.ring.pop_front();
        }
        self.ring.push_back(byte);
        self.total += 1;
        self.line.push(byte);
        if byte == b'\n' || self.line.len() >= LINE_MAX_BYTES {
            self.flush_line();
        }
    }

    fn flush_line(&mut self) {
        if self
            .line
            .windows(PANIC_TEXT.len())
            .any(|window| window == PANIC_TEXT)
        {
            self.panic_seen = true;
        }
        let before = self.written;
        self.written += self.line.len() as u64;
        if self.written <= FILE_MAX_BYTES {
            // A full disk must not stop the guest; the ring buffer still has the output.
            let _ = self.file.write_all(&self.line);
        } else if before <= FILE_MAX_BYTES {
            let _ = self.file.write_all(LIMIT_NOTE);
        }
        self.line.clear();
    }
}

impl Write for Console {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        for byte in data {
            inner.push(*byte);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The 8250 flushes after every byte; lines are written out as a whole instead.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};
    use std::os::fd::FromRawFd;

    fn memory_file() -> File {
        // SAFETY: the name is a C string; the descriptor is owned by the File alone.
        unsafe { File::from_raw_fd(libc::memfd_create(c"console".as_ptr(), 0)) }
    }

    #[test]
    fn the_ring_keeps_the_newest_output() {
        let mut console = Console::new(memory_file());
        console.write_all(&vec![b'a'; RING_BYTES]).unwrap();
        console.write_all(b"the end\n").unwrap();
        assert_eq!(console.tail(8, 0).0, "the end\n");
        assert_eq!(console.tail(usize::MAX, 0).0.len(), RING_BYTES);
        assert_eq!(console.total_bytes(), RING_BYTES as u64 + 8);
    }

    #[test]
    fn a_reader_that_follows_gets_each_byte_once() {
        let mut console = Console::new(memory_file());
        let mut end = 0;
        let mut shown = String::new();
        // The same line again and again: only a position tells one from the next.
        for text in [
            "tick\n",
            "tick\ntick\n",
            "",
            "tick\n",
            &"x".repeat(RING_BYTES),
        ] {
            console.write_all(text.as_bytes()).unwrap();
            let (news, now) = console.tail(usize::MAX, end);
            assert_eq!(news, text);
            shown.push_str(&news);
            end = now;
        }
        assert_eq!(end, shown.len() as u64);
        console.write_all(&[b'y'; RING_BYTES + 1]).unwrap();
        assert_eq!(
            console.tail(usize::MAX, end).0.len(),
            RING_BYTES,
            "lost what fell out"
        );
        assert_eq!(console.tail(usize::MAX, u64::MAX).0, "");
    }

    #[test]
    fn a_character_is_shown_once_it_is_whole() {
        let mut console = Console::new(memory_file());
        let mut end = 0;
        let mut shown = String::new();
        for byte in "a é ✓ 🦀.".bytes() {
            console.write_all(&[byte]).unwrap();
            let (news, now) = console.tail(usize::MAX, end);
            shown.push_str(&news);
            end = now;
        }
        assert_eq!(shown, "a é ✓ 🦀.");
        // What can never become a character is not waited for.
        console.write_all(&[0xff]).unwrap();
        assert_eq!(console.tail(usize::MAX, end).0, "\u{fffd}");
    }

    #[test]
    fn the_file_is_bounded() {
        let file = memory_file();
        let mut copy = file.try_clone().unwrap();
        let mut console = Console::new(file);
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            console.write_all(&line).unwrap();
        }
        let length = copy.metadata().unwrap().len();
        assert!(
            length <= FILE_MAX_BYTES + LIMIT_NOTE.len() as u64,
            "{length}"
        );
        let mut text = String::new();
        copy.rewind().unwrap();
        copy.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("[console file limit reached]\n"));
    }

    #[test]
    fn a_panic_is_noticed_when_its_line_ends() {
        let mut console = Console::new(memory_file());
        console
            .write_all(b"[    1.0] Kernel panic - not sync")
            .unwrap();
        assert!(!console.panic_seen());
        console
            .write_all(b"ing: Attempted to kill init!\r\n")
            .unwrap();
        assert!(console.panic_seen());
    }

    #[test]
    fn a_line_without_end_is_written_by_flush() {
        let file = memory_file();
        let copy = file.try_clone().unwrap();
        let mut console = Console::new(file);
        console.write_all(b"login: ").unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 0);
        Console::flush(&console);
        assert_eq!(copy.metadata().unwrap().len(), 7);
    }
}
