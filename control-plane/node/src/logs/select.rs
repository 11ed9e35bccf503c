//! Which lines a log request wants, and how they are written.

use jiff::Timestamp;

use super::line::LogLine;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    /// Both.
    #[default]
    All,
    /// stdout only.
    Stdout,
    /// stderr only.
    Stderr,
}

/// A log request's options (PodLogOptions).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogOptions {
    /// Go on while the container runs.
    pub follow: bool,
    /// The attempt before the present one.
    pub previous: bool,
    /// Lines from the end.
    pub tail_lines: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Write each line's timestamp.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Which streams.
    pub streams: Streams,
}

/// Turns lines into the answer's bytes, within the limit.
#[derive(Debug)]
pub struct Selector {
    options: LogOptions,
    left: Option<u64>,
    /// The next line continues one whose timestamp was written.
    continued: bool,
}

impl Selector {
    /// Nothing has been written yet.
    pub fn new(options: LogOptions) -> Self {
        Selector {
            left: options.limit_bytes,
            options,
            continued: false,
        }
    }

    /// Whether the line belongs to the answer, the limit aside.
    pub fn wants(&self, line: &LogLine<'_>) -> bool {
        let stream = match self.options.streams {
            Streams::All => true,
            Streams::Stdout => !line.stderr,
            Streams::Stderr => line.stderr,
        };
        let recent = match self.options.since {
            Some(since) => line
                .timestamp
                .parse::<Timestamp>()
                .is_ok_and(|at| at >= since),
            None => true,
        };
        stream && recent
    }

    /// Appends the line if it is wanted; false when the limit is reached.
    pub fn write(&mut self, line: &LogLine<'_>, output: &mut Vec<u8>) -> bool {
        if !self.wants(line) {
            return true;
        }
        let start = output.len();
        if self.options.timestamps && !self.continued {
            output.extend_from_slice(line.timestamp.as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(line.content);
        if !line.partial {
            output.push(b'\n');
        }
        self.continued = line.partial;
        let Some(left) = &mut self.left else {
            return true;
        };
        let written = (output.len() - start) as u64;
        if written >= *left {
            output.truncate(start + usize::try_from(*left).unwrap_or(usize::MAX));
            *left = 0;
            return false;
        }
        *left -= written;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::parse;
    use super::*;

    const LOG: &[&[u8]] = &[
        b"2026-11-22T05:00:00.1Z stdout P one-",
        b"2026-11-22T05:00:00.2Z stdout F two",
        b"2026-11-22T05:00:01Z stderr F three",
    ];

    fn select(options: LogOptions) -> String {
        let mut selector = Selector::new(options);
        let mut output = Vec::new();
        for raw in LOG {
            if !selector.write(&parse(raw).unwrap(), &mut output) {
                break;
            }
        }
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn options_select_lines() {
        let with = LogOptions::default;
        assert_eq!(select(with()), "one-two\nthree\n");
        assert_eq!(
            select(LogOptions {
                timestamps: true,
                ..with()
            }),
            "2026-11-22T05:00:00.1Z one-two\n2026-11-22T05:00:01Z three\n"
        );
        assert_eq!(
            select(LogOptions {
                limit_bytes: Some(9),
                ..with()
            }),
            "one-two\nt"
        );
        let since = Some("2026-11-22T05:00:01Z".parse().unwrap());
        assert_eq!(select(LogOptions { since, ..with() }), "three\n");
        assert_eq!(
            select(LogOptions {
                streams: Streams::Stdout,
                ..with()
            }),
            "one-two\n"
        );
        assert_eq!(
            select(LogOptions {
                streams: Streams::Stderr,
                ..with()
            }),
            "three\n"
        );
    }
}
