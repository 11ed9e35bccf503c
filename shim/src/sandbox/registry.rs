//! Every sandbox and container, by id and by name.

use super::object::Sandbox;
use crate::container::object::Container;
use crate::error::Error;
use crate::ids::{self, LookupError};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
struct Maps {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    containers: BTreeMap<String, Arc<Container>>,
    sandbox_names: BTreeMap<String, String>,
    container_names: BTreeMap<String, String>,
}

/// What exists.
#[derive(Default)]
pub struct Registry {
    maps: RwLock<Maps>,
}

impl Registry {
    /// Takes a sandbox's name for `id`.
    pub fn reserve_sandbox(&self, name: &str, id: &str) -> Result<(), Error> {
        reserve(&mut self.maps.write().sandbox_names, "sandbox", name, id)
    }

    /// Takes a container's name for `id`.
    pub fn reserve_container(&self, name: &str, id: &str) -> Result<(), Error> {
        reserve(
            &mut self.maps.write().container_names,
            "container",
            name,
            id,
        )
    }

    /// Gives up the names of `id`.
    pub fn release_names(&self, id: &str) {
        let mut maps = self.maps.write();
        maps.sandbox_names.retain(|_, owner| owner != id);
        maps.container_names.retain(|_, owner| owner != id);
    }

    /// Adds a sandbox.
    pub fn insert_sandbox(&self, sandbox: Arc<Sandbox>) {
        self.maps
            .write()
            .sandboxes
            .insert(sandbox.id.clone(), sandbox);
    }

    /// Adds a container.
    pub fn insert_container(&self, container: Arc<Container>) {
        self.maps
            .write()
            .containers
            .insert(container.id.clone(), container);
    }

    /// Forgets a sandbox and its name.
    pub fn remove_sandbox(&self, id: &str) {
        self.maps.write().sandboxes.remove(id);
        self.release_names(id);
    }

    /// Forgets a container and its name.
    pub fn remove_container(&self, id: &str) {
        self.maps.write().containers.remove(id);
        self.release_names(id);
    }

    /// The sandbox with this id or unique prefix.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        ids::resolve(&self.maps.read().sandboxes, id).map_err(|error| named("sandbox", id, error))
    }

    /// The container with this id or unique prefix.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        ids::resolve(&self.maps.read().containers, id)
            .map_err(|error| named("container", id, error))
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.maps.read().sandboxes.values().cloned().collect()
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.maps.read().containers.values().cloned().collect()
    }

    /// The containers of one sandbox.
    pub fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        let maps = self.maps.read();
        maps.containers
            .values()
            .filter(|container| container.sandbox_id == sandbox_id)
            .cloned()
            .collect()
    }

    /// The lowest VMM user id from `first` on that no sandbox has.
    pub fn free_jail_uid(&self, first: u32, count: u32) -> Option<u32> {
        let maps = self.maps.read();
        let used: Vec<u32> = maps
            .sandboxes
            .values()
            .map(|sandbox| sandbox.record().jail_uid)
            .collect();
        (first..first.saturating_add(count)).find(|uid| !used.contains(uid))
    }
}

fn reserve(
    names: &mut BTreeMap<String, String>,
    kind: &'static str,
    name: &str,
    id: &str,
) -> Result<(), Error> {
    match names.get(name) {
        Some(owner) if owner != id => Err(Error::Reserved {
            kind,
            name: name.to_string(),
            owner: owner.clone(),
        }),
        _ => {
            names.insert(name.to_string(), id.to_string());
            Ok(())
        }
    }
}

fn named(kind: &'static str, id: &str, error: LookupError) -> Error {
    match error {
        LookupError::NotFound => Error::NotFound {
            kind,
            id: id.to_string(),
        },
        source @ LookupError::Ambiguous(_) => Error::Ambiguous { kind, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_id_until_it_is_released() {
        let registry = Registry::default();
        registry.reserve_sandbox("n", "a").unwrap();
        registry.reserve_sandbox("n", "a").unwrap();
        let error = registry.reserve_sandbox("n", "b").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"failed to reserve sandbox name "n": name "n" is reserved for "a""#
        );
        registry.release_names("a");
        registry.reserve_sandbox("n", "b").unwrap();
    }
}
