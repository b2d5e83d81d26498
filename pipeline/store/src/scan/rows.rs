//! The same columns from record batches: merged months, and files that are laid out in a way that is not ours.

use ameles_schemas::TableSchemas;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use hashbrown::HashMap;

use super::grouping::Combiner;
use super::{Columns, Wanted};
use crate::StoreError;
use crate::files::{Rows, column, pseudonyms};

/// Texts of one dimension, numbered as they come.
#[derive(Default)]
struct Texts {
    texts: Vec<String>,
    codes: HashMap<String, u32>,
}

impl Texts {
    fn codes(&mut self, texts: &StringArray) -> Vec<u32> {
        let code = |text: Option<&str>| {
            let Some(text) = text else { return 0 };
            if let Some(code) = self.codes.get(text) {
                return *code;
            }
            self.texts.push(text.to_owned());
            let code = self.texts.len() as u32;
            self.codes.insert(text.to_owned(), code);
            code
        };
        texts.iter().map(code).collect()
    }
}

/// Rows of batches as columns.
pub(crate) struct BatchRows<'a> {
    rows: Box<dyn Rows + 'a>,
    wanted: Wanted,
    names: Vec<String>,
    measure: Option<String>,
    texts: Vec<Texts>,
    combiner: Combiner,
    /// Rows still to be left out from the beginning.
    skip: usize,
    /// Rows still to be given.
    left: usize,
    at_hand: Option<RecordBatch>,
}

impl<'a> BatchRows<'a> {
    /// `left` rows after the first `skip`.
    pub(crate) fn new(rows: Box<dyn Rows + 'a>, tables: &TableSchemas, wanted: &Wanted, skip: usize, left: usize) -> Self {
        let name = |dimension: &usize| tables.dimensions.get(*dimension).cloned().unwrap_or_default();
        let names: Vec<String> = wanted.grouping.iter().flat_map(|grouping| grouping.dimensions()).map(name).collect();
        let measure = wanted.measure.and_then(|measure| tables.measures.get(measure)).map(|measure| measure.name.clone());
        let texts = names.iter().map(|_| Texts::default()).collect();
        Self { rows, wanted: wanted.clone(), names, measure, texts, combiner: Combiner::default(), skip, left, at_hand: None }
    }

    /// Appends up to `rows_max` rows; none at the end.
    pub(crate) fn read(&mut self, rows_max: usize, out: &mut Columns) -> Result<Option<usize>, StoreError> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            let batch = match self.at_hand.take() {
                Some(batch) => batch,
                None => match self.rows.next_batch()? {
                    Some(batch) => batch,
                    None => return Ok(None),
                },
            };
            let skipped = self.skip.min(batch.num_rows());
            self.skip -= skipped;
            let batch = batch.slice(skipped, batch.num_rows() - skipped);
            if batch.num_rows() == 0 {
                continue;
            }
            let now = batch.num_rows().min(rows_max).min(self.left);
            if now < batch.num_rows() {
                self.at_hand = Some(batch.slice(now, batch.num_rows() - now));
            }
            self.left -= now;
            self.append(&batch.slice(0, now), out)?;
            return Ok(Some(now));
        }
    }

    fn append(&mut self, batch: &RecordBatch, out: &mut Columns) -> Result<(), StoreError> {
        let Wanted { devices, users, days, time, .. } = self.wanted;
        out.rows += batch.num_rows();
        if devices {
            out.devices.extend(pseudonyms(column(batch, "device")?, "device")?);
        }
        if users {
            out.users.extend(pseudonyms(column(batch, "user")?, "user")?);
        }
        let bits = |batch: &RecordBatch| -> Result<Vec<u32>, StoreError> {
            let days = column(batch, "days")?.as_primitive_opt::<Int32Type>().ok_or_else(|| bad("days"))?;
            Ok(days.values().iter().map(|days| *days as u32).collect())
        };
        if days {
            out.days.extend(bits(batch)?);
        }
        if let Some(time) = time {
            let times = column(batch, time)?.as_primitive_opt::<TimestampMicrosecondType>();
            out.times.extend_from_slice(times.ok_or_else(|| bad(time))?.values());
        }
        if let Some(measure) = &self.measure {
            append_counts(column(batch, measure)?, &bits(batch)?, &mut out.counts).ok_or_else(|| bad(measure))?;
        }
        if let Some(grouping) = &self.wanted.grouping {
            let mut codes = Vec::with_capacity(self.names.len());
            for (name, texts) in self.names.iter().zip(&mut self.texts) {
                codes.push(texts.codes(column(batch, name)?.as_string_opt().ok_or_else(|| bad(name))?));
            }
            let texts: Vec<&[String]> = self.texts.iter().map(|texts| texts.texts.as_slice()).collect();
            self.combiner.groups(grouping, batch.num_rows(), &codes, &texts, &mut out.groups);
        }
        Ok(())
    }
}

fn bad(name: &str) -> StoreError {
    StoreError::Batch(format!("column {name} has another type"))
}

/// As many counts for each row as it has days.
fn append_counts(lists: &ArrayRef, days: &[u32], out: &mut Vec<u32>) -> Option<()> {
    let lists = lists.as_list_opt::<i32>()?;
    let counts = lists.values().as_primitive_opt::<Int32Type>()?.values();
    let offsets = lists.value_offsets();
    for (row, days) in days.iter().enumerate() {
        let (from, to) = (*offsets.get(row)? as usize, *offsets.get(row + 1)? as usize);
        let mut own = counts.get(from..to)?.iter().map(|count| *count as u32);
        let own = std::iter::from_fn(|| Some(own.next().unwrap_or_default()));
        out.extend(own.take(days.count_ones() as usize));
    }
    (lists.null_count() == 0).then_some(())
}

/// The columns of a table that are read for what is wanted.
pub(crate) fn names_of(tables: &TableSchemas, wanted: &Wanted) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |wants: bool, name: &str| {
        if wants {
            names.push(name.to_owned());
        }
    };
    add(wanted.devices, "device");
    add(wanted.users, "user");
    add(wanted.days || wanted.measure.is_some(), "days");
    add(wanted.time.is_some(), wanted.time.unwrap_or_default());
    for dimension in wanted.grouping.iter().flat_map(|grouping| grouping.dimensions()) {
        add(true, tables.dimensions.get(*dimension).map_or("", String::as_str));
    }
    if let Some(measure) = wanted.measure.and_then(|measure| tables.measures.get(measure)) {
        add(true, &measure.name);
    }
    names
}
