//! Regular expressions of schemas, with bounded memory: the authors of definitions are not
//! the server's.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

/// Compiled sizes that are tried, in bytes: an expression is charged with the first that fits.
const SIZES: [usize; 3] = [16 << 10, 128 << 10, 1 << 20];
/// All expressions of one schema together, in bytes.
const BUDGET: usize = 64 << 20;
/// Memory that matching may use for one expression, in bytes.
const MATCH_MEMORY: usize = 256 << 10;

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is none.
    #[error("{0}")]
    Syntax(String),
    /// It, or all of them together, would need too much memory.
    #[error("the expression is too large")]
    TooLarge,
}

/// The expressions of one schema; equal ones are compiled once.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    known: HashMap<String, Regex>,
    used: usize,
}

impl Patterns {
    pub(super) fn get(&mut self, pattern: &str) -> Result<Regex, PatternError> {
        if let Some(regex) = self.known.get(pattern) {
            return Ok(regex.clone());
        }
        for size in SIZES {
            if self.used + size > BUDGET {
                break;
            }
            match build(pattern, size) {
                Ok(regex) => {
                    self.used += size;
                    self.known.insert(pattern.to_string(), regex.clone());
                    return Ok(regex);
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(PatternError::Syntax(one_line(&error))),
            }
        }
        Err(PatternError::TooLarge)
    }
}

fn build(pattern: &str, size: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(size)
        .dfa_size_limit(MATCH_MEMORY)
        .build()
}

/// The parser draws the expression with marks below; the last line says what is wrong.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or("").trim();
    let words = last.strip_prefix("error: ").unwrap_or(last);
    format!("error parsing regexp: {words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_and_broken_expressions_are_refused() {
        let mut patterns = Patterns::default();
        assert!(patterns.get("^[a-z]+$").unwrap().is_match("abc"));
        assert_eq!(
            patterns.get("((a{1000}){1000}){1000}").unwrap_err(),
            PatternError::TooLarge
        );
        assert!(matches!(patterns.get("a("), Err(PatternError::Syntax(_))));
        assert!(matches!(
            patterns.get("(?=look)"),
            Err(PatternError::Syntax(_))
        ));
    }

    #[test]
    fn expressions_share_one_budget() {
        let mut patterns = Patterns::default();
        let refused = (0..200)
            .filter(|i| {
                patterns
                    .get(&format!("(a{{900}}b{{900}}{i}){{9}}"))
                    .is_err()
            })
            .count();
        assert!(refused > 0);
    }
}
