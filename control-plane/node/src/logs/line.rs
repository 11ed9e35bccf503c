//! One line of a CRI log file.

/// A parsed line; borrows from the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// RFC 3339 with nanoseconds, as written.
    pub timestamp: &'a str,
    /// It went to stderr.
    pub stderr: bool,
    /// The content goes on in the next line.
    pub partial: bool,
    /// Without the line's own newline.
    pub content: &'a [u8],
}

/// Parses a line with or without its newline; `None` when it is not in CRI's format, as after a
/// torn write.
pub fn parse(raw: &[u8]) -> Option<LogLine<'_>> {
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    let mut parts = raw.splitn(4, |byte| *byte == b' ');
    let timestamp = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // Tags may follow the first one after a colon.
    let tag = parts.next()?.split(|byte| *byte == b':').next()?;
    let partial = match tag {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    timestamp.contains('T').then_some(())?;
    Some(LogLine {
        timestamp,
        stderr,
        partial,
        content: parts.next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse_and_garbage_does_not() {
        let line = parse(b"2026-11-22T05:00:00.000000001Z stderr P a  b \n").unwrap();
        assert_eq!(line.timestamp, "2026-11-22T05:00:00.000000001Z");
        assert!(line.stderr && line.partial);
        assert_eq!(line.content, b"a  b ");
        assert_eq!(
            parse(b"2026-11-22T05:00:00Z stdout F").unwrap().content,
            b""
        );
        assert_eq!(
            parse(b"2026-11-22T05:00:00Z stdout F:x y").unwrap().content,
            b"y"
        );
        for bad in [
            &b""[..],
            b"x",
            b"now stdout F a",
            b"2026T stdin F a",
            b"2026T stdout X a",
            b"\xff\xff stdout F a",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
