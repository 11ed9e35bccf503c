//! Kernel modules in the order in which they must be inserted (`modules.dep`, modules.dep(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{CacheError, io_error};

/// Why a list of modules could not be ordered.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// `modules.dep` or `modules.builtin` could not be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The kernel has no such module, neither loadable nor built in.
    #[error("kernel modules in {directory} have no {name}")]
    Missing {
        /// `lib/modules/VERSION`.
        directory: PathBuf,
        /// The module asked for.
        name: String,
    },
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    directory: PathBuf,
    /// Module name to its file and the files it needs, nearest first.
    loadable: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Reads the tables that `depmod` left in `lib/modules/VERSION`.
    pub fn read(directory: &Path) -> Result<Self, ModulesError> {
        let text = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(io_error("reading", &path))
        };
        Ok(Self::parse(
            directory,
            &text("modules.dep")?,
            &text("modules.builtin")?,
        ))
    }

    fn parse(directory: &Path, dependencies: &str, builtin: &str) -> Self {
        let loadable = dependencies
            .lines()
            .filter_map(|line| {
                let (file, needs) = line.split_once(':')?;
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                Some((name_of(file), (file.to_owned(), needs)))
            })
            .collect();
        let builtin = builtin.lines().map(name_of).collect();
        Self {
            directory: directory.to_owned(),
            loadable,
            builtin,
        }
    }

    /// Files to insert, dependencies first, each once. Built-in modules are left out.
    pub fn insertion_order(&self, names: &[&str]) -> Result<Vec<PathBuf>, ModulesError> {
        let mut done = BTreeSet::new();
        let mut order = Vec::new();
        for name in names {
            let key = name.replace('-', "_");
            let Some((file, needs)) = self.loadable.get(&key) else {
                if self.builtin.contains(&key) {
                    continue;
                }
                return Err(ModulesError::Missing {
                    directory: self.directory.clone(),
                    name: (*name).to_owned(),
                });
            };
            // modules.dep lists every transitive dependency, the deepest last.
            for file in needs.iter().rev().chain([file]) {
                if done.insert(file.clone()) {
                    order.push(self.directory.join(file));
                }
            }
        }
        Ok(order)
    }
}

/// `kernel/fs/9p/9p.ko` is module `9p`; dashes and underscores are the same.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/a/top.ko: kernel/b/middle-one.ko kernel/c/base.ko\n\
        kernel/b/middle-one.ko: kernel/c/base.ko\n\
        kernel/c/base.ko:\n";

    #[test]
    fn dependencies_come_first_and_once() {
        let modules = Modules::parse(Path::new("/m"), DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n");
        let order = modules
            .insertion_order(&["middle_one", "top", "ext4", "base"])
            .unwrap();
        let order: Vec<_> = order.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            order,
            [
                "/m/kernel/c/base.ko",
                "/m/kernel/b/middle-one.ko",
                "/m/kernel/a/top.ko"
            ]
        );
    }

    #[test]
    fn a_module_the_kernel_lacks_is_named() {
        let modules = Modules::parse(Path::new("/m"), DEPENDENCIES, "");
        let error = modules.insertion_order(&["nosuch"]).unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
    }
}
