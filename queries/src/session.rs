//! A DataFusion session that knows our tables and functions, and nothing else.

use std::sync::Arc;

use ameles_schemas::Table;
use arrow::record_batch::RecordBatch;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::template::Statement;
use crate::{QueryError, TableSource, functions};

/// Tables that an analyst's statements may name.
pub const TABLES: [Table; 4] = [Table::Events, Table::Activity, Table::Links, Table::Devices];

const PARTITIONS: usize = 2;

/// A new session over the source's tables. Nothing spills: what is on no disk
/// need not be wiped from one.
pub fn session(source: &Arc<dyn TableSource>, memory_bytes_max: usize) -> Result<SessionContext, QueryError> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory_bytes_max, 1.0).with_disk_manager_builder(disk).build_arc()?;
    let config = SessionConfig::new().with_target_partitions(PARTITIONS).with_information_schema(false);
    let context = SessionContext::new_with_config_rt(config, runtime);
    functions::register(&context);
    let known = source.schemas().tables();
    for table in TABLES.into_iter().filter(|table| known.contains(table)) {
        context.register_table(table.as_str(), Arc::clone(source).provider(table)?)?;
    }
    Ok(context)
}

/// Runs one of our own statements.
pub async fn run(context: &SessionContext, statement: Statement) -> Result<Vec<RecordBatch>, QueryError> {
    let plan = context.state().create_logical_plan(&statement.sql).await?;
    let plan = if statement.parameters.is_empty() { plan } else { plan.with_param_values(statement.parameters)? };
    Ok(context.execute_logical_plan(plan).await?.collect().await?)
}
