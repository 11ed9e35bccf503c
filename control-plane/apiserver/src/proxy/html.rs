//! As much of HTML as it takes to find the tags of a page while it passes by (HTML, §13.2.5).

/// A tag of more bytes passes as it is.
const MAX_TAG_BYTES: usize = 16 << 10;
const COMMENT: &[u8] = b"<!--";
const COMMENT_END: &[u8] = b"-->";
/// Elements whose content has no tags but their own end.
const RAW: [&str; 8] = [
    "iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp",
];

/// Where the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    Comment,
    /// Within the element, until its end tag.
    Raw(&'static str),
}

/// Passes a page on, tag by tag changed.
#[derive(Debug)]
pub(super) struct Scanner<F> {
    /// A tag's new bytes; `None`: as it is.
    change: F,
    place: Place,
    /// What was not passed on yet: the beginning of a tag.
    waiting: Vec<u8>,
}

impl<F: FnMut(&[u8]) -> Option<Vec<u8>>> Scanner<F> {
    pub(super) fn new(change: F) -> Self {
        Scanner {
            change,
            place: Place::Text,
            waiting: Vec::new(),
        }
    }

    /// Takes a piece of the page; what can be passed on.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.waiting.extend_from_slice(piece);
        let input = std::mem::take(&mut self.waiting);
        let (mut out, mut at) = (Vec::with_capacity(input.len()), 0);
        while let Some(used) = self.step(&input[at..], &mut out) {
            at += used;
        }
        self.waiting = input[at..].to_vec();
        out
    }

    /// The end of the page: what was still waiting.
    pub(super) fn finish(self) -> Vec<u8> {
        self.waiting
    }

    /// Passes on a first part of the input: its length. `None`: more is needed to tell.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if input.is_empty() {
            return None;
        }
        match self.place {
            Place::Text => self.text(input, out),
            Place::Comment => {
                let end = find(input, COMMENT_END).map(|at| at + COMMENT_END.len());
                if end.is_some() {
                    self.place = Place::Text;
                }
                pass(input, end, COMMENT_END.len(), out)
            }
            Place::Raw(element) => {
                let end = find_end_tag(input, element);
                if end.is_some() {
                    self.place = Place::Text;
                }
                // An end tag at once: the next step is about it.
                if end == Some(0) {
                    return self.text(input, out);
                }
                pass(input, end, element.len() + 2, out)
            }
        }
    }

    fn text(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let start = input.iter().position(|byte| *byte == b'<');
        match start {
            Some(0) => {}
            Some(start) => return pass(input, Some(start), 0, out),
            None => return pass(input, Some(input.len()), 0, out),
        }
        if input.len() < COMMENT.len() && COMMENT.starts_with(input) {
            return None;
        }
        if input.starts_with(COMMENT) {
            self.place = Place::Comment;
            return pass(input, Some(COMMENT.len()), 0, out);
        }
        let begins = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'!' | b'?');
        if !input.get(1).copied().is_some_and(begins) {
            return pass(input, Some(1), 0, out);
        }
        let Some(end) = tag_end(input) else {
            let too_long = input.len() > MAX_TAG_BYTES;
            return too_long.then(|| pass(input, Some(input.len()), 0, out))?;
        };
        let tag = &input[..end];
        if let Some(element) = Tag::parse(tag).and_then(|tag| tag.raw_element()) {
            self.place = Place::Raw(element);
        }
        match (self.change)(tag) {
            Some(changed) => out.extend_from_slice(&changed),
            None => out.extend_from_slice(tag),
        }
        Some(end)
    }
}

/// Passes on what comes before `end`; without an end, all but what may be the beginning of a
/// mark of `mark` bytes.
fn pass(input: &[u8], end: Option<usize>, mark: usize, out: &mut Vec<u8>) -> Option<usize> {
    let length = end.unwrap_or_else(|| (input.len() + 1).saturating_sub(mark));
    out.extend_from_slice(&input[..length]);
    (length > 0).then_some(length)
}

fn find(input: &[u8], mark: &[u8]) -> Option<usize> {
    input.windows(mark.len()).position(|window| window == mark)
}

/// Where `</ELEMENT` begins.
fn find_end_tag(input: &[u8], element: &str) -> Option<usize> {
    input.windows(element.len() + 2).position(|window| {
        window.starts_with(b"</") && window[2..].eq_ignore_ascii_case(element.as_bytes())
    })
}

/// The length of the tag that the input begins with. A `>` in a quoted value does not end it.
fn tag_end(input: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut after_equals = false;
    for (at, byte) in input.iter().copied().enumerate() {
        match quote {
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None => match byte {
                b'>' => return Some(at + 1),
                b'"' | b'\'' if after_equals => quote = Some(byte),
                _ => {}
            },
        }
        after_equals = byte == b'=' || (after_equals && byte.is_ascii_whitespace());
    }
    None
}

/// An element's start tag.
#[derive(Debug)]
pub(super) struct Tag<'t> {
    bytes: &'t [u8],
    /// In lower case.
    pub name: String,
    /// Where the attributes begin.
    rest: usize,
}

impl<'t> Tag<'t> {
    /// `None`: it is another kind of tag.
    pub(super) fn parse(bytes: &'t [u8]) -> Option<Self> {
        let inner = bytes.strip_prefix(b"<")?;
        if !inner.first()?.is_ascii_alphabetic() {
            return None;
        }
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
        let length = inner.iter().position(ends)?;
        let name = std::str::from_utf8(&inner[..length]).ok()?;
        Some(Tag {
            bytes,
            name: name.to_ascii_lowercase(),
            rest: length + 1,
        })
    }

    fn raw_element(&self) -> Option<&'static str> {
        RAW.into_iter().find(|raw| *raw == self.name)
    }

    /// The tag with other values of its attributes; `None`: nothing changes. `change` is told
    /// names and values as they are written, without the quotes.
    pub(super) fn replaced(
        &self,
        mut change: impl FnMut(&str, &str) -> Option<String>,
    ) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let (mut copied, mut at) = (0, self.rest);
        while let Some((name, value, next)) = self.attribute(at) {
            at = next;
            let texts = (
                std::str::from_utf8(&self.bytes[name]),
                std::str::from_utf8(&self.bytes[value.clone()]),
            );
            if let (Ok(name), Ok(text)) = texts
                && let Some(new) = change(name, text)
            {
                out.extend_from_slice(&self.bytes[copied..value.start]);
                out.extend_from_slice(new.as_bytes());
                copied = value.end;
            }
        }
        if copied == 0 {
            return None;
        }
        out.extend_from_slice(&self.bytes[copied..]);
        Some(out)
    }

    /// The attribute at or after a position: where its name and value are, and where to go on.
    fn attribute(&self, at: usize) -> Option<(Span, Span, usize)> {
        let start = self.after(at, |byte| byte.is_ascii_whitespace() || byte == b'/');
        if self.bytes.get(start).is_none_or(|byte| *byte == b'>') {
            return None;
        }
        // A first `=` belongs to the name.
        let end = self.after(start + 1, |byte| {
            !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'>' | b'=')
        });
        let equals = self.after(end, |byte| byte.is_ascii_whitespace());
        if self.bytes.get(equals) != Some(&b'=') {
            return Some((start..end, end..end, end));
        }
        let first = self.after(equals + 1, |byte| byte.is_ascii_whitespace());
        match self.bytes.get(first) {
            Some(quote @ (b'"' | b'\'')) => {
                let last = self.after(first + 1, |byte| byte != *quote);
                Some((start..end, first + 1..last, last + 1))
            }
            _ => {
                let last = self.after(first, |byte| !byte.is_ascii_whitespace() && byte != b'>');
                Some((start..end, first..last, last))
            }
        }
    }

    /// The first position from `at` on that is none of these bytes.
    fn after(&self, at: usize, these: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !these(*byte));
        at.min(self.bytes.len()) + length.unwrap_or(rest.len())
    }
}

type Span = std::ops::Range<usize>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Tags in upper case, the page cut into pieces of this many bytes.
    fn scanned(page: &str, size: usize) -> String {
        let mut scanner = Scanner::new(|tag: &[u8]| Some(tag.to_ascii_uppercase()));
        let mut out = Vec::new();
        for piece in page.as_bytes().chunks(size) {
            out.extend(scanner.push(piece));
        }
        out.extend(scanner.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tags_are_found_however_the_page_is_cut() {
        let page = "a < b<!doctype x><p a='>' b=\">\">t</p><!-- <p> --><script x>if (a<b) '<p>'\
                    </scrip></ScRiPt><style></style><p a=b\"c>d</p><title><b></title> <";
        let expected = "a < b<!DOCTYPE X><P A='>' B=\">\">t</P><!-- <p> --><SCRIPT X>if (a<b) '<p>'\
                        </scrip></SCRIPT><STYLE></STYLE><P A=B\"C>d</P><TITLE><b></TITLE> <";
        for size in 1..page.len() {
            assert_eq!(scanned(page, size), expected, "pieces of {size} bytes");
        }
    }

    #[test]
    fn a_page_that_breaks_off_passes_whole() {
        for page in [
            "<p",
            "<p a='>",
            "<!-",
            "<!-- x",
            "<script>x</scr",
            "<",
            "é<p é=é>é",
        ] {
            let same = |size| {
                let mut scanner = Scanner::new(|_: &[u8]| None);
                let mut out = Vec::new();
                for piece in page.as_bytes().chunks(size) {
                    out.extend(scanner.push(piece));
                }
                out.extend(scanner.finish());
                String::from_utf8(out).unwrap()
            };
            assert_eq!(same(1), page);
            assert_eq!(same(page.len()), page);
        }
    }

    #[test]
    fn a_tag_without_an_end_does_not_fill_the_memory() {
        let mut scanner = Scanner::new(|_: &[u8]| None);
        let mut passed = scanner.push(b"<p a='").len();
        for _ in 0..100 {
            passed += scanner.push(&[b'x'; 4096]).len();
            assert!(scanner.waiting.len() <= MAX_TAG_BYTES + 4096);
        }
        assert_eq!(passed + scanner.finish().len(), 6 + 100 * 4096);
    }

    #[test]
    fn attributes_are_read_as_browsers_do() {
        let tag = Tag::parse(b"<a b = 'c d' e=f/g/ h i=\"\" ='x' j>").unwrap();
        let mut seen = Vec::new();
        let same = tag.replaced(|name, value| {
            seen.push(format!("{name}:{value}"));
            None
        });
        assert_eq!(same, None);
        assert_eq!(seen, ["b:c d", "e:f/g/", "h:", "i:", "='x':", "j:"]);
    }
}
