//! What a request reads from: the columns of a view, or a session for statements, which is made when it is first needed.

use std::sync::{Arc, OnceLock};

use ameles_core::Timestamp;
use ameles_store::ReadView;
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;

use super::Coverage;
use crate::session::{run, session};
use crate::template::Statement;
use crate::{QueryError, TableSource};

/// The tables as one request sees them.
pub struct Reading {
    source: Arc<dyn TableSource>,
    view: Option<Arc<ReadView>>,
    memory_bytes_max: usize,
    context: OnceLock<SessionContext>,
}

impl Reading {
    /// Of a source, which may be the view.
    pub fn new(source: &Arc<dyn TableSource>, view: Option<Arc<ReadView>>, memory_bytes_max: usize) -> Self {
        Self { source: Arc::clone(source), view, memory_bytes_max, context: OnceLock::new() }
    }

    /// The view, where columns can be counted without statements.
    pub fn view(&self) -> Option<&Arc<ReadView>> {
        self.view.as_ref()
    }

    /// The session for statements.
    pub fn context(&self) -> Result<&SessionContext, QueryError> {
        if let Some(context) = self.context.get() {
            return Ok(context);
        }
        let context = session(&self.source, self.memory_bytes_max)?;
        Ok(self.context.get_or_init(|| context))
    }

    /// The days that the tables hold.
    pub async fn coverage(&self) -> Result<Option<Coverage>, QueryError> {
        if let Some(view) = self.view.clone() {
            let days = blocking(move || Ok(view.active_days()?)).await?;
            return Ok(days.map(|(first, last)| Coverage { first, last }));
        }
        let sql = "SELECT min(first_ts), max(last_ts) FROM activity".to_owned();
        let batches = run(self.context()?, Statement { sql, parameters: Vec::new() }).await?;
        let instant = |column: usize| -> Result<Option<_>, QueryError> {
            let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
            let micros = cast(batch.column(column), &DataType::Int64)?;
            let micros = micros.as_primitive::<Int64Type>();
            Ok(micros.is_valid(0).then(|| Timestamp::from_micros(micros.value(0)).day()))
        };
        Ok(instant(0)?.zip(instant(1)?).map(|(first, last)| Coverage { first, last }))
    }
}

/// Runs what reads files and computes in a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, QueryError> + Send + 'static) -> Result<T, QueryError> {
    tokio::task::spawn_blocking(work).await.map_err(ameles_store::StoreError::from)?
}
