//! `rbac.authorization.k8s.io/v1`: Role, ClusterRole, RoleBinding, ClusterRoleBinding.

mod binding;
mod role;

use super::PLAIN;
use crate::registry::Kind;

/// The API group.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// ClusterRoleBinding.
pub static CLUSTER_ROLE_BINDINGS: Kind = Kind {
    group: GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    schema: "rbac.ClusterRoleBinding",
    storage: "clusterrolebindings",
    strategy: &binding::Strategy { namespaced: false },
    ..PLAIN
};

/// ClusterRole.
pub static CLUSTER_ROLES: Kind = Kind {
    group: GROUP,
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    schema: "rbac.ClusterRole",
    storage: "clusterroles",
    strategy: &role::Strategy { namespaced: false },
    ..PLAIN
};

/// RoleBinding.
pub static ROLE_BINDINGS: Kind = Kind {
    group: GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    schema: "rbac.RoleBinding",
    storage: "rolebindings",
    strategy: &binding::Strategy { namespaced: true },
    ..PLAIN
};

/// Role.
pub static ROLES: Kind = Kind {
    group: GROUP,
    kind: "Role",
    plural: "roles",
    singular: "role",
    schema: "rbac.Role",
    storage: "roles",
    strategy: &role::Strategy { namespaced: true },
    ..PLAIN
};
