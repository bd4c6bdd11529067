//! Generated Secrets: created once, never overwritten (operator rule 9). The
//! operator may get and create Secrets, but neither list nor watch them.

use crate::names::Component;
use crate::settings::Settings;
use contract::sign::{Keys, hex};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A read Secret is believed this long.
const CACHE: Duration = Duration::from_secs(60);

/// A Secret could not be read or made.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} secret {name}")]
pub struct SecretError {
    verb: &'static str,
    name: String,
    #[source]
    source: Box<kube::Error>,
}

/// Makes sure that a resource's Secrets exist and knows its internal keys.
pub struct Secrets {
    client: Client,
    cache: Mutex<HashMap<String, (Instant, Keys)>>,
}

impl Secrets {
    /// Nothing is cached yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// Creates what is missing and returns the keys of internal calls.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn ensure(&self, settings: &Settings) -> Result<Keys, SecretError> {
        {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, keys)) = cache.get(&settings.uid)
                && at.elapsed() < CACHE
            {
                return Ok(keys.clone());
            }
        }
        let redis = settings.redis_secret();
        if settings.redis_mode == crate::crd::RedisMode::Standalone {
            let password = random();
            let data = json!({
                "password": password,
                "auth.conf": format!("requirepass {password}\nmasterauth {password}\n"),
            });
            self.get_or_create(settings, &redis, Component::Redis, data).await?;
        }
        let name = settings.internal_secret();
        let secret = self
            .get_or_create(settings, &name, Component::Gateway, json!({"current": random()}))
            .await?;
        let key = |name: &str| secret.data.as_ref()?.get(name).map(|bytes| bytes.0.clone());
        let keys = Keys { current: key("current").unwrap_or_default(), previous: key("previous") };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(settings.uid.clone(), (Instant::now(), keys.clone()));
        Ok(keys)
    }

    async fn get_or_create(
        &self,
        settings: &Settings,
        name: &str,
        component: Component,
        data: serde_json::Value,
    ) -> Result<Secret, SecretError> {
        let failed = |verb| {
            let name = name.to_owned();
            move |error| SecretError { verb, name, source: Box::new(error) }
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &settings.namespace);
        if let Some(found) = api.get_opt(name).await.map_err(failed("read"))? {
            return Ok(found);
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": settings.metadata(name, component), "stringData": data,
        });
        let secret: Secret = serde_json::from_value(secret)
            .map_err(|e| failed("build")(kube::Error::SerdeError(e)))?;
        match api.create(&PostParams::default(), &secret).await {
            // Another replica was faster: what it made is the truth.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.get(name).await.map_err(failed("read"))
            }
            created => created.map_err(failed("create")),
        }
    }
}

fn random() -> String {
    hex(&rand::random::<[u8; 24]>())
}
