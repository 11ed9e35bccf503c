//! Labels and annotations on CRI sandboxes and containers. The `io.kubernetes.*` ones are those
//! that every kubelet sets, so that CRI tools and another node agent understand them.

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's UID; ties a sandbox or container to its pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: how often the container was restarted.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: the file in the container that carries its termination message.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `File` or `FallbackToLogsOnError`.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's grace period in seconds, for stopping a pod that is no longer known.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation prefix on the sandbox: `hull.dev/empty-dir-medium.VOLUME` = `Memory` for an emptyDir
/// that must be a tmpfs. An emptyDir without it lives on the pod's scratch disk.
pub const EMPTY_DIR_MEDIUM_PREFIX: &str = "hull.dev/empty-dir-medium.";
/// Annotation prefix on the sandbox: `hull.dev/empty-dir-size-limit.VOLUME`, bytes.
pub const EMPTY_DIR_SIZE_LIMIT_PREFIX: &str = "hull.dev/empty-dir-size-limit.";
