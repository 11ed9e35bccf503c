//! Container logs as the runtime writes them (CRI log format), read for `kubectl logs`.
//!
//! One line of a file is `TIMESTAMP stdout|stderr F|P content`: `P` marks a part of a longer line.
//! [`line`] parses, [`select`] decides which lines a request wants, [`reader`] finds the place to
//! start and follows the file across rotation, and [`rotate`] sets large files aside.

pub mod line;
pub mod reader;
pub(crate) mod rotate;
pub mod select;
