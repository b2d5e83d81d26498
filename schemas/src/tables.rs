//! The tables' columns, which follow from the contract and nothing else.
//!
//! All types are ones that Delta has (binary, timestamp, string, integer, long,
//! double, boolean, array, date), in the Arrow form that delta_kernel maps them
//! to and from, so that no cast stands between a batch and a commit:
//! `timestamp` is `Timestamp(µs, "UTC")`, and `array<integer, containsNull=false>`
//! is a `List` whose child field is named `element` and not nullable
//! (`LIST_ARRAY_ROOT` in buoyant_kernel's `engine/arrow_conversion`; Arrow's own
//! habit, `item`, would read back as another type).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};

/// Names of the columns that every contract's tables share.
pub mod column {
    /// Pseudonym of the device, 16 bytes.
    pub const DEVICE: &str = "device";
    /// Time of the event.
    pub const TS: &str = "ts";
    /// Pseudonym of the user, 16 bytes.
    pub const USER: &str = "user";
    /// Type of the event.
    pub const TYPE: &str = "type";
    /// Keyed hash of the event id, 16 bytes, until the month has closed.
    pub const EVENT_KEY: &str = "event_key";
    /// First day of the month: the partition.
    pub const MONTH: &str = "month";
    /// Bits of the active days; bit 0 is the 1st.
    pub const DAYS: &str = "days";
    /// Earliest event of the month.
    pub const FIRST_TS: &str = "first_ts";
    /// Latest event of the month.
    pub const LAST_TS: &str = "last_ts";
    /// Event key of the latest event of the month.
    pub const LAST_KEY: &str = "last_key";
    /// Earliest activation event of the month.
    pub const ACTIVATED_TS: &str = "activated_ts";
    /// Event key of that activation event.
    pub const ACTIVATED_KEY: &str = "activated_key";
    /// Quarantine: arrival.
    pub const AT: &str = "at";
    /// Quarantine: alias or keyed hash of the source.
    pub const SOURCE: &str = "source";
    /// Quarantine: line in a file or body.
    pub const LINE: &str = "line";
    /// Quarantine: Kafka partition.
    pub const PARTITION: &str = "partition";
    /// Quarantine: Kafka offset.
    pub const OFFSET: &str = "offset";
    /// Quarantine: why.
    pub const REASON: &str = "reason";
    /// Quarantine: the declared field at fault.
    pub const FIELD: &str = "field";
    /// Quarantine: contract version.
    pub const CONTRACT_VERSION: &str = "contract_version";
    /// Quarantine: partner, where valid.
    pub const PARTNER: &str = "partner";
    /// Quarantine: how many events the row stands for.
    pub const COUNT: &str = "count";
}

/// Name of a list's child field, as Delta maps it.
pub(crate) const LIST_ELEMENT: &str = "element";

/// The tables of a warehouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Accepted events.
    Events,
    /// One device in one month.
    Activity,
    /// One user on one device in one month.
    Links,
    /// One activated device in one month.
    Devices,
    /// Rejected events, explained or counted.
    Quarantine,
}

impl Table {
    /// Every table, in the order of commits but for `quarantine`.
    pub const ALL: [Self; 5] = [Self::Events, Self::Activity, Self::Links, Self::Devices, Self::Quarantine];

    /// The folder's name and the name in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Activity => "activity",
            Self::Links => "links",
            Self::Devices => "devices",
            Self::Quarantine => "quarantine",
        }
    }

    /// The table of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.as_str() == text)
    }

    /// Columns that files of this table are sorted by, ascending; nulls first
    /// where there are any (`quarantine`'s device).
    pub const fn sort_columns(self) -> &'static [&'static str] {
        match self {
            Self::Events => &[column::DEVICE, column::TS],
            Self::Activity | Self::Devices => &[column::DEVICE],
            Self::Links => &[column::USER, column::DEVICE],
            Self::Quarantine => &[column::DEVICE, column::AT],
        }
    }

    /// Columns that name one merged row within a month; empty where rows are
    /// not merged.
    pub const fn key_columns(self) -> &'static [&'static str] {
        match self {
            Self::Activity | Self::Devices => &[column::DEVICE],
            Self::Links => &[column::USER, column::DEVICE],
            Self::Events | Self::Quarantine => &[],
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A measure: how many events of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Name of the metric and of `activity`'s column.
    pub name: String,
    /// Type of the events counted.
    pub event_type: String,
}

/// What the tables of one contract look like.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSchemas {
    /// Columns of the dimensions, in the order of `x-roles`; strings, nullable.
    pub dimensions: Vec<String>,
    /// Measures, in the order of `x-roles`.
    pub measures: Vec<Measure>,
    /// Whether events name a user; without, there is no `links`.
    pub has_user: bool,
    /// Whether events carry an id.
    pub has_event_key: bool,
    /// Type of the event that activates a device; `None`: its first event does.
    pub activation_type: Option<String>,
    /// The other stored columns of `events`, in the order of the contract; nullable.
    pub extra: Vec<(String, DataType)>,
    /// Description of each stored column that the contract describes.
    pub descriptions: Vec<(String, String)>,
}

/// `Timestamp(µs, "UTC")`, Delta's `timestamp`.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn required(name: &str, data_type: DataType) -> ArrowField {
    ArrowField::new(name, data_type, false)
}

fn optional(name: &str, data_type: DataType) -> ArrowField {
    ArrowField::new(name, data_type, true)
}

impl TableSchemas {
    /// The tables that exist: `links` only where events name a user.
    pub fn tables(&self) -> Vec<Table> {
        Table::ALL.into_iter().filter(|table| *table != Table::Links || self.has_user).collect()
    }

    /// The table's columns as queries see them, `month` last.
    pub fn schema(&self, table: Table) -> SchemaRef {
        let mut fields = self.file_fields(table);
        fields.push(required(column::MONTH, DataType::Date32));
        Arc::new(Schema::new(fields))
    }

    /// The columns inside the Parquet files: all but the partition `month`.
    pub fn file_schema(&self, table: Table) -> SchemaRef {
        Arc::new(Schema::new(self.file_fields(table)))
    }

    /// Position of a dimension, in `dimensions` and so in the order of `--by`'s help.
    pub fn dimension_index(&self, name: &str) -> Option<usize> {
        self.dimensions.iter().position(|dimension| dimension == name)
    }

    /// Position of a measure.
    pub fn measure_index(&self, name: &str) -> Option<usize> {
        self.measures.iter().position(|measure| measure.name == name)
    }

    /// The measure that counts events of this type; several may.
    pub fn measures_of<'a>(&'a self, event_type: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.measures.iter().enumerate().filter(move |(_, measure)| measure.event_type == event_type).map(|(at, _)| at)
    }

    /// Whether an event of this type activates its device.
    pub fn activates(&self, event_type: &str) -> bool {
        self.activation_type.as_deref().is_none_or(|activation| activation == event_type)
    }

    /// Arrow type of a measure's column: counts aligned with the set bits of `days`.
    pub fn measure_type() -> DataType {
        DataType::List(Arc::new(required(LIST_ELEMENT, DataType::Int32)))
    }

    fn file_fields(&self, table: Table) -> Vec<ArrowField> {
        match table {
            Table::Events => self.events_fields(),
            Table::Activity => self.activity_fields(),
            Table::Links => vec![
                required(column::USER, DataType::Binary),
                required(column::DEVICE, DataType::Binary),
                required(column::DAYS, DataType::Int32),
            ],
            Table::Devices => {
                let mut fields = vec![
                    required(column::DEVICE, DataType::Binary),
                    required(column::ACTIVATED_TS, timestamp_type()),
                    optional(column::ACTIVATED_KEY, DataType::Binary),
                ];
                fields.extend(self.dimension_fields());
                fields
            }
            Table::Quarantine => vec![
                required(column::AT, timestamp_type()),
                required(column::SOURCE, DataType::Utf8),
                optional(column::LINE, DataType::Int64),
                optional(column::PARTITION, DataType::Int32),
                optional(column::OFFSET, DataType::Int64),
                required(column::REASON, DataType::Utf8),
                optional(column::FIELD, DataType::Utf8),
                required(column::CONTRACT_VERSION, DataType::Int32),
                optional(column::PARTNER, DataType::Utf8),
                optional(column::DEVICE, DataType::Binary),
                required(column::COUNT, DataType::Int64),
            ],
        }
    }

    fn events_fields(&self) -> Vec<ArrowField> {
        let mut fields = vec![required(column::DEVICE, DataType::Binary), required(column::TS, timestamp_type())];
        if self.has_user {
            fields.push(optional(column::USER, DataType::Binary));
        }
        fields.push(required(column::TYPE, DataType::Utf8));
        if self.has_event_key {
            fields.push(optional(column::EVENT_KEY, DataType::Binary));
        }
        fields.extend(self.dimension_fields());
        fields.extend(self.extra.iter().map(|(name, data_type)| optional(name, data_type.clone())));
        fields
    }

    fn activity_fields(&self) -> Vec<ArrowField> {
        let mut fields = vec![
            required(column::DEVICE, DataType::Binary),
            required(column::DAYS, DataType::Int32),
            required(column::FIRST_TS, timestamp_type()),
            required(column::LAST_TS, timestamp_type()),
            optional(column::LAST_KEY, DataType::Binary),
        ];
        fields.extend(self.dimension_fields());
        fields.extend(self.measures.iter().map(|measure| required(&measure.name, Self::measure_type())));
        fields
    }

    fn dimension_fields(&self) -> impl Iterator<Item = ArrowField> + '_ {
        self.dimensions.iter().map(|name| optional(name, DataType::Utf8))
    }
}
