//! Runs a report: figures under the guard, tables by polars, files, manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ameles_core::{Day, Grain, Month, SuppressionSource};
use ameles_queries::{Completeness, Guard, MetricRequest, Metrics};
use ameles_schemas::Table;
use ameles_store::ReadView;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::figures::{BREAKDOWNS, Breakdown, Figures, Wanted, label, ranked};
use crate::frames::{Frames, Tables, Totals};
use crate::manifest::{FORMAT, publish};
use crate::rows::{Row, rows};
use crate::settle::{groups, settle};
use crate::{FileEntry, MANIFEST, Manifest, ReportError, page, sheets};

/// The one report that there is.
pub const MONTHLY_ACTIVITY: &str = "monthly-activity";

/// What to make.
#[derive(Clone, Debug)]
pub struct ReportSpec {
    /// The report's name.
    pub name: String,
    /// Its month.
    pub month: Month,
    /// The smallest group; 1 for the local operator who wants all.
    pub k: u32,
    /// The contract's name and version, such as `device_event v1`.
    pub contract: String,
    /// The policy's version, such as a hash of its text.
    pub policy: String,
    /// How far the data can be relied on.
    pub completeness: Completeness,
}

impl ReportSpec {
    /// The guard that the report's answers pass.
    pub fn guard(&self) -> Guard {
        if self.k <= 1 { Guard::None } else { Guard::K(self.k) }
    }
}

/// The folder of a report among others.
pub fn folder_name(name: &str, month: Month) -> String {
    format!("{name}-{month}")
}

/// One dimension's groups in several columns; a group that the guard folds in one may stand in another.
#[derive(Clone, Debug, Default)]
pub(crate) struct BreakdownTable {
    pub dimension: String,
    pub columns: Vec<(String, BTreeMap<Option<String>, i64>)>,
}

impl BreakdownTable {
    /// All groups of any column, by name, those without a value last.
    pub(crate) fn names(&self) -> Vec<Option<String>> {
        let names: BTreeSet<(bool, &Option<String>)> =
            self.columns.iter().flat_map(|(_, column)| column.keys().map(|name| (name.is_none(), name))).collect();
        names.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// Everything that the files are written from.
pub(crate) struct Content {
    pub spec: ReportSpec,
    pub figures: Figures,
    pub breakdowns: Vec<BreakdownTable>,
    pub tables: BTreeMap<String, i64>,
}

/// Makes a report in the folder `out`, which it replaces whole when it holds an older report.
///
/// The numbers are polars', from the Parquet of the view's snapshot; the metric engine's guarded answers decide what
/// is shown. Running totals (installed base, measures to date), rolling windows and the measures' days are the engine's.
///
/// `suppressions` are read again just before the report is put in its place: one that counts somebody who has asked to be
/// erased meanwhile is never published.
///
/// # Errors
/// When there is no such report, no data in its month, or something cannot be read or written; when the two engines'
/// counts differ. See [`ReportError::is_outdated`] for what running again on a new view cures.
pub fn run<'a>(
    view: Arc<ReadView>,
    suppressions: &'a dyn SuppressionSource,
    spec: ReportSpec,
    out: &'a Path,
) -> BoxFuture<'a, Result<Manifest, ReportError>> {
    make(view, suppressions, spec, out).boxed()
}

async fn make(view: Arc<ReadView>, suppressions: &dyn SuppressionSource, spec: ReportSpec, out: &Path) -> Result<Manifest, ReportError> {
    if spec.name != MONTHLY_ACTIVITY {
        return Err(ReportError::UnknownReport(spec.name));
    }
    let month = spec.month;
    let months = view.months(Table::Activity);
    let Some((_, data_end)) = view.snapshot().data_range().filter(|_| months.contains(&month)) else {
        let known = match (months.iter().min(), months.iter().max()) {
            (Some(first), Some(last)) => format!("there is data from {first} to {last}"),
            _ => "the warehouse is empty; ingest something first".to_owned(),
        };
        return Err(ReportError::NoData { month, known });
    };
    let last_day = month.last_day().min(data_end.day());
    let metrics = Metrics::new(Arc::clone(&view) as Arc<_>, settled(spec.completeness, month));
    let wanted = Wanted { month, last_day, filters: Vec::new(), breakdowns: Vec::new(), guard: spec.guard() };
    let mut figures = Figures::gather(&metrics, view.tables(), &wanted).await?;

    let frames = Frames::open(&view, month).await?;
    let polars: Tables = tokio::task::spawn_blocking(move || frames.compute(month, &BREAKDOWNS)).await??;
    settle(&mut figures, &polars)?;

    let mut breakdowns = Vec::new();
    for dimension in BREAKDOWNS.into_iter().filter(|dimension| view.tables().dimensions.iter().any(|name| name == dimension)) {
        let counts = polars.breakdowns.get(dimension).cloned().unwrap_or_default();
        let table = breakdown(&metrics, &view, &spec, dimension, last_day, &counts).await?;
        if let Some((_, mau)) = table.columns.first() {
            let rows: Vec<(String, i64)> = mau.iter().map(|(name, value)| (label(name.as_deref()), *value)).collect();
            figures.breakdowns.push(Breakdown { dimension: dimension.to_owned(), mau: ranked(rows) });
        }
        breakdowns.push(table);
    }

    let tables = view.tables().tables().into_iter().map(|table| (table.as_str().to_owned(), view.snapshot().version(table))).collect();
    let suppression_sequence = view.suppression_sequence();
    let content = Content { spec, figures, breakdowns, tables };
    let (manifest, files) = tokio::task::spawn_blocking(move || render(&content, suppression_sequence)).await??;
    if suppressions.current().await?.sequence() != suppression_sequence {
        return Err(ReportError::Superseded);
    }
    let out = out.to_path_buf();
    tokio::task::spawn_blocking(move || publish(&out, &files)).await??;
    Ok(manifest)
}

/// The watermark only as far as it matters to the month: a report run a day later on the same versions is the same.
fn settled(completeness: Completeness, month: Month) -> Completeness {
    let horizon = month.end().plus_days(8);
    Completeness { watermark: completeness.watermark.min(horizon), closed_before: completeness.closed_before.min(month.plus(1)) }
}

async fn breakdown(
    metrics: &Metrics,
    view: &ReadView,
    spec: &ReportSpec,
    dimension: &str,
    last_day: Day,
    counts: &BTreeMap<Option<String>, Totals>,
) -> Result<BreakdownTable, ReportError> {
    let first = spec.month.first_day();
    let ask = async |request: MetricRequest| -> Result<Vec<Row>, ReportError> { rows(&metrics.run_metric(&request, spec.guard()).await?) };
    let named =
        |name: &str, from: Day, to: Day| MetricRequest { from: Some(from), to: Some(to), ..MetricRequest::named(name).by([dimension]) };
    let mut columns = Vec::new();
    let mau = ask(named("mau", first, first)).await?;
    columns.push(("mau".to_owned(), groups("mau", &mau, counts, |totals| totals.mau)?));
    let monthly = |request: MetricRequest| MetricRequest { grain: Some(Grain::Month), ..request };
    let activations = ask(monthly(named("activations", first, last_day))).await?;
    columns.push(("activations".to_owned(), groups("activations", &activations, counts, |totals| totals.activations)?));
    let base = ask(named("installed_base", last_day, last_day)).await?;
    let base = base.into_iter().filter_map(|row| Some((row.labels.into_iter().next()?, row.value as i64))).collect();
    columns.push(("installed_base".to_owned(), base));
    for (place, measure) in view.tables().measures.iter().enumerate() {
        let events = ask(monthly(named(&measure.name, first, last_day))).await?;
        let of = |totals: &Totals| totals.measures.get(place).copied().unwrap_or(0);
        columns.push((measure.name.clone(), groups(&measure.name, &events, counts, of)?));
    }
    Ok(BreakdownTable { dimension: dimension.to_owned(), columns })
}

/// The manifest, and all files by name, itself included.
fn render(content: &Content, suppression_sequence: u64) -> Result<(Manifest, Vec<(String, Vec<u8>)>), ReportError> {
    let mut files = sheets::all(content)?;
    files.insert(0, ("report.html".to_owned(), page::render(content).into_bytes()));
    let manifest = Manifest {
        format: FORMAT,
        report: content.spec.name.clone(),
        month: content.spec.month,
        complete: content.figures.mau.complete,
        contract: content.spec.contract.clone(),
        policy: content.spec.policy.clone(),
        k: content.spec.k,
        tables: content.tables.clone(),
        suppression_sequence,
        files: files.iter().map(|(name, bytes)| FileEntry::of(name, bytes)).collect(),
    };
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    files.push((MANIFEST.to_owned(), text));
    Ok((manifest, files))
}
