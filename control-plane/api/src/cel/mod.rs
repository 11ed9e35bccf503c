//! The Common Expression Language, as Kubernetes uses it in definitions and policies.
//!
//! ```text
//!  text ─ lexer ─ parser ─► ast ─ check ─► Program ─ eval(variables, budget) ─► Value
//!                                  │                    │
//!                    │    names, functions, fields      ├─ operators
//!                    │    of the schema, patterns       └─ functions: strings, lists, numbers,
//!                    └ types ─► its type, or issues          times, quantities, addresses, URLs,
//!                                                            versions, formats, the authorizer
//! ```
//!
//! Values read JSON where it is and take their types from the structural schema (times,
//! durations, bytes). Expressions come from strangers: their length and depth are bounded, and
//! every step costs something, as does work in proportion to a text's or list's length; who
//! spends the budget gets an error. There are no loops but over lists and maps.
//!
//! Who accepts an expression asks [`type_of`] too, which tells what it makes and whether its parts
//! fit each other. [`Program::compile`] by itself checks names, functions and fields only: what was
//! accepted once by less strict rules still runs.

mod ast;
mod check;
pub(crate) mod cost;
mod eval;
mod functions;
mod lexer;
mod operators;
mod parser;
mod types;
mod value;

use std::collections::HashMap;

use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};

use crate::custom::Node;

pub use eval::EvalError;
pub use functions::authorizer::{Authorizer, Check, Question, Verdict};
pub use types::{Record, Type};
pub use value::{Map, Value};

/// Longest expression, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 120;
/// What one evaluation may cost; Kubernetes' limit.
pub const CALL_COST: u64 = 1_000_000;
/// What all rules of an object may cost together; Kubernetes' limit.
pub const OBJECT_COST: u64 = 10_000_000;
/// Compiled size of a pattern, in bytes.
const PATTERN_BYTES: usize = 256 << 10;
/// Patterns that a program remembers.
const KNOWN_PATTERNS: usize = 16;

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It does not follow the grammar.
    #[error("ERROR: <input>:{line}:{column}: Syntax error: {why}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What was found.
        why: String,
    },
    /// A name or function that nobody declared.
    #[error("undeclared reference to '{0}' (in container '')")]
    Undeclared(String),
    /// A field that the schema does not have.
    #[error("undefined field '{0}'")]
    UndefinedField(String),
    /// A function with other arguments than it takes.
    #[error("found no matching overload for '{0}'")]
    Arguments(String),
    /// A constant pattern that is none.
    #[error("invalid matches argument: {0}")]
    Pattern(String),
    /// A constant format that is none.
    #[error("{0}")]
    Format(String),
    /// Types that do not fit each other, fields and names that are not there.
    #[error("{0}")]
    Types(String),
    /// Longer than allowed.
    #[error("expression exceeds the limit of {MAX_BYTES} bytes")]
    TooLong,
    /// Nested deeper than allowed.
    #[error("expression recursion limit exceeded: {MAX_DEPTH}")]
    TooDeep,
}

impl CompileError {
    fn syntax(source: &str, at: usize, why: &str) -> Self {
        let before = source.get(..at).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        CompileError::Syntax {
            line: before.matches('\n').count() + 1,
            column: before.len() - line_start + 1,
            why: why.to_string(),
        }
    }
}

/// The type of an expression that may use such names.
///
/// # Errors
/// When the text is no expression, or its parts do not fit each other.
pub fn type_of<'n>(source: &str, names: &[(&str, Type<'n>)]) -> Result<Type<'n>, CompileError> {
    if source.len() > MAX_BYTES {
        return Err(CompileError::TooLong);
    }
    let root = parser::parse(source)?;
    let mut issues = Vec::new();
    let found = types::infer(&root, names, &mut issues);
    if issues.is_empty() {
        return Ok(found);
    }
    issues.sort_by_key(|issue| issue.at);
    let shown: Vec<String> = issues.iter().map(|issue| issue.show(source)).collect();
    Err(CompileError::Types(shown.join("\n")))
}

/// A name that expressions may use.
#[derive(Debug, Clone, Copy)]
pub struct Declared<'n> {
    /// The name.
    pub name: &'n str,
    /// What it looks like; `None`: anything.
    pub schema: Option<&'n Node>,
    /// It is the root of a resource, which has `apiVersion`, `kind` and `metadata`.
    pub is_resource: bool,
}

impl<'n> Declared<'n> {
    /// A name of something of which nothing is known.
    pub fn any(name: &'n str) -> Self {
        Declared {
            name,
            schema: None,
            is_resource: false,
        }
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    root: ast::Expr,
    patterns: Mutex<HashMap<String, Regex>>,
}

impl Program {
    /// Compiles an expression that may use the given names.
    ///
    /// # Errors
    /// When the text is no expression, or uses what is not there.
    pub fn compile(source: &str, names: &[Declared<'_>]) -> Result<Self, CompileError> {
        if source.len() > MAX_BYTES {
            return Err(CompileError::TooLong);
        }
        let root = parser::parse(source)?;
        check::check(&root, names)?;
        Ok(Program {
            root,
            patterns: Mutex::default(),
        })
    }

    /// The expression uses a name.
    pub fn uses(&self, name: &str) -> bool {
        check::uses(&self.root, name)
    }

    /// Evaluates the expression. What it costs is taken from `budget`.
    ///
    /// # Errors
    /// When the expression fails, or costs more than there is.
    pub fn evaluate<'a>(
        &'a self,
        names: &[(&str, Value<'a>)],
        budget: &mut u64,
    ) -> Result<Value<'a>, EvalError> {
        eval::evaluate(self, names, budget)
    }

    fn pattern(&self, text: &str) -> Result<Regex, String> {
        let mut known = self.patterns.lock();
        if let Some(regex) = known.get(text) {
            return Ok(regex.clone());
        }
        let regex = pattern(text)?;
        if known.len() >= KNOWN_PATTERNS {
            known.clear();
        }
        known.insert(text.to_string(), regex.clone());
        Ok(regex)
    }
}

/// A name that a variable can have.
pub(crate) fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| word(c) && !c.is_ascii_digit())
        && name.chars().all(word)
        && !RESERVED.contains(&name)
}

fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or("").trim().to_string();
            format!("error parsing regexp: {last}")
        })
}

#[cfg(test)]
mod tests;
