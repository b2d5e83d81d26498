//! The report's tables by polars, lazily, from the Parquet of one snapshot.
//!
//! Where a month's files hold exactly its rows, polars reads them as they lie; where rows have to be
//! merged or left out (a month not settled yet, an erasure pending) it reads the view's rows instead,
//! written as Parquet into memory: no pseudonym is put into a file for this.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use ameles_core::{Day, Month};
use ameles_schemas::{Table, TableSchemas, column};
use ameles_store::ReadView;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use polars::prelude::{
    DataFrame, DataType, Expr, JoinArgs, JoinType, LazyFrame, PolarsResult, ScanArgsParquet, ScanSources, UnionArgs, col, concat, len, lit,
    when,
};

use crate::ReportError;

/// What adds up over the devices of a month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Active devices.
    pub mau: i64,
    /// Devices first activated.
    pub activations: i64,
    /// Events of each measure, in the contract's order.
    pub measures: Vec<i64>,
}

/// The tables, unguarded: they must not leave this crate's `settle`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// By month.
    pub monthly: BTreeMap<Month, Totals>,
    /// Of the report's month, by dimension and value.
    pub breakdowns: BTreeMap<String, BTreeMap<Option<String>, Totals>>,
    /// Devices by cohort and offset.
    pub retention: BTreeMap<(Month, i32), i64>,
    /// Devices by month and kind.
    pub growth: BTreeMap<(Month, String), i64>,
    /// Devices by day.
    pub dau: BTreeMap<Day, i64>,
}

/// Where one month's rows come from. Files are open already, so that a purge cannot take them away.
enum Source {
    Files(Vec<File>),
    Memory(Vec<u8>),
}

/// The rows of `activity` and `devices` up to a month, ready for polars.
pub struct Frames {
    activity: Vec<(Month, Source)>,
    devices: Vec<(Month, Source)>,
    tables: TableSchemas,
}

impl Frames {
    /// Opens all months up to `through`.
    ///
    /// # Errors
    /// When a file or the view cannot be read.
    pub async fn open(view: &Arc<ReadView>, through: Month) -> Result<Self, ReportError> {
        let tables = view.tables().clone();
        let activity = sources(view, Table::Activity, through, &activity_columns(&tables)).await?;
        let devices = sources(view, Table::Devices, through, &devices_columns(&tables)).await?;
        Ok(Self { activity, devices, tables })
    }

    /// Computes the tables of a month; takes a while, so not on a runtime's thread.
    ///
    /// # Errors
    /// When polars fails.
    pub fn compute(self, month: Month, breakdowns: &[&str]) -> Result<Tables, ReportError> {
        let measures: Vec<String> = self.tables.measures.iter().map(|measure| measure.name.clone()).collect();
        let has = |dimension: &&&str| self.tables.dimensions.iter().any(|name| name == **dimension);
        let dimensions: Vec<&str> = breakdowns.iter().filter(has).copied().collect();
        let activity = frame(self.activity, &activity_columns(&self.tables))?;
        let devices = frame(self.devices, &devices_columns(&self.tables))?;
        let first = first_activations(&devices, &dimensions);

        let mut tables = Tables::default();
        if let Some(activity) = &activity {
            monthly(activity, &measures, &mut tables.monthly)?;
            growth(activity, month, &mut tables.growth)?;
            daily(activity, &mut tables.dau)?;
            let of_month = activity.clone().filter(col(MONTH).eq(lit(month.epoch_months())));
            for dimension in &dimensions {
                let groups = tables.breakdowns.entry((*dimension).to_owned()).or_default();
                for (name, mau, sums) in grouped_totals(of_month.clone(), col(*dimension), &measures)? {
                    let totals = groups.entry(name).or_default();
                    totals.mau = mau;
                    totals.measures = sums;
                }
            }
        }
        if let Some(first) = &first {
            for (of, devices) in by_month(first.clone())? {
                tables.monthly.entry(of).or_insert_with(|| empty(&measures)).activations = devices;
            }
            let of_month = first.clone().filter(col(MONTH).eq(lit(month.epoch_months())));
            for dimension in &dimensions {
                let groups = tables.breakdowns.entry((*dimension).to_owned()).or_default();
                for (name, devices, _) in grouped_totals(of_month.clone(), col(*dimension), &[])? {
                    groups.entry(name).or_insert_with(|| empty(&measures)).activations = devices;
                }
            }
            if let Some(activity) = &activity {
                retention(first, activity, &mut tables.retention)?;
            }
        }
        Ok(tables)
    }
}

fn empty(measures: &[String]) -> Totals {
    Totals { measures: vec![0; measures.len()], ..Totals::default() }
}

fn activity_columns(tables: &TableSchemas) -> Vec<&str> {
    let measures = tables.measures.iter().map(|measure| measure.name.as_str());
    [column::DEVICE, column::DAYS].into_iter().chain(tables.dimensions.iter().map(String::as_str)).chain(measures).collect()
}

fn devices_columns(tables: &TableSchemas) -> Vec<&str> {
    [column::DEVICE].into_iter().chain(tables.dimensions.iter().map(String::as_str)).collect()
}

/// Our column of months since 1970-01.
const MONTH: &str = "ameles_month";
/// The engine's name for the count of a group.
const COUNT: &str = "ameles_count";

async fn sources(view: &Arc<ReadView>, table: Table, through: Month, columns: &[&str]) -> Result<Vec<(Month, Source)>, ReportError> {
    let mut months = Vec::new();
    for (month, files) in view.files_for_polars(table) {
        if month > through {
            continue;
        }
        let source = match files {
            Some(paths) => {
                let open = |path: &std::path::PathBuf| File::open(path).map_err(|cause| ReportError::Read { path: path.clone(), cause });
                Source::Files(paths.iter().map(open).collect::<Result<_, _>>()?)
            }
            None => {
                let stream = view.month_stream(table, month, Some(columns))?;
                let schema = stream.schema();
                let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|cause| ReportError::Rows(Box::new(cause)))?;
                let mut bytes = Vec::new();
                let mut writer = ArrowWriter::try_new(&mut bytes, schema, None)?;
                for batch in &batches {
                    writer.write(batch)?;
                }
                writer.close()?;
                Source::Memory(bytes)
            }
        };
        months.push((month, source));
    }
    Ok(months)
}

/// One frame of all months, each row with its month.
fn frame(months: Vec<(Month, Source)>, columns: &[&str]) -> PolarsResult<Option<LazyFrame>> {
    let wanted: Vec<Expr> = columns.iter().copied().chain([MONTH]).map(col).collect();
    let mut frames = Vec::with_capacity(months.len());
    for (month, source) in months {
        let sources = match source {
            Source::Files(files) if files.is_empty() => continue,
            Source::Files(files) => ScanSources::Files(files.into()),
            Source::Memory(bytes) => ScanSources::Buffers(Arc::from([bytes.into()])),
        };
        let args = ScanArgsParquet {
            glob: false,
            cache: false,
            hive_options: polars::io::HiveOptions::new_disabled(),
            ..ScanArgsParquet::default()
        };
        let rows = LazyFrame::scan_parquet_sources(sources, args)?;
        frames.push(rows.with_column(lit(month.epoch_months()).cast(DataType::Int32).alias(MONTH)).select(&wanted));
    }
    if frames.is_empty() { Ok(None) } else { concat(frames, UnionArgs { to_supertypes: true, ..UnionArgs::default() }).map(Some) }
}

/// The row of each device's first activation: that of its earliest month.
fn first_activations(devices: &Option<LazyFrame>, dimensions: &[&str]) -> Option<LazyFrame> {
    let devices = devices.as_ref()?;
    let mut wanted = vec![col(column::DEVICE), col(MONTH)];
    wanted.extend(dimensions.iter().map(|dimension| col(*dimension)));
    let earliest = devices.clone().group_by([col(column::DEVICE)]).agg([col(MONTH).min()]);
    let keys = [col(column::DEVICE), col(MONTH)];
    Some(devices.clone().select(wanted).join(earliest, keys.clone(), keys, JoinArgs::new(JoinType::Inner)))
}

fn sums(measures: &[String]) -> Vec<Expr> {
    measures.iter().map(|name| col(name.as_str()).list().sum().cast(DataType::Int64).sum().alias(format!("sum_{name}").as_str())).collect()
}

fn monthly(activity: &LazyFrame, measures: &[String], into: &mut BTreeMap<Month, Totals>) -> Result<(), ReportError> {
    let mut wanted = vec![len().alias(COUNT)];
    wanted.extend(sums(measures));
    let found = activity.clone().group_by([col(MONTH)]).agg(wanted).collect()?;
    let (months, counts) = (integers(&found, MONTH)?, integers(&found, COUNT)?);
    let sums = measures.iter().map(|name| integers(&found, &format!("sum_{name}"))).collect::<Result<Vec<_>, _>>()?;
    for (row, month) in months.iter().enumerate() {
        let totals = into.entry(month_of(*month)).or_default();
        totals.mau = counts[row];
        totals.measures = sums.iter().map(|sum| sum[row]).collect();
    }
    Ok(())
}

fn by_month(rows: LazyFrame) -> Result<Vec<(Month, i64)>, ReportError> {
    let found = rows.group_by([col(MONTH)]).agg([len().alias(COUNT)]).collect()?;
    let (months, counts) = (integers(&found, MONTH)?, integers(&found, COUNT)?);
    Ok(months.into_iter().map(month_of).zip(counts).collect())
}

type GroupTotals = Vec<(Option<String>, i64, Vec<i64>)>;

fn grouped_totals(rows: LazyFrame, by: Expr, measures: &[String]) -> Result<GroupTotals, ReportError> {
    const GROUP: &str = "ameles_group";
    let mut wanted = vec![len().alias(COUNT)];
    wanted.extend(sums(measures));
    let found = rows.group_by([by.alias(GROUP)]).agg(wanted).collect()?;
    let counts = integers(&found, COUNT)?;
    let sums = measures.iter().map(|name| integers(&found, &format!("sum_{name}"))).collect::<Result<Vec<_>, _>>()?;
    let groups = texts(&found, GROUP)?;
    Ok(groups.into_iter().enumerate().map(|(row, name)| (name, counts[row], sums.iter().map(|sum| sum[row]).collect())).collect())
}

/// Of the devices first activated in a month, those active so many months later.
fn retention(first: &LazyFrame, activity: &LazyFrame, into: &mut BTreeMap<(Month, i32), i64>) -> Result<(), ReportError> {
    const COHORT: &str = "ameles_cohort";
    let cohorts = first.clone().select([col(column::DEVICE), col(MONTH).alias(COHORT)]);
    let active = activity.clone().select([col(column::DEVICE), col(MONTH)]);
    let found = cohorts
        .join(active, [col(column::DEVICE)], [col(column::DEVICE)], JoinArgs::new(JoinType::Inner))
        .filter(col(MONTH).gt_eq(col(COHORT)))
        .group_by([col(COHORT), col(MONTH)])
        .agg([len().alias(COUNT)])
        .collect()?;
    let (cohorts, months, counts) = (integers(&found, COHORT)?, integers(&found, MONTH)?, integers(&found, COUNT)?);
    for ((cohort, month), count) in cohorts.into_iter().zip(months).zip(counts) {
        into.insert((month_of(cohort), (month - cohort) as i32), count);
    }
    Ok(())
}

/// Each month's devices by what they did the month before, and who is gone.
fn growth(activity: &LazyFrame, through: Month, into: &mut BTreeMap<(Month, String), i64>) -> Result<(), ReportError> {
    let [first_month, before, now, kind_of] = ["ameles_first", "ameles_before", "ameles_now", "ameles_kind"];
    let device = || col(column::DEVICE);
    let active = activity.clone().select([device(), col(MONTH)]);
    let first = active.clone().group_by([device()]).agg([col(MONTH).min().alias(first_month)]);
    let next = active.clone().select([device(), (col(MONTH) + lit(1)).alias(MONTH), lit(1).alias(before)]);
    let keys = [device(), col(MONTH)];
    let kind = when(col(MONTH).eq(col(first_month)))
        .then(lit("new"))
        .when(col(before).is_null())
        .then(lit("resurrected"))
        .otherwise(lit("retained"));
    let stayed = active
        .clone()
        .join(first, [device()], [device()], JoinArgs::new(JoinType::Left))
        .join(next.clone(), keys.clone(), keys.clone(), JoinArgs::new(JoinType::Left))
        .select([col(MONTH), kind.alias(kind_of)]);
    let left = next
        .join(active.with_column(lit(1).alias(now)), keys.clone(), keys, JoinArgs::new(JoinType::Left))
        .filter(col(now).is_null().and(col(MONTH).lt_eq(lit(through.epoch_months()))))
        .select([col(MONTH), lit("churned").alias(kind_of)]);
    let found = concat([stayed, left], UnionArgs::default())?.group_by([col(MONTH), col(kind_of)]).agg([len().alias(COUNT)]).collect()?;
    let (months, kinds, counts) = (integers(&found, MONTH)?, texts(&found, kind_of)?, integers(&found, COUNT)?);
    for ((month, kind), count) in months.into_iter().zip(kinds).zip(counts) {
        into.insert((month_of(month), kind.unwrap_or_default()), count);
    }
    Ok(())
}

/// Devices by day, from the bits of the month.
fn daily(activity: &LazyFrame, into: &mut BTreeMap<Day, i64>) -> Result<(), ReportError> {
    // Between integers polars' `and` is the bits' one.
    let bit = |at: i32| col(column::DAYS).and(lit(1_i32 << at)).neq(lit(0_i32)).sum().alias(format!("bit_{at}").as_str());
    let found = activity.clone().group_by([col(MONTH)]).agg((0..31).map(bit).collect::<Vec<_>>()).collect()?;
    let months = integers(&found, MONTH)?;
    for at in 0..31 {
        for (month, count) in months.iter().zip(integers(&found, &format!("bit_{at}"))?) {
            if count > 0 {
                into.insert(month_of(*month).first_day().plus(at), count);
            }
        }
    }
    Ok(())
}

fn month_of(number: i64) -> Month {
    Month::from_epoch_months(number as i32)
}

fn integers(frame: &DataFrame, name: &str) -> Result<Vec<i64>, ReportError> {
    let column = frame.column(name)?.cast(&DataType::Int64)?;
    Ok(column.i64()?.iter().map(Option::unwrap_or_default).collect())
}

fn texts(frame: &DataFrame, name: &str) -> Result<Vec<Option<String>>, ReportError> {
    let column = frame.column(name)?.cast(&DataType::String)?;
    Ok(column.str()?.iter().map(|value| value.map(str::to_owned)).collect())
}
