//! Leader election on a Lease: one replica reconciles, the others wait.
//!
//! Expiry is judged by how long the record stayed unchanged on our own clock,
//! never by comparing clocks of two machines; every write carries the
//! resourceVersion it was decided upon.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::{Duration, Instant};

/// A record unchanged for this long has no living holder.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks.
pub const RETRY: Duration = Duration::from_secs(2);

/// What was seen of the Lease and when it last changed, by our clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    holder: Option<String>,
    transitions: i32,
    renewed: Option<String>,
    changed_at: Option<Instant>,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is free, or its holder is gone: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Somebody else leads.
    Yield,
}

/// Decides from what was seen. Pure.
#[must_use]
pub fn evaluate(seen: &Seen, me: &str, now: Instant) -> Verdict {
    match &seen.holder {
        Some(holder) if holder == me => Verdict::Renew,
        None => Verdict::Acquire,
        Some(_) => match seen.changed_at {
            Some(at) if now.duration_since(at) > LEASE_DURATION => Verdict::Acquire,
            _ => Verdict::Yield,
        },
    }
}

/// A candidate for leadership.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    me: String,
    seen: Seen,
}

impl Elector {
    /// A candidate called `me` for the Lease `name` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.into(), me: me.into(), seen: Seen::default() }
    }

    /// Waits until this replica leads.
    pub async fn acquire(&mut self) {
        loop {
            match self.look().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, lease = self.name, "failed to look at the lease")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews until leadership is lost.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            tokio::time::sleep(RETRY).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.look()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "failed to renew the lease"),
                Err(_) => return,
            }
        }
    }

    /// Gives the Lease up, so that a successor need not wait for it to expire.
    pub async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.me) {
            spec.holder_identity = None;
            let _ = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        }
    }

    /// One look; true when this replica leads.
    async fn look(&mut self) -> kube::Result<bool> {
        let found = self.api.get_opt(&self.name).await?;
        self.note(found.as_ref().and_then(|lease| lease.spec.as_ref()));
        match evaluate(&self.seen, &self.me, Instant::now()) {
            Verdict::Yield => Ok(false),
            verdict => self.write(found, verdict).await,
        }
    }

    fn note(&mut self, spec: Option<&LeaseSpec>) {
        let renewed = spec.and_then(|s| s.renew_time.as_ref()).map(|t| t.0.to_string());
        let holder = spec.and_then(|s| s.holder_identity.clone()).filter(|h| !h.is_empty());
        let transitions = spec.and_then(|s| s.lease_transitions).unwrap_or(0);
        let same = self.seen.holder == holder && self.seen.renewed == renewed;
        let changed_at = self.seen.changed_at.filter(|_| same).or_else(|| Some(Instant::now()));
        self.seen = Seen { holder, transitions, renewed, changed_at };
    }

    async fn write(&mut self, found: Option<Lease>, verdict: Verdict) -> kube::Result<bool> {
        let mut lease = found.clone().unwrap_or_default();
        lease.metadata.name = Some(self.name.clone());
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = i32::try_from(LEASE_DURATION.as_secs()).ok();
        spec.renew_time = Some(now.clone());
        if verdict == Verdict::Acquire {
            spec.acquire_time = Some(now);
            spec.lease_transitions = Some(self.seen.transitions + 1);
        }
        let params = PostParams::default();
        let written = match found {
            Some(_) => self.api.replace(&self.name, &params, &lease).await,
            None => self.api.create(&params, &lease).await,
        };
        match written {
            Ok(lease) => {
                self.note(lease.spec.as_ref());
                Ok(true)
            }
            // Somebody wrote in between: look again.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_believed_as_long_as_its_record_changes() {
        let now = Instant::now();
        let seen = |holder: Option<&str>, changed_at| Seen {
            holder: holder.map(Into::into),
            changed_at: Some(changed_at),
            ..Seen::default()
        };
        assert_eq!(evaluate(&seen(None, now), "me", now), Verdict::Acquire);
        assert_eq!(evaluate(&seen(Some("me"), now), "me", now), Verdict::Renew);
        assert_eq!(evaluate(&seen(Some("you"), now), "me", now + LEASE_DURATION), Verdict::Yield);
        let later = now + LEASE_DURATION + Duration::from_millis(1);
        assert_eq!(evaluate(&seen(Some("you"), now), "me", later), Verdict::Acquire);
    }
}
