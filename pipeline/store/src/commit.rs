//! The one commit loop: append, roll-up, rewrite and schema changes go through it.
//!
//! Each attempt decides anew on the table as it stands: that the source's
//! positions are where the batch began, that files to be removed are live, that
//! no new suppression hits the batch. Only then is the next entry created, and
//! only one writer can create it: a stale decision cannot win.

use std::sync::Arc;
use std::time::Duration;

use ameles_schemas::Table;
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::entry::{entry_bytes, put_entry};
use crate::log::{self, Change, LogState};
use crate::{StoreError, Warehouse};

/// More than this many commits of others in a row while one is tried mean that something is wrong.
const ATTEMPTS_MAX: u32 = 200;
/// A checkpoint each so many entries keeps opening fast.
const CHECKPOINT_EVERY: i64 = 100;

/// What to do with the table as it stands.
pub(crate) enum Decision {
    /// Commit this on top of it.
    Commit(Change),
    /// Nothing is to be done, or it has landed already.
    Done,
}

/// Decides at each attempt; must look at other tables only after it was handed `state`.
#[async_trait]
pub(crate) trait Plan: Send {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError>;
}

/// The versions before and after a commit; the same when there was nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Landed {
    pub(crate) before: i64,
    pub(crate) after: i64,
}

impl Warehouse {
    pub(crate) fn commit<'a>(&'a self, table: Table, plan: &'a mut dyn Plan) -> BoxFuture<'a, Result<Landed, StoreError>> {
        async move {
            // Within a process commits to a table queue up instead of losing to each other.
            let _turn = self.turn(table).lock().await;
            for attempt in 0..ATTEMPTS_MAX {
                let state = self.refresh(table).await?;
                let change = match plan.decide(&state).await? {
                    Decision::Commit(change) => change,
                    Decision::Done => return Ok(Landed { before: state.version, after: state.version }),
                };
                if change.remove.iter().any(|path| !state.is_live(path)) {
                    return Err(StoreError::FilesReplaced { table: table.as_str() });
                }
                let version = state.version + 1;
                if self.put_entry(table, &state, &change).await? {
                    self.refresh(table).await?;
                    if version % CHECKPOINT_EVERY == 0
                        && let Err(error) = self.checkpoint(table).await
                    {
                        tracing::warn!(
                            table = table.as_str(),
                            version,
                            error = &error as &dyn std::error::Error,
                            "no checkpoint was written"
                        );
                    }
                    return Ok(Landed { before: state.version, after: version });
                }
                tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(20)))).await;
            }
            Err(StoreError::Contended { table: table.as_str(), attempts: ATTEMPTS_MAX })
        }
        .boxed()
    }

    /// Creates the next entry; false when another writer has. An error is looked into: the entry may be there all the same.
    async fn put_entry(&self, table: Table, state: &LogState, change: &Change) -> Result<bool, StoreError> {
        let version = state.version + 1;
        let nonce = uuid::Uuid::new_v4().to_string();
        let bytes = entry_bytes(table, state, change, &nonce, self.clock().now());
        let folder = self.table_folder(table);
        tokio::task::spawn_blocking(move || match put_entry(&folder, version, &bytes) {
            Ok(created) => Ok(created),
            Err(source) => {
                let path = log::entry_path(&folder, version);
                match std::fs::read(&path) {
                    // The nonce makes the bytes ours alone: it is there. Its directory may not be on the disk yet.
                    Ok(found) if found == bytes => {
                        let synced = crate::durable::sync_directory(&log::log_folder(&folder));
                        synced.map(|()| true).map_err(|source| StoreError::Io {
                            doing: "syncing",
                            path: path.display().to_string(),
                            source,
                        })
                    }
                    _ => Err(StoreError::Io { doing: "committing", path: path.display().to_string(), source }),
                }
            }
        })
        .await?
    }
}
