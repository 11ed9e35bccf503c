//! The [`Kind`]s of custom resources.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{CustomResource, Definition, strategy::Strategy};
use crate::registry::{Keeping, Kind, Subresource};

/// Custom kinds that one server tells apart in its life. Each needs about a kilobyte.
const MAX_KINDS: usize = 65_536;

/// The server has seen [`MAX_KINDS`] kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server has seen {MAX_KINDS} custom kinds since it was started")]
pub struct TooManyKinds;

/// Everything that tells one kind from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shape {
    group: String,
    version: String,
    kind: String,
    plural: String,
    singular: String,
    short_names: Vec<String>,
    categories: Vec<String>,
    namespaced: bool,
    status: bool,
    scale: bool,
}

struct Known {
    kind: &'static Kind,
    strategy: &'static Strategy,
}

/// The kinds that were ever needed.
#[derive(Default)]
pub struct CustomKinds {
    known: HashMap<Shape, Known>,
}

impl CustomKinds {
    /// The kind of a version of a definition, from now on with the rules of `resource`.
    ///
    /// # Errors
    /// When the server has seen too many.
    pub fn kind(
        &mut self,
        definition: &Definition<'_>,
        resource: Arc<CustomResource>,
    ) -> Result<&'static Kind, TooManyKinds> {
        let texts = |pointer: &str| definition.texts(pointer).map(str::to_string).collect();
        let shape = Shape {
            group: resource.group.clone(),
            version: resource.version.clone(),
            kind: resource.kind.clone(),
            plural: definition.plural().to_string(),
            singular: definition.singular().to_string(),
            short_names: texts("/spec/names/shortNames"),
            categories: texts("/spec/names/categories"),
            namespaced: definition.is_namespaced(),
            status: resource.has_status,
            scale: resource.scale.is_some(),
        };
        if let Some(known) = self.known.get(&shape) {
            known.strategy.set(resource);
            return Ok(known.kind);
        }
        if self.known.len() >= MAX_KINDS {
            return Err(TooManyKinds);
        }
        let known = make(&shape, definition);
        known.strategy.set(resource);
        let kind = known.kind;
        self.known.insert(shape, known);
        Ok(kind)
    }

    /// Frees what belongs to kinds that are not served any more.
    pub fn keep_only(&self, served: &[&'static Kind]) {
        let served: HashSet<*const Kind> = served
            .iter()
            .map(|kind| std::ptr::from_ref(*kind))
            .collect();
        for known in self.known.values() {
            if !served.contains(&std::ptr::from_ref(known.kind)) {
                known.strategy.set(Arc::default());
            }
        }
    }
}

/// Text that lives as long as the process.
fn keep(text: &str) -> &'static str {
    Box::leak(text.to_string().into_boxed_str())
}

fn keep_all(texts: &[String]) -> &'static [&'static str] {
    let kept: Vec<&'static str> = texts.iter().map(|text| keep(text)).collect();
    Box::leak(kept.into_boxed_slice())
}

/// Makes a kind; see the module above for why it is never freed.
fn make(shape: &Shape, definition: &Definition<'_>) -> Known {
    let strategy: &'static Strategy = Box::leak(Box::default());
    let kind = Kind {
        group: keep(&shape.group),
        version: keep(&shape.version),
        kind: keep(&shape.kind),
        plural: keep(&shape.plural),
        singular: keep(&shape.singular),
        short_names: keep_all(&shape.short_names),
        categories: keep_all(&shape.categories),
        namespaced: shape.namespaced,
        delete_collection: true,
        subresources: match (shape.status, shape.scale) {
            (false, false) => &[],
            (true, false) => &[Subresource::Status],
            (false, true) => &[Subresource::Scale],
            (true, true) => &[Subresource::Scale, Subresource::Status],
        },
        schema: "",
        storage: keep(&definition.storage()),
        conversion: None,
        keeping: Keeping::Stored,
        // A version of a definition has words of its own.
        deprecated: None,
        strategy,
    };
    Known {
        kind: Box::leak(Box::new(kind)),
        strategy,
    }
}
