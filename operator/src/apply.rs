//! I/O out: performs a plan, makes no choice. Objects by server-side apply under
//! our own field manager, and only where the live object differs: a settled
//! RealtimeCluster costs no write.

use crate::decide::Plan;
use crate::decide::fleet::DRAINED_COST;
use crate::decide::objects::{Desired, Kind};
use crate::drift;
use crate::gateways::Gateways;
use crate::metrics::Metrics;
use crate::observe::{DELETION_COST, Observed, Pod};
use crate::settings::Settings;
use crate::stores::resource;
use contract::labels::{FIELD_MANAGER, REVISION};
use contract::sign::Keys;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1 as core;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

/// A step of applying that failed; the next pass begins anew from live state.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object.
    #[error("failed to apply {kind} {name}")]
    Object {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A pod's annotation.
    #[error("failed to mark pod {name}")]
    Mark {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// An older set.
    #[error("failed to resize {name}")]
    Resize {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Something that is not needed any more.
    #[error("failed to delete {name}")]
    Delete {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The live pods are not those that were decided upon.
    #[error("pods of revision {revision} changed since they were observed: not lowering")]
    StaleView {
        /// Revision of the set.
        revision: String,
    },
}

impl ApplyError {
    /// Bounded label of the step.
    #[must_use]
    pub const fn step(&self) -> &'static str {
        match self {
            Self::Object { .. } => "apply",
            Self::Mark { .. } => "mark",
            Self::Resize { .. } => "resize",
            Self::Delete { .. } => "delete",
            Self::StaleView { .. } => "stale_view",
        }
    }
}

/// Performs plans.
pub struct Applier {
    client: Client,
    gateways: Gateways,
    metrics: Arc<Metrics>,
    /// What was applied last, by UID of the live object: tells drift from a changed spec.
    applied: Mutex<HashMap<String, u64>>,
}

impl Applier {
    /// An applier that has applied nothing yet.
    #[must_use]
    pub fn new(client: Client, gateways: Gateways, metrics: Arc<Metrics>) -> Self {
        Self { client, gateways, metrics, applied: Mutex::default() }
    }

    /// Performs a plan in order; stops at the first error.
    ///
    /// # Errors
    /// [`ApplyError`] of the step that failed.
    pub async fn apply(
        &self,
        settings: &Settings,
        observed: &Observed,
        keys: &Keys,
        plan: &Plan,
    ) -> Result<(), ApplyError> {
        // Without `..`: a new part of the plan must not be forgotten here. Decision
        // and notes are told by the caller.
        let Plan { objects, fleet, decision: _, replace_redis, collect, notes: _ } = plan;
        let mut objects: Vec<&Desired> = objects.iter().collect();
        objects.sort_by_key(|desired| desired.kind);
        for desired in objects {
            self.object(settings, observed, desired).await?;
        }
        for name in &fleet.mark {
            self.mark(settings, name, json!(DRAINED_COST.to_string())).await?;
        }
        for name in &fleet.unmark {
            self.mark(settings, name, serde_json::Value::Null).await?;
        }
        for (name, replicas) in &fleet.resize {
            self.resize(settings, observed, name, *replicas).await?;
        }
        let orders = fleet.orders.iter().filter_map(|(name, order)| {
            let pod = observed.gateway_pods.iter().find(|pod| pod.name == *name)?;
            Some(async move {
                if let Err(error) = self.gateways.order(settings, pod, keys, order).await {
                    // The next pass gives the order again.
                    tracing::warn!(pod = name, ?order, %error, "gateway did not take an order");
                }
            })
        });
        futures_util::future::join_all(orders).await;
        if let Some(name) = replace_redis {
            self.delete_pod(settings, observed, name).await?;
        }
        for (kind, name) in collect {
            self.delete(settings, *kind, name).await?;
        }
        Ok(())
    }

    fn count(&self, kind: &str, verb: &str) {
        Metrics::count(&self.metrics.writes, [("kind", kind), ("verb", verb)]);
    }

    async fn object(
        &self,
        settings: &Settings,
        observed: &Observed,
        desired: &Desired,
    ) -> Result<(), ApplyError> {
        let name = desired.name();
        let kind = desired.kind.api().2;
        let live = observed.children.get(&(desired.kind, name.to_owned()));
        if let Some(live) = live {
            let value = serde_json::to_value(&**live).unwrap_or_default();
            if drift::is_applied(&value, &desired.object) {
                return Ok(());
            }
            if self.lowers(&value, desired) {
                let revision =
                    desired.object["metadata"]["labels"][REVISION].as_str().unwrap_or_default();
                self.check_live(settings, revision, &value).await?;
            }
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &settings.namespace, &resource(desired.kind));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(name, &params, &Patch::Apply(&desired.object)).await;
        let applied = applied.map_err(|e| ApplyError::Object {
            kind,
            name: name.into(),
            source: Box::new(e),
        })?;
        self.count(kind, "apply");
        self.note_drift(live.is_some(), kind, &applied, desired);
        Ok(())
    }

    /// Found changed although the manifest is the one applied before: somebody else changed it.
    fn note_drift(&self, existed: bool, kind: &str, applied: &DynamicObject, desired: &Desired) {
        let mut hasher = DefaultHasher::new();
        desired.object.to_string().hash(&mut hasher);
        let hash = hasher.finish();
        let uid = applied.metadata.uid.clone().unwrap_or_default();
        let before = self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, hash);
        if existed && before == Some(hash) {
            Metrics::count(&self.metrics.drift, [("kind", kind)]);
            tracing::info!(kind, name = desired.name(), "corrected a change by somebody else");
        }
    }

    fn lowers(&self, live: &serde_json::Value, desired: &Desired) -> bool {
        let replicas = |value: &serde_json::Value| value["spec"]["replicas"].as_i64().unwrap_or(0);
        desired.kind == Kind::ReplicaSet && replicas(&desired.object) < replicas(live)
    }

    /// A live read before a set is lowered: the pod that goes must still be the
    /// one that was decided upon (operator rule 1).
    async fn check_live(
        &self,
        settings: &Settings,
        revision: &str,
        live: &serde_json::Value,
    ) -> Result<(), ApplyError> {
        let stale = || ApplyError::StaleView { revision: revision.into() };
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), &settings.namespace);
        let selector = format!(
            "{},{REVISION}={revision}",
            settings.selector_text(crate::names::Component::Gateway)
        );
        let pods = api.list(&ListParams::default().labels(&selector)).await.map_err(|_| stale())?;
        let pods: Vec<Pod> =
            pods.items.iter().map(Pod::from).filter(|pod| !pod.terminating).collect();
        let marked = |pod: &Pod| !pod.ready && pod.deletion_cost == DRAINED_COST;
        let size = live["spec"]["replicas"].as_i64().unwrap_or(0);
        let as_decided = i64::try_from(pods.len()) == Ok(size)
            && pods.iter().any(marked)
            && pods.iter().all(|pod| pod.running || marked(pod));
        if as_decided { Ok(()) } else { Err(stale()) }
    }

    async fn mark(
        &self,
        settings: &Settings,
        name: &str,
        cost: serde_json::Value,
    ) -> Result<(), ApplyError> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), &settings.namespace);
        let patch = json!({"metadata": {"annotations": {DELETION_COST: cost}}});
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patched = api.patch(name, &params, &Patch::Merge(patch)).await;
        self.count("Pod", "patch");
        match patched {
            Err(error) if !is_gone(&error) => {
                Err(ApplyError::Mark { name: name.into(), source: Box::new(error) })
            }
            _ => Ok(()),
        }
    }

    /// Older sets keep their template: only the size is patched.
    async fn resize(
        &self,
        settings: &Settings,
        observed: &Observed,
        name: &str,
        replicas: i32,
    ) -> Result<(), ApplyError> {
        if let Some(live) = observed.children.get(&(Kind::ReplicaSet, name.to_owned())) {
            let revision = live.metadata.labels.as_ref().and_then(|l| l.get(REVISION)).cloned();
            let value = serde_json::to_value(&**live).unwrap_or_default();
            self.check_live(settings, &revision.unwrap_or_default(), &value).await?;
        }
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &settings.namespace);
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let patched = api.patch(name, &params, &patch).await;
        patched.map_err(|e| ApplyError::Resize { name: name.into(), source: Box::new(e) })?;
        self.count("ReplicaSet", "patch");
        Ok(())
    }

    async fn delete_pod(
        &self,
        settings: &Settings,
        observed: &Observed,
        name: &str,
    ) -> Result<(), ApplyError> {
        let uid =
            observed.redis_pods.iter().find(|pod| pod.name == name).map(|pod| pod.uid.clone());
        // Exactly the pod that was decided upon, not a successor of the same name.
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), &settings.namespace);
        let deleted = api.delete(name, &params).await.map(|_| ());
        self.count("Pod", "delete");
        gone_is_fine(name, deleted)
    }

    async fn delete(&self, settings: &Settings, kind: Kind, name: &str) -> Result<(), ApplyError> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &settings.namespace, &resource(kind));
        let deleted = api.delete(name, &DeleteParams::background()).await.map(|_| ());
        self.count(kind.api().2, "delete");
        gone_is_fine(name, deleted)
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

fn gone_is_fine(name: &str, deleted: kube::Result<()>) -> Result<(), ApplyError> {
    match deleted {
        Err(error) if !is_gone(&error) => {
            Err(ApplyError::Delete { name: name.into(), source: Box::new(error) })
        }
        _ => Ok(()),
    }
}
