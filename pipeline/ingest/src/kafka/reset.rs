//! Setting partitions back to their beginning, after their topic was made anew.

use ameles_schemas::Table;
use ameles_store::Warehouse;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::lane::BEGINNING;
use crate::IngestError;

/// A partition that was set back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetPartition {
    /// The cluster's id.
    pub cluster: String,
    /// The partition.
    pub partition: i32,
    /// Where it stood; `None` where it was at its beginning already.
    pub was: Option<i64>,
}

/// The id under which the log notes a topic's id.
pub(super) fn topic_app(cluster: &str, topic: &str) -> String {
    format!("kafka-topic:{cluster}:{topic}")
}

/// Sets a topic's partitions, or one of them, back to their beginning, in every cluster that the log knows it in. No
/// broker is asked. A server at work goes on from there within seconds. Empty when the log does not know the topic.
///
/// # Errors
/// When the warehouse cannot be read or written; running it again is harmless.
pub fn reset_kafka<'a>(
    warehouse: &'a Warehouse,
    topic: &'a str,
    partition: Option<i32>,
) -> BoxFuture<'a, Result<Vec<ResetPartition>, IngestError>> {
    async move {
        let snapshot = warehouse.snapshot().await.map_err(IngestError::store)?;
        let mut found = Vec::new();
        let mut apps = Vec::new();
        for (app, position) in snapshot.txns(Table::Events) {
            let mut parts = app.split(':');
            let (kind, cluster, name, number) = (parts.next(), parts.next(), parts.next(), parts.next());
            let (Some(cluster), true) = (cluster, name == Some(topic)) else { continue };
            match (kind, number.map(str::parse::<i32>)) {
                (Some("kafka"), Some(Ok(number))) if partition.is_none_or(|only| only == number) => {
                    apps.push(app.to_owned());
                    found.push(ResetPartition {
                        cluster: cluster.to_owned(),
                        partition: number,
                        was: Some(position).filter(|at| *at >= 0),
                    });
                }
                // The topic may be another one from here on; with one partition alone it stays the same.
                (Some("kafka-topic"), None) if partition.is_none() => apps.push(app.to_owned()),
                _ => {}
            }
        }
        found.sort_by(|a, b| (&a.cluster, a.partition).cmp(&(&b.cluster, b.partition)));
        apps.sort();
        if !found.is_empty() {
            warehouse.set_positions(&apps, BEGINNING).await.map_err(IngestError::store)?;
        }
        Ok(found)
    }
    .boxed()
}
