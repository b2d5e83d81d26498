//! Row by row: rolling windows, days of one month as seen from another, totals
//! of a measure.

use std::sync::Arc;

use ameles_core::{Day, Month, Timestamp, window_mask};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Date32Array, Int64Array, PrimitiveArray, UInt64Array};
use arrow::datatypes::{DataType, Date32Type, Field, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionImplementation, ScalarUDF, Volatility, create_udf};

/// Name of the function that sums a measure's list.
pub const TOTAL: &str = "total";

/// All scalar functions.
pub fn all() -> Vec<ScalarUDF> {
    let (date, days, mask, number) = (DataType::Date32, DataType::Int32, DataType::UInt64, DataType::Int64);
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        function("next_month", vec![date.clone()], date.clone(), next_month),
        function("window_days", vec![date.clone(), days.clone(), days.clone(), number.clone()], mask.clone(), window_days),
        function("own_days", vec![date.clone(), mask.clone()], mask.clone(), own_days),
        function("spilled_days", vec![date.clone(), mask.clone()], mask.clone(), spilled_days),
        function("day_bit", vec![instant.clone()], mask.clone(), day_bit),
        function("days_since", vec![date.clone(), instant], mask.clone(), days_since),
        function("measured_days", vec![days.clone(), counts_type()], mask.clone(), measured_days),
        function("seen_days", vec![date.clone(), days, date, number], mask, seen_days),
        total(),
    ]
}

/// `total(measure)`: the sum over the month's days.
pub fn total() -> ScalarUDF {
    function(TOTAL, vec![counts_type()], DataType::Int64, total_of)
}

fn counts_type() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Int32, false)))
}

fn function(name: &str, takes: Vec<DataType>, gives: DataType, body: fn(&[ArrayRef]) -> Result<ArrayRef>) -> ScalarUDF {
    let name_of = name.to_owned();
    let implementation: ScalarFunctionImplementation = Arc::new(move |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let result = body(&arrays).map_err(|error| error.context(name_of.clone()))?;
        let scalar = values.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        if scalar && result.len() == 1 {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    });
    create_udf(name, takes, gives, Volatility::Immutable, implementation)
}

fn argument<T: ArrowPrimitiveType>(arguments: &[ArrayRef], at: usize) -> Result<&PrimitiveArray<T>> {
    arguments.get(at).and_then(|array| array.as_primitive_opt::<T>()).ok_or_else(|| exec_datafusion_err!("argument {at} has another type"))
}

fn value<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    array.is_valid(row).then(|| array.value(row))
}

fn month_of(months: &Date32Array, row: usize) -> Option<Month> {
    value(months, row).map(|day| Day::from_epoch_days(day).month())
}

fn next_month(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let months = argument::<Date32Type>(arguments, 0)?;
    let next = |day: i32| Day::from_epoch_days(day).month().plus(1).first_day().epoch_days();
    Ok(Arc::new(months.unary::<_, Date32Type>(next)))
}

/// `window_days(month, days, next_days, window)`: see [`window_mask`].
fn window_days(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let months = argument::<Date32Type>(arguments, 0)?;
    let days = argument::<Int32Type>(arguments, 1)?;
    let next = argument::<Int32Type>(arguments, 2)?;
    let windows = argument::<Int64Type>(arguments, 3)?;
    let mut lengths = MonthLengths::default();
    let masks: UInt64Array = (0..months.len())
        .map(|row| {
            let (month, active, window) = (value(months, row)?, value(days, row)?, value(windows, row)?);
            let window = u32::try_from(window).ok()?.clamp(1, 28);
            Some(window_mask(active as u32, value(next, row).unwrap_or(0) as u32, lengths.of(month), window))
        })
        .collect();
    Ok(Arc::new(masks))
}

/// The length of the month last asked for: rows come month by month.
#[derive(Default)]
struct MonthLengths {
    last: Option<(i32, u32)>,
}

impl MonthLengths {
    fn of(&mut self, first_day: i32) -> u32 {
        match self.last {
            Some((day, length)) if day == first_day => length,
            _ => {
                let length = Day::from_epoch_days(first_day).month().days();
                self.last = Some((first_day, length));
                length
            }
        }
    }
}

/// `own_days(month, mask)`: the mask's days that lie in the month.
fn own_days(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    split(arguments, |mask, length| mask & ((1 << length) - 1))
}

/// `spilled_days(month, mask)`: the mask's days that lie in the next month, from its first.
fn spilled_days(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    split(arguments, |mask, length| mask >> length)
}

fn split(arguments: &[ArrayRef], part: fn(u64, u32) -> u64) -> Result<ArrayRef> {
    let months = argument::<Date32Type>(arguments, 0)?;
    let masks = argument::<UInt64Type>(arguments, 1)?;
    let mut lengths = MonthLengths::default();
    let parts: UInt64Array = (0..months.len()).map(|row| Some(part(value(masks, row)?, lengths.of(value(months, row)?)))).collect();
    Ok(Arc::new(parts))
}

/// `day_bit(ts)`: the day of an instant in its month.
fn day_bit(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let instants = argument::<TimestampMicrosecondType>(arguments, 0)?;
    let bit = |micros: i64| 1_u64 << (Timestamp::from_micros(micros).day().of_month() - 1);
    Ok(Arc::new(instants.unary::<_, UInt64Type>(bit)))
}

/// `days_since(month, ts)`: the month's days from the instant's day on.
fn days_since(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let months = argument::<Date32Type>(arguments, 0)?;
    let instants = argument::<TimestampMicrosecondType>(arguments, 1)?;
    let masks: UInt64Array = (0..months.len())
        .map(|row| {
            let first = month_of(months, row)?.first_day().epoch_days();
            let from = Timestamp::from_micros(value(instants, row)?).day().epoch_days() - first;
            Some(if from > 30 { 0 } else { u64::from(u32::MAX >> 1) & (u64::MAX << from.max(0)) })
        })
        .collect();
    Ok(Arc::new(masks))
}

/// `measured_days(days, counts)`: the days whose count is not zero.
fn measured_days(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let days = argument::<Int32Type>(arguments, 0)?;
    let lists = arguments.get(1).and_then(|array| array.as_list_opt::<i32>()).ok_or_else(|| exec_datafusion_err!("a list is expected"))?;
    let counts = lists.values().as_primitive::<Int32Type>();
    let offsets = lists.value_offsets();
    let masks: UInt64Array = (0..days.len())
        .map(|row| {
            let mut left = value(days, row)? as u32;
            let mut mask = 0_u64;
            for at in offsets[row]..offsets[row + 1] {
                let bit = left.trailing_zeros();
                if bit < 32 && counts.value(at as usize) != 0 {
                    mask |= 1 << bit;
                }
                left &= left.wrapping_sub(1);
            }
            Some(mask)
        })
        .collect();
    Ok(Arc::new(masks))
}

/// `seen_days(month, days, target, active_in)`: the days of the month `target`
/// on which a device with these active days of `month` was seen within the last
/// `active_in` days.
fn seen_days(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let months = argument::<Date32Type>(arguments, 0)?;
    let days = argument::<Int32Type>(arguments, 1)?;
    let targets = argument::<Date32Type>(arguments, 2)?;
    let reaches = argument::<Int64Type>(arguments, 3)?;
    let masks: UInt64Array = (0..months.len())
        .map(|row| {
            let target = month_of(targets, row)?;
            let shift = i64::from(value(months, row)?) - i64::from(target.first_day().epoch_days());
            let length = i64::from(target.days());
            let (active, reach) = (value(days, row)? as u32, value(reaches, row)?);
            let mut mask = 0_u64;
            for bit in (0..31).filter(|bit| active >> bit & 1 == 1) {
                let (from, to) = ((shift + bit).max(0), (shift + bit).saturating_add(reach).min(length));
                if from < to {
                    mask |= ((1 << to) - 1) & (u64::MAX << from);
                }
            }
            Some(mask)
        })
        .collect();
    Ok(Arc::new(masks))
}

fn total_of(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = arguments.first().and_then(|array| array.as_list_opt::<i32>()).ok_or_else(|| exec_datafusion_err!("a list is expected"))?;
    let counts = lists.values().as_primitive::<Int32Type>().values();
    let offsets = lists.value_offsets();
    let totals: Int64Array = (0..lists.len())
        .map(|row| {
            let range = offsets[row] as usize..offsets[row + 1] as usize;
            lists.is_valid(row).then(|| counts[range].iter().map(|count| i64::from(*count)).sum::<i64>())
        })
        .collect();
    Ok(Arc::new(totals))
}
