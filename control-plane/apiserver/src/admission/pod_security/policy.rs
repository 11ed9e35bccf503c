//! What a namespace's labels ask for: a level and a version of the standards for each of three
//! modes.

use std::fmt;

use hull_api::{
    ObjectExt,
    field::{Errors, Path},
};
use serde_json::Value;

/// The newest version of the standards that is known, as 1.N. Any later one is this.
const NEWEST_MINOR: u32 = 36;

/// How strict the standards are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

/// `latest` or `v1.N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Latest,
    Minor(u32),
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|byte| byte.is_ascii_digit())
            && (minor == "0" || !minor.starts_with('0'));
        let minor = minor.parse().ok().filter(|_| plain)?;
        Some(Version::Minor(minor))
    }

    /// The N of 1.N whose rules hold.
    pub(super) fn minor(self) -> u32 {
        match self {
            Version::Latest => NEWEST_MINOR,
            Version::Minor(minor) => minor.min(NEWEST_MINOR),
        }
    }
}

/// A level in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standard {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

const PRIVILEGED: Standard = Standard {
    level: Level::Privileged,
    version: Version::Latest,
};

/// What a namespace refuses, and what it only complains about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub enforce: Standard,
    pub warn: Standard,
}

impl Policy {
    /// Reads the labels, with what is wrong in them. A wrong word never opens anything: a level
    /// to enforce is the strictest then; one to warn of says nothing.
    pub(super) fn of(namespace: &Value) -> (Self, Errors) {
        let mut errors = Errors::default();
        let (enforce_level, enforce_version) = read(namespace, "enforce", &mut errors);
        // Requests are not annotated in the audit log: its labels are only checked.
        read(namespace, "audit", &mut errors);
        let (warn_level, warn_version) = read(namespace, "warn", &mut errors);
        let enforce = Standard {
            level: match enforce_level {
                None => Level::Privileged,
                Some(level) => level.unwrap_or(Level::Restricted),
            },
            version: enforce_version.unwrap_or(Version::Latest),
        };
        let warn = match (warn_level, enforce_level) {
            (Some(level), _) => Standard {
                level: level.unwrap_or(Level::Privileged),
                version: warn_version.unwrap_or(Version::Latest),
            },
            // Who is refused a pod is warned of the template that it would be made of.
            (None, Some(Some(level))) => Standard {
                level,
                version: warn_version.unwrap_or(enforce.version),
            },
            (None, _) => PRIVILEGED,
        };
        (Policy { enforce, warn }, errors)
    }
}

/// Level and version of a mode; the inner `None` of the level is a wrong word.
fn read(
    namespace: &Value,
    mode: &str,
    errors: &mut Errors,
) -> (Option<Option<Level>>, Option<Version>) {
    let mut label = |name: String, wanted: &str, is_right: &dyn Fn(&str) -> bool| {
        let labels = namespace.labels()?;
        let text = labels.get(&name)?.as_str().unwrap_or("").to_string();
        if !is_right(&text) {
            let path = Path::new("metadata.labels").key(&name);
            errors.invalid(&path, text.as_str(), wanted);
        }
        Some(text)
    };
    let level = label(
        format!("pod-security.kubernetes.io/{mode}"),
        "must be one of privileged, baseline, restricted",
        &|text| Level::parse(text).is_some(),
    );
    let version = label(
        format!("pod-security.kubernetes.io/{mode}-version"),
        "must be \"latest\" or \"v1.x\"",
        &|text| Version::parse(text).is_some(),
    );
    (
        level.map(|text| Level::parse(&text)),
        version.map(|text| Version::parse(&text).unwrap_or(Version::Latest)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(labels: &[(&str, &str)]) -> (String, String, usize) {
        let labels: serde_json::Map<String, Value> = labels
            .iter()
            .map(|(mode, value)| (format!("pod-security.kubernetes.io/{mode}"), json!(value)))
            .collect();
        let (policy, errors) = Policy::of(&json!({"metadata": {"labels": labels}}));
        let wrong = errors.into_vec().len();
        (policy.enforce.to_string(), policy.warn.to_string(), wrong)
    }

    #[test]
    fn labels_become_levels_and_versions() {
        for (labels, enforce, warn, wrong) in [
            (&[][..], "privileged:latest", "privileged:latest", 0),
            (
                &[("enforce", "baseline"), ("enforce-version", "v1.30")],
                "baseline:v1.30",
                "baseline:v1.30",
                0,
            ),
            (
                &[("enforce", "baseline"), ("warn", "restricted")],
                "baseline:latest",
                "restricted:latest",
                0,
            ),
            (
                &[("enforce", "restricted"), ("warn", "privileged")],
                "restricted:latest",
                "privileged:latest",
                0,
            ),
            (
                &[
                    ("enforce", "tight"),
                    ("warn", "loose"),
                    ("audit-version", "1.2"),
                ],
                "restricted:latest",
                "privileged:latest",
                3,
            ),
            (
                &[("enforce", "baseline"), ("enforce-version", "v1.030")],
                "baseline:latest",
                "baseline:latest",
                1,
            ),
        ] {
            let expected = (enforce.to_string(), warn.to_string(), wrong);
            assert_eq!(policy(labels), expected, "{labels:?}");
        }
        assert_eq!(Version::Minor(99).minor(), NEWEST_MINOR);
    }
}
