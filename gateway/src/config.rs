//! Reading and checking the configuration before anything binds; all mistakes are reported at once.

use crate::broker::redis::RedisOptions;
use crate::route::Routes;
use contract::config::{GatewayConfig, Mistake};
use contract::sign::{Keys, hex};
use contract::{env, ports};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Everything a gateway is started with.
pub struct Config {
    /// Content of the configuration file, or the development configuration.
    pub file: GatewayConfig,
    /// Hash of the file; empty without one.
    pub file_hash: String,
    /// Its routes, compiled.
    pub routes: Routes,
    /// True when no file was given.
    pub development: bool,
    /// Redis; without it the memory broker.
    pub redis: Option<RedisOptions>,
    /// Keys of internal calls.
    pub keys: KeyFiles,
    /// Identity of this pod.
    pub pod: Pod,
    /// Where clients connect.
    pub client: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// Server API and internal calls.
    pub api: SocketAddr,
}

/// Who this gateway is to its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// UID that signed calls name; a random one outside Kubernetes.
    pub uid: String,
    /// Address and port of the API as peers reach it.
    pub address: String,
}

/// Where the keys of internal calls lie.
#[derive(Clone, Debug, Default)]
pub struct KeyFiles(Option<PathBuf>);

impl KeyFiles {
    /// Keys as the files `current` and `previous` of `directory`.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(Some(directory.into()))
    }

    /// Reads the keys; without files every internal call is refused.
    #[must_use]
    pub fn read(&self) -> Keys {
        let file =
            |name: &str| std::fs::read(self.0.as_ref()?.join(name)).ok().filter(|k| !k.is_empty());
        Keys { current: file("current").unwrap_or_default(), previous: file("previous") }
    }
}

/// All that is wrong with a configuration.
#[derive(Debug)]
pub struct Invalid(pub Vec<Mistake>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration has {} mistake(s):", self.0.len())?;
        self.0.iter().try_for_each(|m| write!(f, "\n  {}: {}", m.field, m.message))
    }
}

impl std::error::Error for Invalid {}

/// Environment variables, so that tests need none.
pub trait Strings {
    /// Value of a key, when it is set and not empty.
    fn get(&self, key: &str) -> Option<String>;
}

/// The process's environment.
pub struct Environment;

impl Strings for Environment {
    fn get(&self, key: &str) -> Option<String> {
        std::env::var(key).ok().filter(|value| !value.is_empty())
    }
}

impl Config {
    /// The development server on free ports of the loopback address: for tests.
    ///
    /// # Panics
    /// Never: the development configuration is checked by a test.
    #[must_use]
    pub fn ephemeral(redis: Option<RedisOptions>) -> Self {
        let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let file = GatewayConfig::development();
        let routes = Routes::compile(&file.routes).unwrap_or_default();
        Self {
            file,
            file_hash: String::new(),
            routes,
            development: true,
            redis,
            keys: KeyFiles::default(),
            pod: Pod { uid: hex(&rand::random::<[u8; 16]>()), address: String::new() },
            client: free,
            metrics: free,
            api: free,
        }
    }

    /// Reads environment and file.
    ///
    /// # Errors
    /// [`Invalid`] with every mistake found.
    pub fn load(strings: &dyn Strings) -> Result<Self, Invalid> {
        let mut mistakes = Vec::new();
        let (file, file_hash, development) = match strings.get(env::CONFIG) {
            None => (GatewayConfig::development(), String::new(), true),
            Some(path) => match read_file(&path) {
                Ok((file, hash)) => (file, hash, false),
                Err(mistake) => {
                    mistakes.push(mistake);
                    (GatewayConfig::default(), String::new(), false)
                }
            },
        };
        mistakes.extend(file.mistakes());
        let routes = Routes::compile(&file.routes).unwrap_or_else(|wrong| {
            mistakes.extend(wrong);
            Routes::default()
        });
        let redis = RedisOptions::from_strings(strings).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        });
        // A server without configuration is open; its API must not be.
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let bind = parse(strings, env::BIND, everywhere, &mut mistakes);
        let keys = strings.get(env::INTERNAL_KEY_DIR).map(KeyFiles::at).unwrap_or_default();
        let api_ip = if keys.0.is_some() { bind } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let ip = strings.get(env::POD_IP).unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string());
        let uid = strings.get(env::POD_UID).unwrap_or_else(|| hex(&rand::random::<[u8; 16]>()));
        let address = if ip.contains(':') {
            format!("[{ip}]:{}", ports::API)
        } else {
            format!("{ip}:{}", ports::API)
        };
        if !mistakes.is_empty() {
            return Err(Invalid(mistakes));
        }
        Ok(Self {
            file,
            file_hash,
            routes,
            development,
            redis,
            keys,
            pod: Pod { uid, address },
            client: SocketAddr::new(bind, ports::CLIENT),
            metrics: SocketAddr::new(bind, ports::METRICS),
            api: SocketAddr::new(api_ip, ports::API),
        })
    }
}

fn parse<T: std::str::FromStr>(
    strings: &dyn Strings,
    key: &str,
    default: T,
    mistakes: &mut Vec<Mistake>,
) -> T {
    match strings.get(key).map(|text| text.parse()) {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(_)) => {
            mistakes.push(Mistake { field: key.into(), message: "is not valid".into() });
            default
        }
    }
}

fn read_file(path: &str) -> Result<(GatewayConfig, String), Mistake> {
    let wrong = |message: String| Mistake { field: format!("{} ({path})", env::CONFIG), message };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    // JSON is YAML, so one parser reads both.
    let file =
        serde_saphyr::from_str(&text).map_err(|e| wrong(format!("cannot be parsed: {e}")))?;
    Ok((file, hex(&Sha256::digest(text.as_bytes()))[..16].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    impl Strings for HashMap<&str, &str> {
        fn get(&self, key: &str) -> Option<String> {
            HashMap::get(self, key).map(|value| (*value).to_owned())
        }
    }

    #[test]
    fn nothing_configured_is_a_complete_server_with_a_private_api() {
        let config = Config::load(&HashMap::new()).unwrap();
        assert!(config.development && config.redis.is_none());
        assert_eq!(config.client.to_string(), "0.0.0.0:8080");
        assert_eq!(config.api.to_string(), "127.0.0.1:9091");
        assert!(config.keys.read().current.is_empty());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let dir = std::env::temp_dir().join(format!("gateway-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("gateway.yaml");
        std::fs::write(
            &path,
            "routes: [{name: a, event: a, join: {room: nonsense}}]\ndrain: {rate: 0}",
        )
        .unwrap();
        let strings = HashMap::from([
            (env::CONFIG, path.to_str().unwrap()),
            (env::REDIS_URL, "http://nowhere"),
            (env::BIND, "everywhere"),
        ]);
        let Err(Invalid(mistakes)) = Config::load(&strings) else { panic!("must be refused") };
        let fields: Vec<_> = mistakes.iter().map(|m| m.field.as_str()).collect();
        assert_eq!(fields, ["drain.rate", "routes[0].join.room", env::REDIS_URL, env::BIND]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
