//! `ameles kafka`

use std::fmt;
use std::process::ExitCode;

use ameles_ingest::{ResetPartition, reset_kafka};

use crate::args::{KafkaArgs, KafkaCommand};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::home::Location;
use crate::output;

/// Sets partitions back.
pub async fn run(home: &Location, args: &KafkaArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::open(home).await?;
    let KafkaCommand::Reset { topic, partition, json } = &args.command;
    let reset = reset_kafka(&environment.warehouse, topic, *partition).await?;
    if reset.is_empty() {
        let which = partition.map(|partition| format!(", partition {partition}")).unwrap_or_default();
        return Err(Failure::failed(anyhow::anyhow!("no events of topic {topic}{which} have been ingested: there is nothing to set back")));
    }
    let partitions: Vec<_> = reset
        .iter()
        .map(|of| serde_json::json!({ "cluster": of.cluster, "partition": of.partition, "was": of.was, "is": "beginning" }))
        .collect();
    let detail = serde_json::json!({ "topic": topic, "partitions": partitions });
    let audited = serde_json::json!({ "topic": topic, "partition": partition, "partitions": reset.len() });
    environment.ledger.audit("cli", "kafka_reset", None, audited).await?;
    output::summary(*json, &detail, Reset { topic, partitions: &reset })?;
    Ok(ExitCode::SUCCESS)
}

struct Reset<'a> {
    topic: &'a str,
    partitions: &'a [ResetPartition],
}

impl fmt::Display for Reset<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is read from its beginning:", self.topic)?;
        for ResetPartition { cluster, partition, was } in self.partitions {
            let was = was.map_or("at its beginning already".to_owned(), |was| format!("was at offset {was}"));
            write!(f, "\n  partition {partition} (cluster {cluster}) {was}")?;
        }
        Ok(())
    }
}
