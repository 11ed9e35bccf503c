//! Binding: the scheduler's decision, as an object of its own. `pods/NAME/binding` takes it too.

use super::PLAIN;
use crate::registry::{Keeping, Kind};

/// `v1` Binding.
pub static BINDINGS: Kind = Kind {
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    schema: "core.Binding",
    storage: "bindings",
    keeping: Keeping::Answered,
    ..PLAIN
};
