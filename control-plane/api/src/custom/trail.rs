//! Where a walk is, written out only when there is something to say.

use std::fmt;

/// A step, and where it was made from.
#[derive(Clone, Copy)]
pub(super) enum Trail<'a> {
    Root,
    Field(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Field(Trail::Root, name) => f.write_str(name),
            Trail::Field(parent, name) => write!(f, "{parent}.{name}"),
            Trail::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
