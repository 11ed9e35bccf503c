//! Network configuration files (CNI spec 1.0.0, section 1).

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Largest configuration file that is read, bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Versions whose protocol this runtime speaks.
const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// None of the directories holds a configuration.
    #[error("no CNI network configuration in {}", list(.0))]
    None(Vec<PathBuf>),
    /// A directory or file cannot be read.
    #[error("reading {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold a network configuration.
    #[error("the CNI network configuration {path} is not usable: {problem}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    texts.join(", ")
}

/// A network: a name and the plugins that are executed for it, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkList {
    /// File it came from.
    pub path: PathBuf,
    /// `name`.
    pub name: String,
    /// `cniVersion`.
    pub version: String,
    /// `disableCheck`.
    pub disable_check: bool,
    /// The plugins' configurations, each with a `type`.
    pub plugins: Vec<Map<String, Value>>,
}

/// The first configuration by file name of the first directory that has one, as
/// kubelets' runtimes choose it.
pub fn load_default(directories: &[PathBuf]) -> Result<NetworkList, ConfigError> {
    for directory in directories {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(ConfigError::Read {
                    path: directory.clone(),
                    source,
                });
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                let extension = path.extension().and_then(|extension| extension.to_str());
                matches!(extension, Some("conf" | "conflist" | "json"))
            })
            .collect();
        paths.sort();
        if let Some(path) = paths.first() {
            return load(path);
        }
    }
    Err(ConfigError::None(directories.to_vec()))
}

/// Reads one file: a list, or a single plugin's configuration, which counts as a list of one.
pub fn load(path: &Path) -> Result<NetworkList, ConfigError> {
    let fail = |source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > MAX_CONFIG_BYTES {
        return Err(ConfigError::Malformed {
            path: path.to_path_buf(),
            problem: format!("{size} bytes are more than {MAX_CONFIG_BYTES}"),
        });
    }
    parse(path, &std::fs::read(path).map_err(fail)?)
}

/// Parses a configuration; `path` is for messages.
pub fn parse(path: &Path, text: &[u8]) -> Result<NetworkList, ConfigError> {
    let malformed = |problem: String| ConfigError::Malformed {
        path: path.to_path_buf(),
        problem,
    };
    let document: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
    let text_of = |key: &str| {
        document
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_string)
    };
    let name = text_of("name")
        .filter(|name| is_name(name))
        .ok_or_else(|| {
            malformed("\"name\" must be letters, digits, '-', '_' and '.'".to_string())
        })?;
    let version = text_of("cniVersion").unwrap_or_else(|| "0.2.0".to_string());
    if !SUPPORTED_VERSIONS.contains(&version.as_str()) {
        return Err(malformed(format!(
            "cniVersion {version:?} is none of {}",
            SUPPORTED_VERSIONS.join(", ")
        )));
    }
    let plugins = match document.get("plugins") {
        Some(Value::Array(plugins)) => plugins
            .iter()
            .map(|plugin| plugin.as_object().cloned())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| malformed("\"plugins\" must hold objects".to_string()))?,
        Some(_) => return Err(malformed("\"plugins\" must be a list".to_string())),
        None => vec![document.clone()],
    };
    if plugins.is_empty() {
        return Err(malformed("\"plugins\" is empty".to_string()));
    }
    for plugin in &plugins {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if kind.is_empty() || kind.contains('/') {
            return Err(malformed(format!("a plugin's \"type\" is {kind:?}")));
        }
    }
    let disable_check = match document.get("disableCheck") {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(value)) => value == "true",
        _ => false,
    };
    Ok(NetworkList {
        path: path.to_path_buf(),
        name,
        version,
        disable_check,
        plugins,
    })
}

fn is_name(name: &str) -> bool {
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    starts_well
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_plugin_counts_as_a_list_of_one() {
        let list = parse(
            Path::new("x.conf"),
            br#"{"cniVersion":"1.0.0","name":"n","type":"bridge","bridge":"b0"}"#,
        )
        .unwrap();
        assert_eq!((list.name.as_str(), list.plugins.len()), ("n", 1));
    }

    #[test]
    fn malformed_configurations_are_refused_with_the_file_and_the_reason() {
        for (text, problem) in [
            ("{", "EOF"),
            (r#"{"cniVersion":"1.0.0","type":"bridge"}"#, "name"),
            (
                r#"{"cniVersion":"9.0.0","name":"n","type":"bridge"}"#,
                "9.0.0",
            ),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "empty"),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[{}]}"#,
                "type",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","type":"../evil"}"#,
                "type",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"../n","type":"bridge"}"#,
                "name",
            ),
        ] {
            let error = parse(Path::new("f.conf"), text.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("f.conf") && error.contains(problem),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn the_first_file_by_name_wins() {
        let dir = tempfile::tempdir().unwrap();
        for (file, name) in [
            ("20-b.conflist", "b"),
            ("10-a.conflist", "a"),
            ("00-x.txt", "x"),
        ] {
            let text =
                format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"t"}}]}}"#);
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let missing = dir.path().join("missing");
        let list = load_default(&[missing.clone(), dir.path().to_path_buf()]).unwrap();
        assert_eq!(list.name, "a");
        assert!(matches!(
            load_default(&[missing]),
            Err(ConfigError::None(_))
        ));
    }
}
