//! Caches of the objects we own: one watch a kind, shared by reconciling and observing.

use crate::decide::objects::Kind;
use crate::metrics::Metrics;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The caches.
#[derive(Clone)]
pub struct Stores {
    /// Pods of all parts.
    pub pods: Store<Pod>,
    children: HashMap<Kind, Store<DynamicObject>>,
}

/// A child changed: who owns it.
pub type Touched =
    std::pin::Pin<Box<dyn Stream<Item = Result<DynamicObject, watcher::Error>> + Send>>;
/// A pod changed.
pub type TouchedPods = std::pin::Pin<Box<dyn Stream<Item = Result<Pod, watcher::Error>> + Send>>;

/// API description of a kind.
#[must_use]
pub fn resource(kind: Kind) -> ApiResource {
    let (group, version, name, plural) = kind.api();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural)
}

impl Stores {
    /// Starts nothing yet: the returned streams drive the caches when they are polled.
    #[must_use]
    pub fn new(
        client: &Client,
        namespaces: &Namespaces,
        metrics: &Arc<Metrics>,
    ) -> (Self, Vec<(Kind, Touched)>, TouchedPods) {
        let only_ours =
            watcher::Config::default().labels("app.kubernetes.io/name=realtime-cluster");
        let mut children = HashMap::new();
        let mut streams: Vec<(Kind, Touched)> = Vec::new();
        for kind in Kind::ALL {
            let resource = resource(kind);
            let writer = reflector::store::Writer::new(resource.clone());
            children.insert(kind, writer.as_reader());
            let api: Api<DynamicObject> = match namespaces.single() {
                Some(one) => Api::namespaced_with(client.clone(), one, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let watch =
                watcher(api, only_ours.clone()).default_backoff().reflect(writer).touched_objects();
            streams.push((kind, without_errors(watch, kind.api().2, metrics)));
        }
        let (pods, writer) = reflector::store();
        let watch = watcher(namespaces.api(client), only_ours)
            .default_backoff()
            .reflect(writer)
            .touched_objects();
        let pod_stream = without_errors(watch, "Pod", metrics);
        (Self { pods, children }, streams, pod_stream)
    }

    /// Cached objects of a kind.
    #[must_use]
    pub fn children(&self, kind: Kind) -> Vec<Arc<DynamicObject>> {
        self.children.get(&kind).map(Store::state).unwrap_or_default()
    }

    /// Waits until every cache was filled once: before that, a missing child
    /// would look deleted. False when that takes too long.
    pub async fn ready(&self) -> bool {
        let all = async {
            self.pods.wait_until_ready().await.is_ok()
                && futures_util::future::join_all(
                    self.children.values().map(Store::wait_until_ready),
                )
                .await
                .iter()
                .all(Result::is_ok)
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap_or(false)
    }
}

/// Counts and logs a watch's errors instead of passing them on: each watch backs
/// off by itself, while the controller would make all watches wait for every
/// error of any, which adds up to minutes after a restart of the API server.
pub fn without_errors<K: Send + 'static>(
    watch: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
    kind: &'static str,
    metrics: &Arc<Metrics>,
) -> std::pin::Pin<Box<dyn Stream<Item = Result<K, watcher::Error>> + Send>> {
    let metrics = Arc::clone(metrics);
    watch
        .filter(move |item| {
            if let Err(error) = item {
                Metrics::count(&metrics.watch_errors, [("kind", kind)]);
                tracing::warn!(kind, %error, "watch failed, trying again");
            }
            std::future::ready(item.is_ok())
        })
        .boxed()
}

/// Which namespaces are watched.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Option<String>);

impl Namespaces {
    /// All, or one.
    #[must_use]
    pub fn new(one: Option<String>) -> Self {
        Self(one.filter(|name| !name.is_empty()))
    }

    /// The one namespace, when only one is watched.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// An API for a kind over what is watched.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        match self.single() {
            Some(one) => Api::namespaced(client.clone(), one),
            None => Api::all(client.clone()),
        }
    }
}
