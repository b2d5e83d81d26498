//! Which metrics there are, and which options fit them.

use ameles_core::Grain;
use ameles_schemas::TableSchemas;

use crate::{MetricRequest, QueryError, Unit};

/// One line of `ameles metric --list`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MetricInfo {
    /// The name to ask for.
    pub name: String,
    /// What it counts.
    pub definition: String,
    /// Its columns besides the dimensions and `complete`.
    pub columns: Vec<String>,
    /// The options that it takes besides period, dimensions and filters.
    pub options: Vec<String>,
    /// The dimensions to split and filter by.
    pub dimensions: Vec<String>,
}

/// A metric of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    Activations,
    InstalledBase,
    Dau,
    /// Active in so many days that end on the date.
    Rolling(u32),
    Mau,
    Stickiness,
    /// The column of `activity` that counts it.
    Measure(String),
    Retention,
    Growth,
}

/// Days of `mau28`'s window.
pub const MAU28_DAYS: u32 = 28;
const WAU_DAYS: u32 = 7;
const ACTIVE_IN_DAYS_MAX: u32 = 3_660;

const FIXED: [(&str, Metric, &str); 9] = [
    ("activations", Metric::Activations, "devices by the day of their first activation"),
    ("installed_base", Metric::InstalledBase, "running total of activations; with active-in, of devices seen in so many days"),
    ("dau", Metric::Dau, "devices active that day"),
    ("wau", Metric::Rolling(WAU_DAYS), "devices active in the 7 days that end that day"),
    ("mau28", Metric::Rolling(MAU28_DAYS), "devices active in the 28 days that end that day"),
    ("mau", Metric::Mau, "devices active in the calendar month"),
    ("stickiness", Metric::Stickiness, "dau / mau28"),
    ("retention", Metric::Retention, "part of each month's activated devices that is active so many months later"),
    ("growth", Metric::Growth, "devices new, retained, resurrected and churned in the month"),
];

impl Metric {
    fn find(name: &str, tables: &TableSchemas) -> Result<Self, QueryError> {
        if let Some((_, metric, _)) = FIXED.iter().find(|(fixed, ..)| *fixed == name) {
            return Ok(metric.clone());
        }
        if tables.measure_index(name).is_some() {
            return Ok(Self::Measure(name.to_owned()));
        }
        let known: Vec<String> = list_metrics(tables).into_iter().map(|info| info.name).collect();
        Err(QueryError::UnknownMetric { name: name.to_owned(), known: known.join(", ") })
    }

    /// Whether periods can be summed.
    pub fn adds_up(&self) -> bool {
        matches!(self, Self::Activations | Self::Measure(_))
    }

    fn counts_users(&self) -> bool {
        matches!(self, Self::Dau | Self::Rolling(_) | Self::Mau | Self::Stickiness)
    }

    fn natural_grain(&self) -> Grain {
        match self {
            Self::Mau | Self::Retention | Self::Growth => Grain::Month,
            _ => Grain::Day,
        }
    }

    fn options(&self, tables: &TableSchemas) -> Vec<String> {
        let mut options = Vec::new();
        let mut add = |fits: bool, option: &str| {
            if fits {
                options.push(option.to_owned());
            }
        };
        add(self.adds_up(), "grain");
        add(matches!(self, Self::Measure(_)), "cumulative");
        add(matches!(self, Self::InstalledBase), "active-in");
        add(self.counts_users() && tables.has_user, "unit");
        options
    }

    fn columns(&self) -> Vec<String> {
        let columns: &[&str] = match self {
            Self::Retention => &["cohort", "offset", "devices", "rate"],
            Self::Growth => &["date", "kind", "value"],
            _ => &["date", "value"],
        };
        columns.iter().map(|column| (*column).to_owned()).collect()
    }

    /// The metric that a request names, with its options checked.
    pub fn of(request: &MetricRequest, tables: &TableSchemas) -> Result<Self, QueryError> {
        let metric = Self::find(&request.name, tables)?;
        let bad = |what: String| Err(QueryError::BadRequest(what));
        let name = &request.name;
        if let Some(grain) = request.grain.filter(|grain| *grain != metric.natural_grain()) {
            if !metric.adds_up() {
                return bad(
                    format!("{name} cannot be summed over a {grain:?}; grain is for what adds up: activations and measures").to_lowercase()
                );
            }
            if request.cumulative {
                return bad(format!("a running total of {name} is daily; leave out grain"));
            }
        }
        if request.cumulative && !matches!(metric, Self::Measure(_)) {
            return bad(format!("cumulative is for measures, not for {name}; installed_base is the running total of activations"));
        }
        match request.active_in {
            Some(_) if metric != Self::InstalledBase => return bad(format!("active-in is for installed_base, not for {name}")),
            Some(days) if !(1..=ACTIVE_IN_DAYS_MAX).contains(&days) => {
                return bad(format!("active-in takes 1 to {ACTIVE_IN_DAYS_MAX} days, not {days}"));
            }
            _ => {}
        }
        if request.unit == Unit::User {
            if !tables.has_user {
                return bad("the contract names no user; count devices".to_owned());
            }
            if !metric.counts_users() {
                return bad(format!("{name} counts devices; unit user is for dau, wau, mau28, mau and stickiness"));
            }
        }
        if let (Some(from), Some(to)) = (request.from, request.to)
            && from > to
        {
            return bad(format!("the period ends on {to}, before it begins on {from}"));
        }
        let filters = request.filters.iter().map(|filter| &filter.dim);
        for dimension in request.by.iter().chain(filters) {
            if tables.dimension_index(dimension).is_none() {
                return Err(QueryError::UnknownDimension { name: dimension.clone(), known: tables.dimensions.join(", ") });
            }
        }
        for (at, dimension) in request.by.iter().enumerate() {
            if request.by[..at].contains(dimension) {
                return bad(format!("the dimension {dimension} is named twice"));
            }
        }
        Ok(metric)
    }
}

/// The metrics that a contract's tables give.
pub fn list_metrics(tables: &TableSchemas) -> Vec<MetricInfo> {
    let info = |name: &str, metric: &Metric, definition: String| MetricInfo {
        name: name.to_owned(),
        definition,
        columns: metric.columns(),
        options: metric.options(tables),
        dimensions: tables.dimensions.clone(),
    };
    let fixed = FIXED.iter().map(|(name, metric, definition)| info(name, metric, (*definition).to_owned()));
    let measures = tables.measures.iter().map(|measure| {
        let definition = format!("events of type {}, each counted once", measure.event_type);
        info(&measure.name, &Metric::Measure(measure.name.clone()), definition)
    });
    fixed.chain(measures).collect()
}
