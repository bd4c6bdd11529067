//! The loop: observe → decide → apply → status, for one resource at a time.

use crate::apply::{Applier, ApplyError};
use crate::crd::{RealtimeCluster, RealtimeClusterStatus};
use crate::decide::scale::History;
use crate::decide::{Note, Plan, decide, next_look};
use crate::gateways::Gateways;
use crate::metrics::Metrics;
use crate::observe::{Dated, Observed, observe};
use crate::secrets::{SecretError, Secrets};
use crate::settings::{Installed, Settings};
use crate::status;
use crate::stores::{Namespaces, Stores, resource, without_errors};
use contract::internal::Sample;
use contract::labels::FIELD_MANAGER;
use contract::sign::Keys;
use futures_util::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Figures alone reach the status at most this often.
const FIGURES_INTERVAL: Duration = Duration::from_secs(30);
/// Resources reconciled at the same time.
const CONCURRENCY: u16 = 16;
/// Longest wait after repeated failures.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A pass that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Caches are not filled yet.
    #[error("failed to fill the caches in time")]
    Caches,
    /// Secrets.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A step of the plan.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Status.
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
}

impl ReconcileError {
    fn step(&self) -> &'static str {
        match self {
            Self::Caches => "caches",
            Self::Secret(_) => "secret",
            Self::Apply(error) => error.step(),
            Self::Status(_) => "status",
        }
    }
}

/// What is remembered of a resource between passes, by this process alone.
#[derive(Default)]
struct Memory {
    history: History,
    samples: HashMap<String, Dated>,
    status_written: Option<Instant>,
    failures: u32,
    told: Vec<Note>,
}

/// Everything a pass needs.
pub struct Context {
    client: Client,
    stores: Stores,
    installed: Installed,
    gateways: Gateways,
    secrets: Secrets,
    applier: Applier,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    memory: Mutex<HashMap<String, Memory>>,
}

/// Runs until `stop` resolves; only the leader calls this.
pub async fn run(
    client: Client,
    namespaces: Namespaces,
    installed: Installed,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (stores, children, pods) = Stores::new(&client, &namespaces, &metrics);
    let gateways = Gateways::default();
    let context = Arc::new(Context {
        applier: Applier::new(client.clone(), gateways.clone(), Arc::clone(&metrics)),
        secrets: Secrets::new(client.clone()),
        recorder: Recorder::new(client.clone(), "realtime-operator".into()),
        memory: Mutex::default(),
        client: client.clone(),
        stores: stores.clone(),
        installed,
        gateways,
        metrics: Arc::clone(&metrics),
    });
    let clusters: Api<RealtimeCluster> = namespaces.api(&client);
    let config = kube::runtime::controller::Config::default().concurrency(CONCURRENCY);
    let (reader, writer) = kube::runtime::reflector::store();
    let watch = watcher(clusters, watcher::Config::default()).default_backoff().reflect(writer);
    let watch = without_errors(watch.touched_objects(), "RealtimeCluster", &metrics);
    let mut controller = Controller::for_stream(watch, reader).with_config(config);
    for (kind, stream) in children {
        controller = controller.owns_stream_with(stream, resource(kind));
    }
    // Pods belong to a set, not to the resource: the label says whose they are.
    controller = controller.watches_stream(pods, |pod| {
        let name = pod.labels().get(contract::labels::CLUSTER).cloned()?;
        let namespace = pod.namespace()?;
        Some(kube::runtime::reflector::ObjectRef::new(&name).within(&namespace))
    });
    controller
        .graceful_shutdown_on(stop)
        .run(reconcile, error_policy, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "pass ended");
            }
        })
        .await;
}

async fn reconcile(
    cluster: Arc<RealtimeCluster>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let start = Instant::now();
    if !context.stores.ready().await {
        return Err(ReconcileError::Caches);
    }
    if cluster.metadata.deletion_timestamp.is_some() {
        // Owner references clean up; nothing outside the namespace is ours.
        return Ok(Action::await_change());
    }
    let settings = Settings::new(&cluster, &context.installed);
    if settings.paused {
        let status = status::paused(&settings, cluster.status.as_ref(), Timestamp::now());
        context.write_status(&settings, &cluster, status).await?;
        return Ok(Action::await_change());
    }
    let keys = context.secrets.ensure(&settings).await?;
    let mut observed = observe(&settings, &context.stores);
    context.sample(&settings, &keys, &mut observed).await;
    let history = context.memory(&settings, |memory| memory.history.clone());
    let (plan, history) = decide(&settings, &observed, &history, SystemTime::now());
    context.memory(&settings, |memory| memory.history = history);
    context.tell(&settings, &cluster, &plan).await;
    context.applier.apply(&settings, &observed, &keys, &plan).await?;
    let status =
        status::status(&settings, &observed, &plan, cluster.status.as_ref(), Timestamp::now());
    context.write_status(&settings, &cluster, status).await?;
    context.done(&settings, start);
    Ok(Action::requeue(next_look(&settings, &plan)))
}

fn error_policy(
    cluster: Arc<RealtimeCluster>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    Metrics::count(&context.metrics.reconciles, [("result", error.step())]);
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::warn!(
        namespace = cluster.namespace(),
        name = cluster.name_any(),
        error = text,
        "pass failed"
    );
    let mut memory = context.memory.lock().unwrap_or_else(PoisonError::into_inner);
    let memory = memory.entry(cluster.uid().unwrap_or_default()).or_default();
    memory.failures = memory.failures.saturating_add(1);
    let wait =
        Duration::from_millis(500).saturating_mul(1 << memory.failures.min(8)).min(BACKOFF_MAX);
    Action::requeue(wait.mul_f64(0.5 + 0.5 * rand::random::<f64>()))
}

impl Context {
    fn memory<T>(&self, settings: &Settings, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(settings.uid.clone()).or_default())
    }

    /// Asks every gateway that could answer, all at once.
    async fn sample(&self, settings: &Settings, keys: &Keys, observed: &mut Observed) {
        let asked = observed.gateway_pods.iter().filter(|pod| pod.running && !pod.terminating);
        let answers = futures_util::future::join_all(asked.map(async |pod| {
            let answer = self.gateways.sample(pod, keys).await;
            let result = if answer.is_ok() { "ok" } else { "failed" };
            Metrics::count(&self.metrics.scrapes, [("result", result)]);
            (pod.uid.clone(), answer)
        }))
        .await;
        let now = SystemTime::now();
        let pods: Vec<&str> = observed.gateway_pods.iter().map(|pod| pod.uid.as_str()).collect();
        observed.samples = self.memory(settings, |memory| {
            memory.samples.retain(|uid, _| pods.contains(&uid.as_str()));
            for (uid, answer) in answers {
                if let Ok(sample) = answer {
                    let before = memory.samples.get(&uid).map(|dated| dated.sample.clone());
                    memory.samples.insert(uid, dated(now, sample, before));
                }
            }
            memory.samples.clone()
        });
        let oldest =
            observed.samples.values().filter_map(|dated| now.duration_since(dated.at).ok()).max();
        let labels =
            vec![("namespace", settings.namespace.clone()), ("name", settings.name.clone())];
        self.metrics
            .sample_age
            .get_or_create(&labels)
            .set(oldest.unwrap_or_default().as_secs_f64());
    }

    /// Logs and publishes what the plan has to say; the same text once.
    async fn tell(&self, settings: &Settings, cluster: &RealtimeCluster, plan: &Plan) {
        let new: Vec<Note> = self.memory(settings, |memory| {
            let new =
                plan.notes.iter().filter(|note| !memory.told.contains(note)).cloned().collect();
            memory.told.clone_from(&plan.notes);
            new
        });
        for note in new {
            tracing::info!(
                namespace = settings.namespace,
                name = settings.name,
                reason = note.reason,
                "{}",
                note.text
            );
            let event = Event {
                type_: if note.warning { EventType::Warning } else { EventType::Normal },
                reason: note.reason.into(),
                note: Some(note.text),
                action: "Reconcile".into(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &cluster.object_ref(&())).await {
                tracing::warn!(%error, "failed to publish an event");
            }
        }
        let labels =
            vec![("namespace", settings.namespace.clone()), ("name", settings.name.clone())];
        self.metrics.desired.get_or_create(&labels).set(plan.decision.desired.into());
    }

    async fn write_status(
        &self,
        settings: &Settings,
        cluster: &RealtimeCluster,
        status: RealtimeClusterStatus,
    ) -> Result<(), ReconcileError> {
        let due = self.memory(settings, |memory| {
            memory.status_written.is_none_or(|at| at.elapsed() >= FIGURES_INTERVAL)
        });
        if !status::worth_writing(cluster.status.as_ref(), &status, due) {
            return Ok(());
        }
        let api: Api<RealtimeCluster> = Api::namespaced(self.client.clone(), &settings.namespace);
        let object = json!({
            "apiVersion": RealtimeCluster::api_version(&()),
            "kind": RealtimeCluster::kind(&()),
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = api.patch_status(&settings.name, &params, &Patch::Apply(&object)).await;
        written.map_err(|e| ReconcileError::Status(Box::new(e)))?;
        Metrics::count(&self.metrics.writes, [("kind", "RealtimeCluster"), ("verb", "status")]);
        self.memory(settings, |memory| memory.status_written = Some(Instant::now()));
        Ok(())
    }

    fn done(&self, settings: &Settings, start: Instant) {
        self.memory(settings, |memory| memory.failures = 0);
        Metrics::count(&self.metrics.reconciles, [("result", "ok")]);
        self.metrics.reconcile_seconds.observe(start.elapsed().as_secs_f64());
    }
}

fn dated(at: SystemTime, sample: Sample, before: Option<Sample>) -> Dated {
    let accepts = before.map(|before| sample.accepts_total.saturating_sub(before.accepts_total));
    Dated { at, sample, accepts }
}
