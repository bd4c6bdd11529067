//! A cluster as a user has it: kubectl, helm, and clients that reach its addresses.

use operator::crd::RealtimeCluster;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

/// A scenario's failure, in words.
pub type Outcome<T = ()> = Result<T, String>;

/// Deadline of a wait that names none: generous, because state is asserted and not time.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a program and returns its output; its error text when it fails or takes over two minutes.
///
/// # Errors
/// What it printed.
pub async fn run(program: &str, args: &[&str], input: &str) -> Outcome<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("failed to start {program}: {e}"))?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    // A program that does not read its input may have closed it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(150), child.wait_with_output()).await;
    let output = output.map_err(|_| format!("{program} {args:?} takes too long"))?;
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{program} {}: {}{text}", args.join(" "), String::from_utf8_lossy(&output.stderr)))
}

/// A namespace with its own RealtimeClusters, removed at the end unless the scenario failed.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Makes it, empty.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn create(name: &str) -> Outcome<Self> {
        let namespace = Self { name: name.into() };
        let _ = run(
            "kubectl",
            &["delete", "namespace", name, "--ignore-not-found", "--timeout=100s"],
            "",
        )
        .await;
        run("kubectl", &["create", "namespace", name], "").await?;
        // Everything we run must fit the restricted profile.
        let label = "pod-security.kubernetes.io/enforce=restricted";
        run("kubectl", &["label", "namespace", name, label], "").await?;
        Ok(namespace)
    }

    /// Removes it in the background.
    pub async fn remove(&self) {
        let _ = run("kubectl", &["delete", "namespace", &self.name, "--wait=false"], "").await;
    }

    /// `kubectl -n NAMESPACE ARGS`.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn kubectl(&self, args: &[&str]) -> Outcome<String> {
        let mut all = vec!["--request-timeout=20s", "-n", &self.name];
        all.extend(args);
        run("kubectl", &all, "").await
    }

    /// Applies a RealtimeCluster called `chat` with this spec.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn apply(&self, spec: &Value) -> Outcome<String> {
        let object = serde_json::json!({
            "apiVersion": "realtime-operator.dev/v1alpha1", "kind": "RealtimeCluster",
            "metadata": {"name": "chat"}, "spec": spec,
        });
        run("kubectl", &["-n", &self.name, "apply", "-f", "-"], &object.to_string()).await
    }

    /// Objects of a kind.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn list(&self, what: &str) -> Outcome<Vec<Value>> {
        let text = self.kubectl(&["get", what, "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The RealtimeCluster `chat`.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn chat(&self) -> Outcome<RealtimeCluster> {
        let text = self.kubectl(&["get", "rtc", "chat", "-o", "json"]).await?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    }

    /// `kubectl wait` for Ready.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn ready(&self) -> Outcome {
        self.kubectl(&["wait", "--for=condition=Ready", "rtc/chat", "--timeout=120s"])
            .await
            .map(drop)
    }

    /// Running gateway pods that are not being deleted: (name, address, ready).
    ///
    /// # Errors
    /// kubectl's.
    pub async fn gateways(&self) -> Outcome<Vec<(String, String, bool)>> {
        let pods = self.list("pods").await?;
        let gateways = pods.iter().filter(|pod| {
            pod["metadata"]["labels"]["realtime-operator.dev/component"] == "gateway"
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        Ok(gateways
            .map(|pod| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let ready = pod["status"]["conditions"].as_array().is_some_and(|all| {
                    all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
                });
                (text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"]), ready)
            })
            .collect())
    }

    /// Address of the gateways' Service.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn service(&self) -> Outcome<String> {
        let path = "jsonpath={.spec.clusterIP}:8080";
        self.kubectl(&["get", "service", "chat-gateway", "-o", path]).await
    }

    /// What is there, for a failed scenario.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        for args in [
            &["get", "rtc,rs,pods", "-o", "wide"][..],
            &["get", "rtc", "chat", "-o", "yaml"],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ] {
            text += &self.kubectl(args).await.unwrap_or_else(|e| e);
        }
        let operator = ["-n", "realtime-system", "logs", "deploy/realtime-operator", "--tail=40"];
        text + &run("kubectl", &operator, "").await.unwrap_or_else(|e| e)
    }
}

/// Waits until a check holds; says what was found last when it does not.
///
/// # Errors
/// The last finding.
pub async fn wait_for(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Outcome,
) -> Outcome {
    let start = Instant::now();
    loop {
        match check().await {
            Ok(()) => return Ok(()),
            Err(found) if start.elapsed() > deadline => {
                return Err(format!("not within {deadline:?}: {what}; found: {found}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Fails with `text` unless `holds`.
///
/// # Errors
/// `text`.
pub fn ensure(holds: bool, text: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(text.into()) }
}

/// Addresses of the network namespace that clients run in.
#[must_use]
pub fn sources() -> Vec<String> {
    (1..=64).map(|n| format!("198.18.0.{}", 100 + n)).collect()
}

/// The local cluster has a network namespace for clients. With an existing
/// cluster clients run where the command runs, which must reach its addresses.
fn client_command(program: &str) -> (String, Vec<String>) {
    let namespace = "/run/netns/rt-clients";
    if std::path::Path::new(namespace).exists() {
        ("nsenter".into(), vec![format!("--net={namespace}"), program.into()])
    } else {
        (program.into(), Vec::new())
    }
}

/// Runs a script of tests/clients with node, where clients run.
///
/// # Errors
/// What it printed.
pub async fn node(script: &str, args: &[&str]) -> Outcome<String> {
    let script = root().join("tests/clients").join(script);
    let script = script.to_string_lossy();
    let (program, mut all) = client_command("node");
    all.push(script.into_owned());
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    run(&program, &all, "").await
}

/// A program that runs until it is dropped or stopped; its output is kept line by line.
pub struct Background {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<Value>>>,
    reader: JoinHandle<()>,
}

impl Background {
    fn start(program: &str, args: &[String]) -> Outcome<Self> {
        let (command, before) = client_command(program);
        let mut child = Command::new(command)
            .args(before)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("failed to start {program}: {e}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let sink = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            let mut read = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = read.next_line().await {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(value);
            }
        });
        Ok(Self { child, stdin, lines, reader })
    }

    /// The load tool.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn load(target: &str, connections: usize, rate: u32) -> Outcome<Self> {
        let tool = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("load");
        let args = [
            "--target",
            target,
            "--connections",
            &connections.to_string(),
            "--rate",
            &rate.to_string(),
            "--sources",
            &sources().join(","),
        ];
        Self::start(&tool.to_string_lossy(), &args.map(str::to_owned))
    }

    /// A stock client that stays in a room.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn stay(url: &str, room: &str) -> Outcome<Self> {
        let script = root().join("tests/clients/stay.mjs");
        Self::start("node", &[script.to_string_lossy().into_owned(), url.into(), room.into()])
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A counter of the last line.
    #[must_use]
    pub fn counter(&self, name: &str) -> i64 {
        self.lines().last().and_then(|line| line[name].as_i64()).unwrap_or(0)
    }

    /// Ends it in order and returns the last line.
    pub async fn stop(mut self) -> Value {
        drop(self.stdin.take());
        let _ = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        // Its output ends with it; then the last line is there.
        let _ = tokio::time::timeout(Duration::from_secs(5), &mut self.reader).await;
        self.lines().last().cloned().unwrap_or_default()
    }
}
