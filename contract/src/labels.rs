//! Labels and annotations. Selectors are frozen by a golden test in the operator.

/// `app.kubernetes.io/name` of everything the operator makes.
pub const APP_NAME: &str = "realtime-cluster";
/// Which RealtimeCluster an object belongs to.
pub const CLUSTER: &str = "realtime-operator.dev/cluster";
/// `gateway` or `redis`.
pub const COMPONENT: &str = "realtime-operator.dev/component";
/// Template revision of a gateway ReplicaSet and its pods.
pub const REVISION: &str = "realtime-operator.dev/revision";
/// Set to `true` on a RealtimeCluster: reconcile nothing.
pub const PAUSED: &str = "realtime-operator.dev/paused";
/// Set on a RealtimeCluster to take over the operator's new defaults (image, template).
pub const ADOPT_DEFAULTS: &str = "realtime-operator.dev/adopt-defaults";
/// API group of the resources.
pub const GROUP: &str = "realtime-operator.dev";
/// Field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "realtime-operator";
