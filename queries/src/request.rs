//! A metric asked for: period, dimensions, filters, unit.

use std::str::FromStr;

use ameles_core::{Day, Grain};

use crate::QueryError;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unit {
    /// Devices.
    #[default]
    Device,
    /// Users, by the devices that they were seen on.
    User,
}

impl FromStr for Unit {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, QueryError> {
        match text {
            "device" => Ok(Self::Device),
            "user" => Ok(Self::User),
            _ => Err(QueryError::BadRequest(format!("no unit {text:?}; use device or user"))),
        }
    }
}

/// Who reads the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The local operator or the compliance role: everything.
    None,
    /// An analyst: nothing that rests on fewer than so many devices, or users.
    K(u32),
}

impl Guard {
    /// The smallest group; below 2 there is nothing to hide.
    pub fn k(self) -> Option<u32> {
        match self {
            Self::None | Self::K(0 | 1) => None,
            Self::K(k) => Some(k),
        }
    }
}

/// `DIM=a,b` or `DIM!=a,b`.
///
/// A device without a value for the dimension is in none of the values named:
/// `=` leaves it out, `!=` keeps it (other than SQL's `NOT IN`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The dimension.
    pub dim: String,
    /// `!=`.
    pub negate: bool,
    /// The values named.
    pub values: Vec<String>,
}

impl FromStr for Filter {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, QueryError> {
        let bad = || QueryError::BadFilter(text.to_owned());
        let (left, right) = text.split_once('=').ok_or_else(bad)?;
        let (dim, negate) = match left.strip_suffix('!') {
            Some(dim) => (dim, true),
            None => (left, false),
        };
        if dim.trim().is_empty() {
            return Err(bad());
        }
        let values = right.split(',').map(|value| value.trim().to_owned()).collect();
        Ok(Self { dim: dim.trim().to_owned(), negate, values })
    }
}

/// A metric with its options, as `ameles metric` and `GET /v1/metrics/{name}` take them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetricRequest {
    /// The metric's name.
    pub name: String,
    /// The first date in the answer (of cohorts, for retention).
    pub from: Option<Day>,
    /// The last date in the answer.
    pub to: Option<Day>,
    /// Dimensions to split by, in order.
    pub by: Vec<String>,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// For what adds up: activations and measures.
    pub grain: Option<Grain>,
    /// Devices or users.
    pub unit: Unit,
    /// `installed_base`: only devices seen in so many days that end on the date.
    pub active_in: Option<u32>,
    /// Measures: the running total.
    pub cumulative: bool,
}

impl MetricRequest {
    /// The metric without options.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
    /// Split by dimensions.
    #[must_use]
    pub fn by<S: Into<String>>(mut self, dimensions: impl IntoIterator<Item = S>) -> Self {
        self.by = dimensions.into_iter().map(Into::into).collect();
        self
    }
}
