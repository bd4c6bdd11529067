//! Named scenarios on a real cluster, each in a namespace of its own.

mod autoscale;
mod clients;
mod heal;
mod install;
mod resource;

use crate::cluster::{Namespace, Outcome, wait_for};
use crate::report::Point;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A scenario: name, what it shows, and how it is run.
pub struct Scenario {
    /// Short name, also part of its namespace's.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// True when `make test` runs it, too.
    pub smoke: bool,
    run: fn(Namespace) -> LocalBoxFuture<'static, Outcome<String>>,
}

macro_rules! scenario {
    ($name:literal, $title:literal, $smoke:literal, $run:path) => {
        Scenario {
            name: $name,
            title: $title,
            smoke: $smoke,
            run: |namespace| Box::pin($run(namespace)),
        }
    };
}

/// All scenarios of the skeleton, in order.
#[must_use]
pub fn skeleton() -> Vec<Scenario> {
    vec![
        scenario!(
            "messages",
            "stock clients on two pods exchange messages: WebSocket, long-polling, text, binary, acks",
            true,
            clients::messages
        ),
        scenario!(
            "smoke",
            "apply, up, down with a short window, pod kill, helm upgrade",
            true,
            autoscale::smoke
        ),
        scenario!(
            "default-options",
            "200 connects with default options from 64 addresses, no affinity: no unknown session",
            false,
            clients::default_options
        ),
        scenario!(
            "client-ip",
            "ClientIP: 64 addresses stay on their pod over reconnects",
            false,
            clients::client_ip
        ),
        scenario!(
            "autoscale",
            "step 0 to 3 000 connections at 500 a pod: right size within 5 s; down after the window only",
            false,
            autoscale::step
        ),
        scenario!(
            "status",
            "get, describe, wait and scale tell a person the state; kstatus is right at each moment",
            false,
            resource::status
        ),
        scenario!(
            "empty-spec",
            "spec {} works, refuses clients and says what to set, and can be scaled",
            false,
            resource::empty_spec
        ),
        scenario!(
            "wrong-specs",
            "wrong specs are refused for every client with field and remedy",
            false,
            resource::wrong_specs
        ),
        scenario!("unsigned", "unsigned internal calls get 401", false, resource::unsigned),
        scenario!(
            "quiet",
            "constant load: no mutating request in 5 minutes besides Leases",
            false,
            resource::quiet
        ),
        scenario!(
            "rollout",
            "a changed spec rolls the gateways under load: every close announced, everybody back",
            false,
            heal::rollout
        ),
        scenario!(
            "operator-upgrade",
            "an operator upgrade with unchanged specs restarts no pod; a restart lowers no fleet",
            false,
            install::operator_upgrade
        ),
        scenario!(
            "helm-twice",
            "helm upgrade twice with server-side apply: no conflict, no diff",
            false,
            install::helm_twice
        ),
        scenario!(
            "heal",
            "pod, Redis and operator killed, child edited, API server restarted: heals alone; others' fields survive",
            false,
            heal::heal
        ),
        scenario!(
            "delete-offline",
            "deleting the resource with the operator stopped cleans up",
            false,
            install::delete_offline
        ),
    ]
}

impl Scenario {
    /// Runs it in its namespace; a failed one leaves its namespace and a dump behind.
    pub async fn run(&self) -> Point {
        let start = Instant::now();
        let name = format!("rt-{}", self.name);
        let outcome = match Namespace::create(&name).await {
            Ok(namespace) => {
                let outcome = (self.run)(namespace.clone()).await;
                match &outcome {
                    Ok(_) => namespace.remove().await,
                    Err(_) => eprintln!("--- state of {name} ---\n{}", namespace.dump().await),
                }
                outcome
            }
            Err(error) => Err(error),
        };
        Point { name: self.name.into(), title: self.title.into(), outcome, took: start.elapsed() }
    }
}

/// The quickstart's gateway section: everybody may do everything.
fn open_gateway() -> Value {
    json!({
        "auth": {"anonymous": true},
        "rooms": [{"name": "all", "match": "*", "allow": {"join": true, "publish": true}}],
        "routes": [
            {"name": "join", "event": "joinRoom", "join": {"room": "$[0]"}},
            {"name": "leave", "event": "leaveRoom", "leave": {"room": "$[0]"}},
            {"name": "send", "event": "sendMessage", "publish": {"room": "$.room || $.roomId || $[0]", "data": "$[1] || $[0]"}},
            {"name": "echo", "event": "echo", "echo": {}},
        ],
        "drain": {"propagationSeconds": 2, "rate": 500, "deadlineSeconds": 15},
    })
}

/// Waits until exactly `count` gateways exist and are ready.
async fn gateways(namespace: &Namespace, count: usize, deadline: u64) -> Outcome {
    let what = format!("{count} ready gateways");
    wait_for(&what, Duration::from_secs(deadline), async || {
        let all = namespace.gateways().await?;
        let ready = all.iter().filter(|(_, _, ready)| *ready).count();
        match all.len() == count && ready == count {
            true => Ok(()),
            false => Err(format!("{} gateways, {ready} ready", all.len())),
        }
    })
    .await
}
