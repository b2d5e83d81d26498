//! The first and the last day that `activity` holds.

use ameles_core::{Day, Month, Timestamp};
use ameles_schemas::Table;

use super::pieces::Kind;
use super::{Columns, Piece, Reader, Wanted};
use crate::{ReadView, StoreError};

impl ReadView {
    /// First and last day with an active device; none without data.
    ///
    /// Footers tell bounds, which what was erased may have left wide: a piece is read before its bound is believed.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn active_days(&self) -> Result<Option<(Day, Day)>, StoreError> {
        let months = self.months(Table::Activity);
        let mut first = None;
        for month in &months {
            first = self.extreme(*month, "first_ts", |day| day)?;
            if first.is_some() {
                break;
            }
        }
        let mut last = None;
        for month in months.iter().rev() {
            // The greatest day is the least of days turned round.
            last = self.extreme(*month, "last_ts", |day| -day)?.map(|day| -day);
            if last.is_some() {
                break;
            }
        }
        Ok(first.zip(last).map(|(first, last)| (Day::from_epoch_days(first), Day::from_epoch_days(last))))
    }

    /// The least of a month's days by `order`.
    fn extreme(&self, month: Month, time: &'static str, order: fn(i32) -> i32) -> Result<Option<i32>, StoreError> {
        let day = |micros: i64| order(Timestamp::from_micros(micros).day().epoch_days());
        let column = self.tables().file_schema(Table::Activity).index_of(time)?;
        let bound = |piece: &Piece| match &piece.0 {
            Kind::Group { file, number } => {
                let bounds = file.layout.row_groups.get(*number)?.bounds.get(column).copied().flatten()?;
                Some(day(bounds.0).min(day(bounds.1)))
            }
            Kind::Merged { .. } | Kind::Overlay { .. } => None,
        };
        let mut pieces = self.pieces(Table::Activity, month)?;
        // Unknown bounds first.
        pieces.sort_by_cached_key(&bound);
        let wanted = Wanted { time: Some(time), ..Wanted::default() };
        let mut least: Option<i32> = None;
        let mut columns = Columns::default();
        for piece in pieces {
            if least.zip(bound(&piece)).is_some_and(|(least, bound)| least <= bound) {
                break;
            }
            let mut reader = Reader::new(self, Table::Activity, &wanted, [piece]);
            while reader.read(64 << 10, &mut columns)?.is_some() {
                let extremes = [columns.times.iter().min(), columns.times.iter().max()];
                least = extremes.into_iter().flatten().map(|micros| day(*micros)).chain(least).min();
                columns.clear();
            }
        }
        Ok(least)
    }
}
