//! The rules of each served kind, one file per kind, and the table of them all.

mod admission_registration;
mod api_service;
pub mod authorization;
mod binding;
pub mod certificate_signing_request;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device;
mod endpoint_slice;
mod endpoints;
mod event;
mod flow_schema;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod priority_level_configuration;
pub mod rbac;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod runtime_class;
mod secret;
pub mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
pub mod storage_class;
mod volume_attachment;
mod volume_attributes_class;
mod warnings;
mod workload;

pub use admission_registration::{
    ExpressionPurpose, MUTATING_ADMISSION_POLICIES, MUTATING_ADMISSION_POLICY_BINDINGS,
    MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS, VALIDATING_WEBHOOK_CONFIGURATIONS,
    compile_policy_expression,
};
pub use api_service::{API_SERVICES, AVAILABLE as API_SERVICE_AVAILABLE};
pub use binding::BINDINGS;
pub use certificate_signing_request::CERTIFICATE_SIGNING_REQUESTS;
pub use component_status::COMPONENT_STATUSES;
pub use controller_revision::CONTROLLER_REVISIONS;
pub use cron_job::CRON_JOBS;
pub use csi_driver::CSI_DRIVERS;
pub use csi_node::CSI_NODES;
pub use csi_storage_capacity::CSI_STORAGE_CAPACITIES;
pub use custom_resource_definition::{
    CLEANUP_FINALIZER, CUSTOM_RESOURCE_DEFINITIONS, condition as definition_condition,
};
pub use daemon_set::DAEMON_SETS;
pub use device::{DEVICE_CLASSES, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS, RESOURCE_SLICES};
pub use endpoint_slice::ENDPOINT_SLICES;
pub use endpoints::ENDPOINTS;
pub use flow_schema::FLOW_SCHEMAS;
pub use horizontal_pod_autoscaler::{HORIZONTAL_POD_AUTOSCALERS, HORIZONTAL_POD_AUTOSCALERS_V1};
pub use ingress::INGRESSES;
pub use ingress_class::INGRESS_CLASSES;
pub use ip_address::IP_ADDRESSES;
pub use job::JOBS;
pub use limit_range::LIMIT_RANGES;
pub use network_policy::NETWORK_POLICIES;
pub use persistent_volume::PERSISTENT_VOLUMES;
pub use persistent_volume_claim::PERSISTENT_VOLUME_CLAIMS;
pub use pod_disruption_budget::POD_DISRUPTION_BUDGETS;
pub use pod_template::POD_TEMPLATES;
pub use priority_class::SYSTEM_CLASSES;
pub use priority_level_configuration::PRIORITY_LEVEL_CONFIGURATIONS;
pub use replication_controller::REPLICATION_CONTROLLERS;
pub use resource_quota::RESOURCE_QUOTAS;
pub use service::SERVICES;
pub use service_cidr::SERVICE_CIDRS;
pub use stateful_set::STATEFUL_SETS;
pub use storage_class::STORAGE_CLASSES;
pub use volume_attachment::VOLUME_ATTACHMENTS;
pub use volume_attributes_class::VOLUME_ATTRIBUTES_CLASSES;
pub use warnings::warnings;

use crate::registry::{Conversion, Keeping, Kind, Subresource};

const NO_NAMES: &[&str] = &[];

/// Every served kind, in the order of discovery.
pub static ALL: &[&Kind] = &[
    &BINDINGS,
    &COMPONENT_STATUSES,
    &CONFIG_MAPS,
    &ENDPOINTS,
    &EVENTS,
    &LIMIT_RANGES,
    &NAMESPACES,
    &NODES,
    &PERSISTENT_VOLUME_CLAIMS,
    &PERSISTENT_VOLUMES,
    &PODS,
    &POD_TEMPLATES,
    &REPLICATION_CONTROLLERS,
    &RESOURCE_QUOTAS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &SERVICES,
    &CONTROLLER_REVISIONS,
    &DAEMON_SETS,
    &DEPLOYMENTS,
    &REPLICA_SETS,
    &STATEFUL_SETS,
    &EVENTS_V1,
    &HORIZONTAL_POD_AUTOSCALERS,
    &HORIZONTAL_POD_AUTOSCALERS_V1,
    &CRON_JOBS,
    &JOBS,
    &CERTIFICATE_SIGNING_REQUESTS,
    &INGRESS_CLASSES,
    &INGRESSES,
    &IP_ADDRESSES,
    &NETWORK_POLICIES,
    &SERVICE_CIDRS,
    &POD_DISRUPTION_BUDGETS,
    &CSI_DRIVERS,
    &CSI_NODES,
    &CSI_STORAGE_CAPACITIES,
    &STORAGE_CLASSES,
    &VOLUME_ATTACHMENTS,
    &VOLUME_ATTRIBUTES_CLASSES,
    &PRIORITY_CLASSES,
    &LEASES,
    &RUNTIME_CLASSES,
    &ENDPOINT_SLICES,
    &rbac::CLUSTER_ROLE_BINDINGS,
    &rbac::CLUSTER_ROLES,
    &rbac::ROLE_BINDINGS,
    &rbac::ROLES,
    &authorization::LOCAL_SUBJECT_ACCESS_REVIEWS,
    &authorization::SELF_SUBJECT_ACCESS_REVIEWS,
    &authorization::SELF_SUBJECT_RULES_REVIEWS,
    &authorization::SUBJECT_ACCESS_REVIEWS,
    &authorization::SELF_SUBJECT_REVIEWS,
    &authorization::TOKEN_REVIEWS,
    &DEVICE_CLASSES,
    &RESOURCE_CLAIM_TEMPLATES,
    &RESOURCE_CLAIMS,
    &RESOURCE_SLICES,
    &FLOW_SCHEMAS,
    &PRIORITY_LEVEL_CONFIGURATIONS,
    &CUSTOM_RESOURCE_DEFINITIONS,
    &API_SERVICES,
    &MUTATING_ADMISSION_POLICIES,
    &MUTATING_ADMISSION_POLICY_BINDINGS,
    &MUTATING_WEBHOOK_CONFIGURATIONS,
    &VALIDATING_ADMISSION_POLICIES,
    &VALIDATING_ADMISSION_POLICY_BINDINGS,
    &VALIDATING_WEBHOOK_CONFIGURATIONS,
];

/// The part of the table that most kinds share.
const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: NO_NAMES,
    categories: NO_NAMES,
    namespaced: true,
    delete_collection: true,
    subresources: &[],
    schema: "",
    storage: "",
    conversion: None,
    keeping: Keeping::Stored,
    deprecated: None,
    strategy: &config_map::Strategy,
};

/// `v1` ConfigMap.
pub static CONFIG_MAPS: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    schema: "core.ConfigMap",
    storage: "configmaps",
    ..PLAIN
};

/// `v1` Event.
pub static EVENTS: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "core.Event",
    storage: "events",
    strategy: &event::Strategy,
    ..PLAIN
};

/// `events.k8s.io/v1` Event, stored as `v1`.
pub static EVENTS_V1: Kind = Kind {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "events.Event",
    storage: "events",
    conversion: Some(Conversion {
        from_storage: event::to_events_v1,
        to_storage: event::to_core,
    }),
    strategy: &event::EventsV1Strategy,
    ..PLAIN
};

/// `v1` Namespace.
pub static NAMESPACES: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    delete_collection: false,
    subresources: &[Subresource::Finalize, Subresource::Status],
    schema: "core.Namespace",
    storage: "namespaces",
    strategy: &namespace::Strategy,
    ..PLAIN
};

/// `v1` Node.
pub static NODES: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[Subresource::NodeProxy, Subresource::Status],
    schema: "core.Node",
    storage: "minions",
    strategy: &node::Strategy,
    ..PLAIN
};

/// `v1` Pod.
pub static PODS: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource::Attach,
        Subresource::Binding,
        Subresource::EphemeralContainers,
        Subresource::Eviction,
        Subresource::Exec,
        Subresource::Log,
        Subresource::PortForward,
        Subresource::PodProxy,
        Subresource::Resize,
        Subresource::Status,
    ],
    schema: "core.Pod",
    storage: "pods",
    strategy: &pod::Strategy,
    ..PLAIN
};

/// `v1` Secret.
pub static SECRETS: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    schema: "core.Secret",
    storage: "secrets",
    strategy: &secret::Strategy,
    ..PLAIN
};

/// `v1` ServiceAccount.
pub static SERVICE_ACCOUNTS: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource::Token],
    schema: "core.ServiceAccount",
    storage: "serviceaccounts",
    strategy: &service_account::Strategy,
    ..PLAIN
};

/// `apps/v1` Deployment.
pub static DEPLOYMENTS: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    schema: "apps.Deployment",
    storage: "deployments",
    strategy: &deployment::Strategy,
    ..PLAIN
};

/// `apps/v1` ReplicaSet.
pub static REPLICA_SETS: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    schema: "apps.ReplicaSet",
    storage: "replicasets",
    strategy: &replica_set::Strategy,
    ..PLAIN
};

/// `coordination.k8s.io/v1` Lease.
pub static LEASES: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    schema: "coordination.Lease",
    storage: "leases",
    strategy: &lease::Strategy,
    ..PLAIN
};

/// `node.k8s.io/v1` RuntimeClass.
pub static RUNTIME_CLASSES: Kind = Kind {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    schema: "node.RuntimeClass",
    storage: "runtimeclasses",
    strategy: &runtime_class::Strategy,
    ..PLAIN
};

/// `scheduling.k8s.io/v1` PriorityClass.
pub static PRIORITY_CLASSES: Kind = Kind {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    schema: "scheduling.PriorityClass",
    storage: "priorityclasses",
    strategy: &priority_class::Strategy,
    ..PLAIN
};
