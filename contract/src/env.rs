//! Environment keys the gateway reads. The operator sets them on the pod.

/// Path of the configuration file (JSON or YAML). Unset = development server.
pub const CONFIG: &str = "GATEWAY_CONFIG";
/// `redis://` or `rediss://` URL with optional user, password and database.
pub const REDIS_URL: &str = "REDIS_URL";
/// Host of Redis when no URL is given.
pub const REDIS_HOST: &str = "REDIS_HOST";
/// Port of Redis when no URL is given (default 6379).
pub const REDIS_PORT: &str = "REDIS_PORT";
/// Password of Redis when no URL is given.
pub const REDIS_PASSWORD: &str = "REDIS_PASSWORD";
/// File with the password of Redis: how the operator hands it over (never in the environment).
pub const REDIS_PASSWORD_FILE: &str = "REDIS_PASSWORD_FILE";
/// Prefix of every Redis key and channel (default `realtime`).
pub const REDIS_PREFIX: &str = "REDIS_PREFIX";
/// Directory with the files `current` and `previous`: keys of signed internal calls.
pub const INTERNAL_KEY_DIR: &str = "INTERNAL_KEY_DIR";
/// Name of this pod.
pub const POD_NAME: &str = "POD_NAME";
/// Address at which peers reach this pod's API port.
pub const POD_IP: &str = "POD_IP";
/// UID of this pod, the target that signed calls name.
pub const POD_UID: &str = "POD_UID";
/// Address to bind for clients, metrics and API (`0.0.0.0` in a pod).
pub const BIND: &str = "BIND_ADDRESS";
