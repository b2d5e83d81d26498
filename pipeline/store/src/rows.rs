//! A 128-bit hash of each row of a batch, whatever its columns.
//!
//! Sums of them compare sets of rows without regard to order. They find
//! mistakes of ours, not forgeries.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::StoreError;

const NULL: u128 = 0x9ae1_6a3b_2f90_404f_c3a5_c85c_97cb_3127;
const FACTOR: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

pub(crate) const fn mix(hash: u128, value: u128) -> u128 {
    let mixed = (hash ^ value).wrapping_mul(FACTOR);
    (mixed ^ (mixed >> 71)).wrapping_mul(FACTOR).rotate_left(59)
}

fn mix_bytes(hash: u128, bytes: &[u8]) -> u128 {
    let mut hash = mix(hash, bytes.len() as u128 + 1);
    let (chunks, rest) = bytes.as_chunks::<16>();
    for chunk in chunks {
        hash = mix(hash, u128::from_le_bytes(*chunk));
    }
    if !rest.is_empty() {
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        hash = mix(hash, u128::from_le_bytes(last));
    }
    hash
}

/// The hash of each row over all columns but `without`.
pub(crate) fn hash_rows(batch: &RecordBatch, without: Option<&str>) -> Result<Vec<u128>, StoreError> {
    let mut hashes = vec![0; batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if without != Some(field.name().as_str()) {
            hash_column(column, &mut hashes)?;
        }
    }
    Ok(hashes)
}

fn hash_column(column: &ArrayRef, hashes: &mut [u128]) -> Result<(), StoreError> {
    macro_rules! each {
        ($values:ident, $mixed:expr) => {
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = if $values.is_null(row) { mix(*hash, NULL) } else { $mixed(*hash, $values.value(row)) };
            }
        };
    }
    match column.data_type() {
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            each!(values, mix_bytes);
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            each!(values, |hash, text: &str| mix_bytes(hash, text.as_bytes()));
        }
        DataType::Timestamp(..) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            each!(values, |hash, at: i64| mix(hash, u128::from(at as u64)));
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            each!(values, |hash, number: i64| mix(hash, u128::from(number as u64)));
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options)?;
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash =
                    if column.is_null(row) { mix(*hash, NULL) } else { mix_bytes(*hash, formatter.value(row).try_to_string()?.as_bytes()) };
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use arrow::array::{BooleanArray, Float64Array, StringArray};

    #[test]
    fn rows_differ_when_any_value_does() {
        let column = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("a", column(vec![Some("x"), Some("x"), None, Some(""), Some("x")])),
            ("b", Arc::new(Float64Array::from(vec![1.0, 1.0, 1.0, 1.0, 2.0])) as ArrayRef),
            ("c", Arc::new(BooleanArray::from(vec![true; 5])) as ArrayRef),
        ])
        .unwrap();
        let hashes = hash_rows(&batch, None).unwrap();
        assert_eq!(hashes[0], hashes[1]);
        for (a, b) in [(0, 2), (0, 3), (0, 4), (2, 3)] {
            assert_ne!(hashes[a], hashes[b]);
        }
        assert_eq!(hash_rows(&batch, Some("b")).unwrap()[0], hash_rows(&batch, Some("b")).unwrap()[4]);
    }
}
