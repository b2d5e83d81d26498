//! Which metrics there are.

use ameles_schemas::TableSchemas;

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

/// The metrics that a contract's tables give.
pub fn list_metrics(tables: &TableSchemas) -> Vec<MetricInfo> {
    let _ = tables;
    unimplemented!()
}
