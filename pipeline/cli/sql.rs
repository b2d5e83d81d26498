//! `ameles sql`

use std::io::Read;
use std::process::ExitCode;

use ameles_queries::format_batches;

use crate::args::SqlArgs;
use crate::environment::Environment;
use crate::failure::{Failure, Usage};
use crate::home::Location;
use crate::output;

const QUERY_BYTES_MAX: u64 = 1 << 20;

/// Runs a query and prints its rows.
pub async fn run(home: &Location, args: &SqlArgs) -> Result<ExitCode, Failure> {
    let query = if args.query == "-" {
        let mut text = String::new();
        std::io::stdin().lock().take(QUERY_BYTES_MAX).read_to_string(&mut text)?;
        text
    } else {
        args.query.clone()
    };
    let environment = Environment::open(home).await?;
    let guard = environment.guard(args.k)?;
    let (_, metrics) = environment.metrics().await?;
    let answer = metrics.run_sql(&query, guard).await.map_err(Usage::into_failure)?;
    output::to(args.output.as_deref(), |out| Ok(format_batches(&answer, args.format.into(), out)?))?;
    Ok(ExitCode::SUCCESS)
}
