//! All sessions of this gateway by id.

use super::{Session, Sid};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks: a mass disconnect must not make handshakes wait for one lock.
const SHARDS: usize = 64;

/// Sharded map from id to session.
#[derive(Default)]
pub struct Registry {
    shards: Vec<Mutex<HashMap<Sid, Arc<Session>>>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, sid: Sid) -> MutexGuard<'_, HashMap<Sid, Arc<Session>>> {
        // The last byte of the id is random.
        let index = usize::from(sid.0[14]) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session.
    pub fn insert(&self, session: Arc<Session>) {
        self.shard(session.sid).insert(session.sid, session);
    }

    /// Finds one.
    #[must_use]
    pub fn get(&self, sid: Sid) -> Option<Arc<Session>> {
        self.shard(sid).get(&sid).cloned()
    }

    /// Removes one.
    pub fn remove(&self, sid: Sid) {
        self.shard(sid).remove(&sid);
    }

    /// Every session at this moment, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Session>> {
        let lock = |shard: &Mutex<HashMap<Sid, Arc<Session>>>| {
            shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .cloned()
                .collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(lock).collect()
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// True without sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
