//! What ResourceQuotas count: one evaluation for the admission that charges them and for the
//! controller that counts anew.

pub mod scopes;
pub mod usage;

/// Which objects decide about a name in a quota's `spec.hard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted<'n> {
    /// Pods and what they ask for.
    Pods,
    /// PersistentVolumeClaims and what they ask for.
    Claims,
    /// Services by type.
    Services,
    /// The number of objects of any other kind.
    Objects {
        /// Its group; empty: core.
        group: &'n str,
        /// Its plural.
        plural: &'n str,
    },
}

impl<'n> Counted<'n> {
    /// `None`: nothing counts under this name.
    pub fn by(name: &'n str) -> Option<Self> {
        let objects = match name.strip_prefix("count/") {
            Some(kind) => {
                let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
                Some((group, plural))
            }
            None if usage::PLAIN_COUNTS.contains(&name) => Some(("", name)),
            None => None,
        };
        if let Some((group, plural)) = objects {
            return Some(match (group, plural) {
                ("", "pods") => Counted::Pods,
                ("", "persistentvolumeclaims") => Counted::Claims,
                ("", "services") => Counted::Services,
                _ => Counted::Objects { group, plural },
            });
        }
        if name == "requests.storage" || name.contains(".storageclass.storage.k8s.io/") {
            return Some(Counted::Claims);
        }
        if matches!(name, "services.loadbalancers" | "services.nodeports") {
            return Some(Counted::Services);
        }
        let of_pods = matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage")
            || ["requests.", "limits.", "hugepages-"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        of_pods.then_some(Counted::Pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_counted() {
        for (name, expected) in [
            ("pods", Some(Counted::Pods)),
            ("count/pods", Some(Counted::Pods)),
            ("requests.nvidia.com/gpu", Some(Counted::Pods)),
            ("requests.storage", Some(Counted::Claims)),
            (
                "fast.storageclass.storage.k8s.io/requests.storage",
                Some(Counted::Claims),
            ),
            ("services.nodeports", Some(Counted::Services)),
            (
                "configmaps",
                Some(Counted::Objects {
                    group: "",
                    plural: "configmaps",
                }),
            ),
            (
                "count/widgets.example.com",
                Some(Counted::Objects {
                    group: "example.com",
                    plural: "widgets",
                }),
            ),
            ("example.com/gpu", None),
        ] {
            assert_eq!(Counted::by(name), expected, "{name}");
        }
    }
}
