//! From sorted places to columns.

use std::sync::Arc;

use ameles_schemas::Contract;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;

use super::build::Bucket;
use super::columns::{Cell, ColumnSet, wide, widest};
use super::dictionary::{Dictionaries, NULL};

const PSEUDONYM_BYTES: usize = 16;
/// Rows taken together, column by column: they stand anywhere in the bucket, and are near from the first column on.
const ROWS_AT_ONCE: usize = 64;
/// A column with more texts than this in its dictionary is written as texts.
const DICTIONARY_MAX: usize = 1 << 16;
/// So is one that has fewer rows than this per text.
const ROWS_PER_TEXT_MIN: usize = 4;

/// How the columns of a batch are made.
pub(super) struct Gatherer {
    cells: Vec<Cell>,
    has_user: bool,
    has_event_key: bool,
    /// The texts of each dictionary.
    texts: Vec<Texts>,
}

enum Texts {
    Dictionary(Arc<StringArray>),
    /// Too many for a dictionary.
    Plain(Vec<Arc<str>>),
}

/// Columns that are being filled.
pub(super) struct Gathering {
    devices: Vec<Bytes16>,
    times: Vec<i64>,
    users: Nullable<Bytes16>,
    /// None where they are not wanted, or the contract has none.
    event_keys: Option<Nullable<Bytes16>>,
    others: Vec<Filling>,
}

enum Filling {
    Text(Vec<u32>),
    Wide(Nullable<i64>),
    Boolean(Vec<Option<bool>>),
    Pseudonym(Nullable<Bytes16>),
}

/// A pseudonym's bytes in order, as a number that arrow takes.
type Bytes16 = i128;

fn bytes16(pseudonym: u128) -> Bytes16 {
    Bytes16::from_ne_bytes(pseudonym.to_be_bytes())
}

/// Values, and which rows have one.
struct Nullable<T> {
    values: Vec<T>,
    valid: Vec<bool>,
    nulls: usize,
}

impl<T> Nullable<T> {
    fn with_capacity(rows: usize, values: usize) -> Self {
        Self { values: Vec::with_capacity(values), valid: Vec::with_capacity(rows), nulls: 0 }
    }

    fn nulls(&mut self) -> Option<NullBuffer> {
        (self.nulls > 0).then(|| NullBuffer::from(std::mem::take(&mut self.valid)))
    }
}

impl Nullable<Bytes16> {
    /// Pseudonyms, 0 for none.
    #[inline]
    fn extend(&mut self, pseudonyms: impl ExactSizeIterator<Item = u128>) {
        let (rows, first) = (pseudonyms.len(), self.values.len());
        self.values.resize(first + rows, 0);
        let mut next = first;
        self.valid.extend(pseudonyms.map(|pseudonym| {
            // Without a branch: nulls may be anywhere, and are written over.
            self.values[next] = bytes16(pseudonym);
            next += usize::from(pseudonym != 0);
            pseudonym != 0
        }));
        self.nulls += rows - (next - first);
        self.values.truncate(next);
    }

    fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let offsets = if self.nulls == 0 {
            offsets(self.valid.len())
        } else {
            OffsetBuffer::from_lengths(self.valid.iter().map(|valid| if *valid { PSEUDONYM_BYTES } else { 0 }))
        };
        let nulls = self.nulls();
        Ok(Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(self.values), nulls)?))
    }
}

impl Nullable<i64> {
    #[inline]
    fn extend(&mut self, values: impl Iterator<Item = Option<u64>> + Clone) {
        self.values.extend(values.clone().map(|value| value.unwrap_or_default() as i64));
        let first = self.valid.len();
        self.valid.extend(values.map(|value| value.is_some()));
        self.nulls += self.valid[first..].iter().filter(|valid| !**valid).count();
    }
}

fn offsets(rows: usize) -> OffsetBuffer<i32> {
    OffsetBuffer::from_lengths(std::iter::repeat_n(PSEUDONYM_BYTES, rows))
}

impl Gatherer {
    pub(super) fn new(contract: &Contract, columns: &ColumnSet, dictionaries: &Dictionaries, rows: usize) -> Self {
        let mut texts = Vec::new();
        for cell in columns.cells() {
            let Cell::Text { dictionary, .. } = cell else { continue };
            let all = dictionaries.texts(*dictionary);
            // Few rows with few texts, as a request over HTTP has, are best copied.
            texts.push(if all.len() > DICTIONARY_MAX || all.len() * ROWS_PER_TEXT_MIN > rows {
                Texts::Plain(all)
            } else {
                Texts::Dictionary(Arc::new(StringArray::from_iter_values(all.iter())))
            });
        }
        let roles = contract.roles();
        Self { cells: columns.cells().to_vec(), has_user: roles.user.is_some(), has_event_key: roles.event_id.is_some(), texts }
    }

    pub(super) fn start(&self, rows: usize, keys: bool) -> Gathering {
        let pseudonyms = |wanted: bool| if wanted { Nullable::with_capacity(rows, rows) } else { Nullable::with_capacity(0, 0) };
        let filling = |cell: &Cell| match cell {
            Cell::Text { .. } => Filling::Text(Vec::with_capacity(rows)),
            Cell::Integer { .. } | Cell::Number { .. } | Cell::Time { .. } => Filling::Wide(Nullable::with_capacity(rows, rows)),
            Cell::Boolean { .. } => Filling::Boolean(Vec::with_capacity(rows)),
            Cell::Pseudonym { .. } => Filling::Pseudonym(pseudonyms(true)),
        };
        Gathering {
            devices: Vec::with_capacity(rows),
            times: Vec::with_capacity(rows),
            users: pseudonyms(self.has_user),
            event_keys: (keys && self.has_event_key).then(|| pseudonyms(true)),
            others: self.cells.iter().map(filling).collect(),
        }
    }

    /// Appends a bucket's rows in the order of its keys.
    pub(super) fn push(&self, to: &mut Gathering, bucket: &Bucket) {
        for keys in bucket.keys.chunks(ROWS_AT_ONCE) {
            let rows = keys.iter().map(|key| &bucket.rows[key.at as usize]);
            to.devices.extend(rows.clone().map(|row| bytes16(row.device)));
            to.times.extend(rows.clone().map(|row| row.ts));
            if self.has_user {
                to.users.extend(rows.clone().map(|row| row.user));
            }
            if let Some(event_keys) = &mut to.event_keys {
                event_keys.extend(rows.map(|row| row.event_key));
            }
            let words = keys.iter().map(|key| &bucket.words[key.at as usize * bucket.words_per_row..][..bucket.words_per_row]);
            for (cell, filling) in self.cells.iter().zip(&mut to.others) {
                match (*cell, filling) {
                    (Cell::Text { word, .. }, Filling::Text(numbers)) => numbers.extend(words.clone().map(|words| words[word])),
                    (Cell::Integer { word, bit } | Cell::Number { word, bit } | Cell::Time { word, bit }, Filling::Wide(values)) => {
                        values.extend(words.clone().map(|words| wide(words, word, bit)));
                    }
                    (Cell::Boolean { word }, Filling::Boolean(values)) => {
                        values.extend(words.clone().map(|words| words[word].checked_sub(1).map(|value| value == 1)));
                    }
                    (Cell::Pseudonym { word, bit }, Filling::Pseudonym(values)) => {
                        values.extend(words.clone().map(|words| widest(words, word, bit).unwrap_or_default()));
                    }
                    // `start` pairs cells and fillings.
                    _ => {}
                }
            }
        }
    }

    /// The rows as a batch; a text column may be a dictionary.
    pub(super) fn finish(&self, columns: Gathering, schema: SchemaRef) -> Result<RecordBatch, ArrowError> {
        let rows = columns.times.len();
        let devices = BinaryArray::try_new(offsets(rows), Buffer::from_vec(columns.devices), None)?;
        let times = TimestampMicrosecondArray::new(ScalarBuffer::from(columns.times), None).with_timezone("UTC");
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(devices), Arc::new(times)];
        if self.has_user {
            arrays.push(columns.users.finish()?);
        }
        let mut others = self.cells.iter().zip(columns.others).map(|(cell, filling)| self.array(*cell, filling));
        arrays.extend(others.next().transpose()?);
        if self.has_event_key {
            arrays.push(match columns.event_keys {
                Some(event_keys) => event_keys.finish()?,
                None => new_null_array(&DataType::Binary, rows),
            });
        }
        for other in others {
            arrays.push(other?);
        }
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .zip(&arrays)
            .map(|(field, array)| Field::new(field.name(), array.data_type().clone(), field.is_nullable()))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }

    fn array(&self, cell: Cell, filling: Filling) -> Result<ArrayRef, ArrowError> {
        Ok(match (cell, filling) {
            (Cell::Text { dictionary, .. }, Filling::Text(numbers)) => match &self.texts[dictionary] {
                Texts::Dictionary(texts) => {
                    let nulls = numbers.contains(&NULL).then(|| NullBuffer::from_iter(numbers.iter().map(|number| *number != NULL)));
                    let keys: ScalarBuffer<u32> = numbers.into_iter().map(|number| number.saturating_sub(1)).collect();
                    Arc::new(DictionaryArray::<UInt32Type>::try_new(UInt32Array::try_new(keys, nulls)?, Arc::clone(texts) as ArrayRef)?)
                }
                Texts::Plain(texts) => {
                    let mut builder = StringBuilder::with_capacity(numbers.len(), numbers.len() * 8);
                    for number in numbers {
                        builder.append_option((number as usize).checked_sub(1).and_then(|at| texts.get(at)));
                    }
                    Arc::new(builder.finish())
                }
            },
            (Cell::Number { .. }, Filling::Wide(mut values)) => {
                let numbers: ScalarBuffer<f64> = values.values.iter().map(|bits| f64::from_bits(*bits as u64)).collect();
                Arc::new(Float64Array::try_new(numbers, values.nulls())?)
            }
            (Cell::Time { .. }, Filling::Wide(mut values)) => {
                let nulls = values.nulls();
                Arc::new(TimestampMicrosecondArray::try_new(values.values.into(), nulls)?.with_timezone("UTC"))
            }
            (_, Filling::Wide(mut values)) => {
                let nulls = values.nulls();
                Arc::new(Int64Array::try_new(values.values.into(), nulls)?)
            }
            (_, Filling::Boolean(values)) => Arc::new(BooleanArray::from(values)),
            (_, Filling::Pseudonym(values)) => values.finish()?,
            (_, Filling::Text(_)) => return Err(ArrowError::InvalidArgumentError("a column of text has no dictionary".to_owned())),
        })
    }
}
