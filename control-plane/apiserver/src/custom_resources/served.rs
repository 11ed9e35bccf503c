//! What is served at one moment.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, OnceLock},
};

use hull_api::{
    Kind, ObjectExt, Registry,
    custom::{CustomKinds, CustomResource, Definition, version_order},
};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::open_api::{Documents, Packed};

/// The kinds, and the documents about them as soon as somebody asked for them.
#[derive(Debug)]
pub(crate) struct Served {
    pub registry: Registry,
    /// Aggregated discovery: of the core group, of the others.
    pub aggregated: OnceLock<[String; 2]>,
    /// OpenAPI v3 by the group's path, of groups with custom resources.
    pub documents: OnceLock<Documents>,
    /// OpenAPI v2: JSON and protobuf.
    pub document_v2: OnceLock<io::Result<(Packed, Packed)>>,
}

impl Served {
    fn new(registry: Registry) -> Self {
        Served {
            registry,
            aggregated: OnceLock::new(),
            documents: OnceLock::new(),
            document_v2: OnceLock::new(),
        }
    }
}

/// The versions of a definition, read once per change of it.
struct Compiled {
    /// What they were made of.
    spec: Value,
    terminating: bool,
    /// Served versions.
    versions: Vec<Arc<CustomResource>>,
}

#[derive(Default)]
struct Making {
    kinds: CustomKinds,
    /// By the definition's name.
    compiled: HashMap<String, Compiled>,
}

/// The kinds of the moment.
pub(crate) struct ServedKinds {
    current: RwLock<Arc<Served>>,
    making: Mutex<Making>,
}

impl ServedKinds {
    pub(crate) fn new() -> Self {
        ServedKinds {
            current: RwLock::new(Arc::new(Served::new(Registry::with_custom([])))),
            making: Mutex::default(),
        }
    }

    pub(crate) fn current(&self) -> Arc<Served> {
        self.current.read().clone()
    }

    /// A served kind by its storage name.
    pub(crate) fn by_storage(&self, storage: &str) -> Option<&'static Kind> {
        let served = self.current();
        let mut kinds = served.registry.kinds().iter().copied();
        kinds.find(|kind| kind.storage == storage)
    }

    /// Serves the given definitions, whose names are accepted, and nothing else besides what is
    /// built in.
    pub(crate) fn serve(&self, definitions: &[Value]) {
        let mut making = self.making.lock();
        let mut kinds = Vec::new();
        let mut changed = false;
        let gone = |name: &String| !definitions.iter().any(|one| one.name() == name);
        let before = making.compiled.len();
        making.compiled.retain(|name, _| !gone(name));
        changed |= making.compiled.len() != before;
        for object in definitions {
            let definition = Definition(object);
            changed |= making.refresh(object);
            let Making {
                kinds: known,
                compiled,
            } = &mut *making;
            let Some(compiled) = compiled.get(object.name()) else {
                continue;
            };
            for version in &compiled.versions {
                match known.kind(&definition, version.clone()) {
                    Ok(kind) => kinds.push(kind),
                    Err(error) => {
                        tracing::error!(definition = object.name(), %error, "not served");
                    }
                }
            }
        }
        kinds.sort_by(|a, b| {
            (a.group.cmp(b.group))
                .then_with(|| version_order(a.version, b.version))
                .then_with(|| a.plural.cmp(b.plural))
        });
        making.kinds.keep_only(&kinds);
        let same = self
            .current()
            .registry
            .kinds()
            .iter()
            .filter(|kind| kind.strategy.custom().is_some())
            .map(|kind| std::ptr::from_ref(*kind))
            .eq(kinds.iter().map(|kind| std::ptr::from_ref(*kind)));
        if changed || !same {
            *self.current.write() = Arc::new(Served::new(Registry::with_custom(kinds)));
        }
    }
}

impl Making {
    /// Reads a definition again if it changed; true when it did.
    fn refresh(&mut self, object: &Value) -> bool {
        let definition = Definition(object);
        let spec = served_spec(object);
        let terminating = definition.is_terminating();
        if let Some(old) = self.compiled.get(object.name())
            && old.spec == spec
            && old.terminating == terminating
        {
            return false;
        }
        let mut versions = Vec::new();
        for version in definition.versions() {
            if !version.bool_at("/served") {
                continue;
            }
            match CustomResource::compile(&definition, version) {
                Ok(resource) => versions.push(Arc::new(resource)),
                Err(error) => {
                    let version = version.str_at("/name");
                    tracing::error!(definition = object.name(), version, %error, "not served");
                }
            }
        }
        let compiled = Compiled {
            spec,
            terminating,
            versions,
        };
        self.compiled.insert(object.name().to_string(), compiled);
        true
    }
}

/// What a definition's kinds are made of: its spec with the names that it was given.
fn served_spec(object: &Value) -> Value {
    object.get("spec").cloned().unwrap_or_default()
}
