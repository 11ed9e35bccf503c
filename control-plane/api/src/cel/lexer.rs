//! Text to tokens.

use super::{CompileError, ast::Literal};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Literal(Literal),
    Ident(String),
    /// An operator or bracket.
    Symbol(&'static str),
    End,
}

/// Longer ones first.
const SYMBOLS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "<", ">",
    "!", "+", "-", "*", "/", "%", "=",
];

/// A token and where it begins, in bytes.
pub(super) type Spanned = (Token, usize);

pub(super) fn tokens(source: &str) -> Result<Vec<Spanned>, CompileError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        if at >= source.len() {
            tokens.push((Token::End, at));
            return Ok(tokens);
        }
        tokens.push((lexer.next()?, at));
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or("")
    }

    fn error(&self, why: &str) -> CompileError {
        CompileError::syntax(self.source, self.at, why)
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Token, CompileError> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or('\0');
        if let Some((raw, bytes, length)) = quoted_prefix(rest) {
            self.at += length;
            return self.text(raw, bytes);
        }
        if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            self.at += end;
            return Ok(match &rest[..end] {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                name => Token::Ident(name.to_string()),
            });
        }
        if first == '`' {
            let end = rest[1..]
                .find('`')
                .ok_or_else(|| self.error("unterminated identifier"))?;
            self.at += end + 2;
            return Ok(Token::Ident(rest[1..=end].to_string()));
        }
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            None => Err(self.error(&format!("token recognition error at: '{first}'"))),
        }
    }

    fn number(&mut self) -> Result<Token, CompileError> {
        let rest = self.rest();
        let hex = rest.starts_with("0x") || rest.starts_with("0X");
        let mut end = if hex { 2 } else { 0 };
        let mut float = false;
        let bytes = rest.as_bytes();
        while let Some(byte) = bytes.get(end) {
            let next_is_digit = bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            match byte {
                b'0'..=b'9' => {}
                b'a'..=b'f' | b'A'..=b'F' if hex => {}
                b'.' if !float && next_is_digit => float = true,
                b'e' | b'E' if end > 0 => {
                    float = true;
                    if matches!(bytes.get(end + 1), Some(b'+' | b'-')) {
                        end += 1;
                    }
                }
                _ => break,
            }
            end += 1;
        }
        let text = &rest[..end];
        let unsigned = matches!(bytes.get(end), Some(b'u' | b'U'));
        let malformed = || CompileError::syntax(self.source, self.at, "invalid number literal");
        let literal = if float {
            Literal::Double(text.parse().map_err(|_| malformed())?)
        } else {
            let value = match text.get(2..).filter(|_| hex) {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => text.parse::<u64>(),
            }
            .map_err(|_| malformed())?;
            if unsigned {
                Literal::Uint(value)
            } else {
                match i64::try_from(value) {
                    Ok(value) => Literal::Int(value),
                    // The sign of the smallest number comes before it.
                    Err(_) if value == i64::MIN.unsigned_abs() => Literal::Int(i64::MIN),
                    Err(_) => return Err(malformed()),
                }
            }
        };
        self.at += end + usize::from(unsigned);
        Ok(Token::Literal(literal))
    }

    fn text(&mut self, raw: bool, bytes: bool) -> Result<Token, CompileError> {
        let rest = self.rest();
        let quote = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| rest.starts_with(quote))
            .unwrap_or("\"");
        let start = self.at;
        self.at += quote.len();
        let mut out = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(c) = rest.chars().next() else {
                self.at = start;
                return Err(self.error("unterminated string"));
            };
            self.at += c.len_utf8();
            if c == '\\' && !raw {
                self.escape(bytes, &mut out)?;
            } else if c == '\n' && quote.len() == 1 {
                return Err(self.error("unterminated string"));
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if bytes {
            return Ok(Token::Literal(Literal::Bytes(out)));
        }
        match String::from_utf8(out) {
            Ok(text) => Ok(Token::Literal(Literal::String(text))),
            Err(_) => Err(self.error("invalid string literal")),
        }
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), CompileError> {
        let rest = self.rest();
        let c = rest.chars().next().unwrap_or('\0');
        let simple = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => u8::try_from(c).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            self.at += 1;
            out.push(byte);
            return Ok(());
        }
        let (skip, digits, radix) = match c {
            'x' | 'X' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => return Err(self.error("invalid escape sequence")),
        };
        let code = rest
            .get(skip..skip + digits)
            .and_then(|digits| u32::from_str_radix(digits, radix).ok())
            .ok_or_else(|| self.error("invalid escape sequence"))?;
        self.at += skip + digits;
        match (bytes, u8::try_from(code)) {
            (true, Ok(byte)) => out.push(byte),
            _ => {
                let c =
                    char::from_u32(code).ok_or_else(|| self.error("invalid escape sequence"))?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Ok(())
    }
}

/// A text begins here: raw, bytes, and the length of what says so.
fn quoted_prefix(rest: &str) -> Option<(bool, bool, usize)> {
    let end = rest.find(['"', '\'']).filter(|end| *end <= 2)?;
    let prefix = rest[..end].to_ascii_lowercase();
    match prefix.as_str() {
        "" => Some((false, false, 0)),
        "r" => Some((true, false, 1)),
        "b" => Some((false, true, 1)),
        "br" | "rb" => Some((true, true, 2)),
        _ => None,
    }
}
