//! Columns of the merge tables for counting: numbers instead of strings and byte arrays, straight from the pages.
//!
//! A settled month's files are read as `encode` lays them out, without a value of them being allocated: pseudonyms as numbers of 128
//! bits, days as 32 bits, the values of the dimensions as the number of their combination. Whatever is laid out otherwise, and months
//! whose runs have to be merged, come by way of record batches and look the same.

mod bits;
mod columns;
mod coverage;
mod grouping;
mod layout;
mod pages;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use ameles_core::Month;
use ameles_schemas::Table;
use arrow::datatypes::{Schema, SchemaRef};

pub use self::grouping::{DimensionFilter, Grouping, LEFT_OUT};
pub(crate) use self::layout::Layout;

use self::columns::{Column, Shape};
use self::grouping::Combiner;
use self::pages::{ChunkPlace, Trouble};
use self::rows::{BatchRows, names_of};
use crate::files::{InMemory, RunReader};
use crate::provider::Part;
use crate::{DataFile, ReadView, StoreError};

/// What of each row is read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The device's pseudonym.
    pub devices: bool,
    /// The user's, of `links`.
    pub users: bool,
    /// Bits of the active days, of `activity` and `links`.
    pub days: bool,
    /// A time: `activated_ts` of `devices`, `first_ts` or `last_ts` of `activity`.
    pub time: Option<&'static str>,
    /// Counts of the measure at this place in `TableSchemas::measures`.
    pub measure: Option<usize>,
    /// The row's group.
    pub grouping: Option<Arc<Grouping>>,
}

/// Rows as columns; those that are not wanted are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// How many rows.
    pub rows: usize,
    /// Pseudonyms, as numbers whose order is theirs.
    pub devices: Vec<u128>,
    /// The same of users.
    pub users: Vec<u128>,
    /// Bits of the active days; bit 0 is the 1st.
    pub days: Vec<u32>,
    /// Microseconds.
    pub times: Vec<i64>,
    /// Group numbers of the grouping; [`LEFT_OUT`] where a filter does not hold.
    pub groups: Vec<u32>,
    /// For each set bit of each row's days, the day's count.
    pub counts: Vec<u32>,
}

impl Columns {
    /// Leaves out all rows.
    pub fn clear(&mut self) {
        self.truncate(0, 0);
    }

    /// Keeps the first rows, and so many counts.
    fn truncate(&mut self, rows: usize, counts: usize) {
        self.rows = rows;
        self.devices.truncate(rows);
        self.users.truncate(rows);
        self.days.truncate(rows);
        self.times.truncate(rows);
        self.groups.truncate(rows);
        self.counts.truncate(counts);
    }

    /// Leaves out the first rows. Not for rows with counts.
    pub fn discard(&mut self, rows: usize) {
        fn drop_first<T>(values: &mut Vec<T>, rows: usize) {
            values.drain(..rows.min(values.len()));
        }
        self.rows -= rows.min(self.rows);
        drop_first(&mut self.devices, rows);
        drop_first(&mut self.users, rows);
        drop_first(&mut self.days, rows);
        drop_first(&mut self.times, rows);
        drop_first(&mut self.groups, rows);
    }

    /// Appends a row of others that have the same columns, whose counts begin at `counts`.
    fn push(&mut self, from: &Self, row: usize, counts: usize) {
        self.rows += 1;
        self.devices.extend(from.devices.get(row));
        self.users.extend(from.users.get(row));
        self.days.extend(from.days.get(row));
        self.times.extend(from.times.get(row));
        self.groups.extend(from.groups.get(row));
        self.counts.extend_from_slice(from.counts.get(counts..counts + from.counts_of(row)).unwrap_or_default());
    }

    fn counts_of(&self, row: usize) -> usize {
        if self.counts.is_empty() { 0 } else { self.days.get(row).map_or(0, |days| days.count_ones() as usize) }
    }

    /// The rows from `start` on, whose counts begin at `counts`, as `keep` says.
    fn retain(&mut self, start: usize, counts: usize, keep: impl Fn(u128) -> bool) {
        if self.devices.iter().skip(start).all(|device| keep(*device)) {
            return;
        }
        let mut kept = Self::default();
        let mut at = counts;
        for (row, device) in self.devices.iter().enumerate().skip(start) {
            if keep(*device) {
                kept.push(self, row, at);
            }
            at += self.counts_of(row);
        }
        self.truncate(start, counts);
        self.append(kept);
    }

    fn append(&mut self, mut from: Self) {
        self.rows += from.rows;
        self.devices.append(&mut from.devices);
        self.users.append(&mut from.users);
        self.days.append(&mut from.days);
        self.times.append(&mut from.times);
        self.groups.append(&mut from.groups);
        self.counts.append(&mut from.counts);
    }
}

/// A file of a settled month.
#[derive(Debug)]
struct Settled {
    file: DataFile,
    path: PathBuf,
    layout: Arc<Layout>,
}

/// A part of a month's rows, which can be read by itself.
#[derive(Clone, Debug)]
pub struct Piece(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// A row group of a settled month.
    Group { file: Arc<Settled>, number: usize },
    /// A whole month, merged.
    Merged { month: Month, rows: usize },
    /// What remains of devices that a pending erasure touches.
    Overlay { month: Month },
}

impl Piece {
    /// How many rows, at most and about.
    pub fn rows(&self) -> usize {
        match &self.0 {
            Kind::Group { file, number } => file.layout.row_groups.get(*number).map_or(0, |group| group.rows),
            Kind::Merged { rows, .. } => *rows,
            Kind::Overlay { .. } => 0,
        }
    }

    /// Bounds of the first sort column; none where they are unknown.
    pub fn range(&self) -> Option<(u128, u128)> {
        match &self.0 {
            Kind::Group { file, number } => file.layout.row_groups.get(*number).and_then(|group| group.range),
            Kind::Merged { .. } | Kind::Overlay { .. } => None,
        }
    }

    /// Whether its rows lie in a file as they are, so that reading a part of them costs no more than that part.
    pub fn is_settled(&self) -> bool {
        matches!(self.0, Kind::Group { .. })
    }

    /// Whether the rows of a range of devices can be had without those before.
    pub fn is_seekable(&self) -> bool {
        !matches!(self.0, Kind::Merged { .. })
    }

    fn is_overlay(&self) -> bool {
        matches!(self.0, Kind::Overlay { .. })
    }
}

impl ReadView {
    /// A month's rows in pieces, each of which is in the table's order. Those of a settled month follow each other in that order; what a pending erasure leaves of the
    /// devices that it touches is a piece of its own, the last.
    ///
    /// # Errors
    /// When a footer cannot be read.
    pub fn pieces(&self, table: Table, month: Month) -> Result<Vec<Piece>, StoreError> {
        let files = self.snapshot().month_files(table, month);
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let merged = || {
            let rows = files.iter().map(|file| usize::try_from(file.rows).unwrap_or(usize::MAX)).sum();
            Ok(vec![Piece(Kind::Merged { month, rows })])
        };
        if !crate::snapshot::one_generation(files) {
            return merged();
        }
        let mut pieces = Vec::new();
        for file in files {
            let path = self.table_folder(table).join(&file.path);
            let layout = self.layout(table, &file.path, &path)?;
            let groups = layout.row_groups.len();
            let file = Arc::new(Settled { file: file.clone(), path, layout });
            pieces.extend((0..groups).map(|number| Piece(Kind::Group { file: Arc::clone(&file), number })));
        }
        pieces.sort_by_key(Piece::range);
        let follow = |pair: &[Piece]| match (pair[0].range(), pair[1].range()) {
            // Rows of one user may end one file and begin the next.
            (Some(first), Some(second)) => first.1 <= second.0,
            _ => false,
        };
        if table != Table::Links && (pieces.iter().any(|piece| piece.range().is_none()) || !pieces.windows(2).all(follow)) {
            return merged();
        }
        if !self.touched().is_empty() {
            pieces.push(Piece(Kind::Overlay { month }));
        }
        Ok(pieces)
    }

    fn layout(&self, table: Table, name: &str, path: &std::path::Path) -> Result<Arc<Layout>, StoreError> {
        let key = (table, name.to_owned());
        if let Some(layout) = self.layouts().lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Layout::read(path, self.tables(), table)?);
        self.layouts().lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&layout));
        Ok(layout)
    }
}

/// Columns of the file that are read side by side.
struct Lanes {
    devices: Column,
    users: Column,
    days: Column,
    times: Column,
    counts: Column,
    dimensions: Vec<Column>,
    combiner: Combiner,
    codes: Vec<Vec<u32>>,
}

enum State<'v> {
    Between,
    /// In a row group, of which so many rows have been read.
    Group {
        file: Arc<Settled>,
        number: usize,
        read: usize,
    },
    Rows {
        rows: Box<BatchRows<'v>>,
        leaves_out_touched: bool,
    },
}

/// Reads pieces one after the other.
pub struct Reader<'v> {
    view: &'v ReadView,
    table: Table,
    wanted: Wanted,
    pieces: VecDeque<Piece>,
    state: State<'v>,
    lanes: Lanes,
    open: Option<(PathBuf, Arc<File>)>,
    /// Rows that belong between those of the pieces, and how many of them have been given.
    between: Columns,
    between_given: usize,
}

impl<'v> Reader<'v> {
    /// Of a table's pieces, each in its order, one after the other.
    pub fn new(view: &'v ReadView, table: Table, wanted: &Wanted, pieces: impl IntoIterator<Item = Piece>) -> Self {
        let mut wanted = wanted.clone();
        // Rows are told apart by their device where some have to be left out.
        wanted.devices |= !view.touched().is_empty();
        wanted.days |= wanted.measure.is_some();
        let dimensions: Vec<Column> = wanted.grouping.iter().flat_map(|grouping| grouping.dimensions()).map(|_| Column::new()).collect();
        let lanes = Lanes {
            devices: Column::new(),
            users: Column::new(),
            days: Column::new(),
            times: Column::new(),
            counts: Column::new(),
            codes: dimensions.iter().map(|_| Vec::new()).collect(),
            dimensions,
            combiner: Combiner::default(),
        };
        Self {
            view,
            table,
            wanted,
            pieces: pieces.into_iter().collect(),
            state: State::Between,
            lanes,
            open: None,
            between: Columns::default(),
            between_given: 0,
        }
    }

    /// Of pieces of `activity` or `devices` whose rows follow each other, as one sequence in the order of devices.
    ///
    /// # Errors
    /// When what remains of touched devices cannot be read.
    pub fn in_order(
        view: &'v ReadView,
        table: Table,
        wanted: &Wanted,
        pieces: impl IntoIterator<Item = Piece>,
    ) -> Result<Self, StoreError> {
        let (overlays, pieces): (Vec<Piece>, Vec<Piece>) = pieces.into_iter().partition(Piece::is_overlay);
        let wanted = Wanted { devices: true, ..wanted.clone() };
        let mut between = Columns::default();
        let mut reader = Self::new(view, table, &wanted, overlays);
        while reader.read(usize::MAX, &mut between)?.is_some() {}
        Ok(Self { between, ..Self::new(view, table, &wanted, pieces) })
    }

    /// Appends up to `rows_max` rows (some more where rows of touched devices stand between them) and gives how many; `None` after the last.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&mut self, rows_max: usize, out: &mut Columns) -> Result<Option<usize>, StoreError> {
        self.read_if(rows_max, out, &mut |_| true)
    }

    /// The same, but rows are left out, up to `rows_max` together, if none of their devices is wanted.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read_if(
        &mut self,
        rows_max: usize,
        out: &mut Columns,
        any_wanted: &mut dyn FnMut(&[u128]) -> bool,
    ) -> Result<Option<usize>, StoreError> {
        let start = (out.rows, out.counts.len());
        loop {
            match &mut self.state {
                State::Between => match self.pieces.pop_front() {
                    Some(piece) => self.begin(piece)?,
                    None => {
                        self.put_between(start, None, out);
                        return Ok((out.rows > start.0).then_some(out.rows - start.0));
                    }
                },
                State::Group { file, number, read } => {
                    let (file, number, before) = (Arc::clone(file), *number, *read);
                    let rows = file.layout.row_groups.get(number).map_or(0, |group| group.rows);
                    let now = rows_max.min(rows - before);
                    if now == 0 {
                        self.state = State::Between;
                        continue;
                    }
                    match self.lanes.read(&self.wanted, now, out, any_wanted) {
                        Ok(()) => {
                            *read += now;
                            self.leave_out_touched(start, out);
                            self.put_between(start, out.devices.last().copied(), out);
                            return Ok(Some(out.rows - start.0));
                        }
                        Err(Trouble::Failed(error)) => return Err(error),
                        Err(Trouble::Unexpected) => {
                            out.truncate(start.0, start.1);
                            self.state = self.by_arrow(&file, number, before)?;
                        }
                    }
                }
                State::Rows { rows, leaves_out_touched } => {
                    let leaves_out = *leaves_out_touched;
                    match rows.read(rows_max.min(64 << 10), out)? {
                        None => self.state = State::Between,
                        Some(_) => {
                            if leaves_out {
                                self.leave_out_touched(start, out);
                            }
                            self.put_between(start, out.devices.last().copied(), out);
                            return Ok(Some(out.rows - start.0));
                        }
                    }
                }
            }
        }
    }

    fn begin(&mut self, piece: Piece) -> Result<(), StoreError> {
        self.state = match piece.0 {
            Kind::Group { file, number } => match self.open_lanes(&file, number)? {
                true => State::Group { file, number, read: 0 },
                false => self.by_arrow(&file, number, 0)?,
            },
            Kind::Merged { month, .. } => {
                let files = self.view.snapshot().month_files(self.table, month).to_vec();
                let rows = self.view.rows(self.table, &Part { month, files }, &self.schema()?)?;
                let rows = BatchRows::new(rows, self.view.tables(), &self.wanted, 0, usize::MAX);
                State::Rows { rows: Box::new(rows), leaves_out_touched: false }
            }
            Kind::Overlay { month } => {
                let rows = Box::new(InMemory(self.view.remaining_rows(self.table, month)?));
                let rows = BatchRows::new(rows, self.view.tables(), &self.wanted, 0, usize::MAX);
                State::Rows { rows: Box::new(rows), leaves_out_touched: false }
            }
        };
        Ok(())
    }

    /// Opens the columns of a row group; false where one is not laid out as ours are.
    fn open_lanes(&mut self, file: &Settled, number: usize) -> Result<bool, StoreError> {
        let Some(group) = file.layout.row_groups.get(number) else { return Ok(false) };
        let tables = self.view.tables();
        let schema = tables.file_schema(self.table);
        let chunk = |name: &str| schema.index_of(name).ok().and_then(|at| group.chunks.get(at).copied().flatten());
        let opened = match &self.open {
            Some((path, opened)) if *path == file.path => Arc::clone(opened),
            _ => {
                let failed = |source| StoreError::Io { doing: "opening", path: file.path.display().to_string(), source };
                Arc::new(File::open(&file.path).map_err(failed)?)
            }
        };
        self.open = Some((file.path.clone(), Arc::clone(&opened)));
        let path: Arc<str> = Arc::from(file.file.path.as_str());
        let open = |column: &mut Column, place: Option<(ChunkPlace, Shape)>| {
            place.map(|place| column.open(Arc::clone(&opened), Arc::clone(&path), place)).is_some()
        };
        let lanes = &mut self.lanes;
        let mut all = true;
        all &= !self.wanted.devices || open(&mut lanes.devices, chunk("device"));
        all &= !self.wanted.users || open(&mut lanes.users, chunk("user"));
        all &= !self.wanted.days || open(&mut lanes.days, chunk("days"));
        all &= self.wanted.time.is_none_or(|time| open(&mut lanes.times, chunk(time)));
        if let Some(measure) = self.wanted.measure.and_then(|measure| tables.measures.get(measure)) {
            all &= open(&mut lanes.counts, chunk(&measure.name));
        }
        let read = self.wanted.grouping.iter().flat_map(|grouping| grouping.dimensions());
        for (dimension, column) in read.zip(&mut lanes.dimensions) {
            all &= tables.dimensions.get(*dimension).is_some_and(|name| open(column, chunk(name)));
        }
        lanes.combiner.reset();
        Ok(all)
    }

    /// The rest of a row group, after its first `read` rows, as parquet's own reader gives it.
    fn by_arrow(&self, file: &Settled, number: usize, read: usize) -> Result<State<'v>, StoreError> {
        let folder = self.view.table_folder(self.table);
        let before: usize = file.layout.row_groups.iter().take(number).map(|group| group.rows).sum();
        let rows = file.layout.row_groups.get(number).map_or(0, |group| group.rows);
        let reader = RunReader::new(folder, vec![file.file.clone()], self.schema()?);
        let rows = BatchRows::new(Box::new(reader), self.view.tables(), &self.wanted, before + read, rows - read);
        Ok(State::Rows { rows: Box::new(rows), leaves_out_touched: true })
    }

    fn schema(&self) -> Result<SchemaRef, StoreError> {
        let tables = self.view.tables();
        let all = tables.file_schema(self.table);
        let mut fields = Vec::new();
        for name in names_of(tables, &self.wanted) {
            fields.push(all.field_with_name(&name).map_err(|error| StoreError::schema(self.table, error.to_string()))?.clone());
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    fn leave_out_touched(&self, (rows, counts): (usize, usize), out: &mut Columns) {
        let touched = self.view.touched();
        if !touched.is_empty() {
            out.retain(rows, counts, |device| !touched.contains(&device));
        }
    }

    /// Puts those of `between` that come before `last` (all without one) to the rows appended last, in order.
    fn put_between(&mut self, (rows, counts): (usize, usize), last: Option<u128>, out: &mut Columns) {
        let end = last.map_or(self.between.rows, |last| self.between.devices.partition_point(|device| *device <= last));
        if end <= self.between_given || (last.is_some() && out.rows == rows) {
            return;
        }
        let mut merged = Columns::default();
        let (mut theirs, mut at) = (self.between_given, counts);
        let mut between_counts: usize = (0..theirs).map(|row| self.between.counts_of(row)).sum();
        for row in rows..out.rows {
            while theirs < end && self.between.devices.get(theirs) < out.devices.get(row) {
                merged.push(&self.between, theirs, between_counts);
                between_counts += self.between.counts_of(theirs);
                theirs += 1;
            }
            merged.push(out, row, at);
            at += out.counts_of(row);
        }
        while theirs < end {
            merged.push(&self.between, theirs, between_counts);
            between_counts += self.between.counts_of(theirs);
            theirs += 1;
        }
        out.truncate(rows, counts);
        out.append(merged);
        self.between_given = end;
    }
}

impl Lanes {
    fn read(
        &mut self,
        wanted: &Wanted,
        rows: usize,
        out: &mut Columns,
        any_wanted: &mut dyn FnMut(&[u128]) -> bool,
    ) -> Result<(), Trouble> {
        if wanted.devices {
            self.devices.pseudonyms(rows, &mut out.devices)?;
            if !any_wanted(out.devices.get(out.rows..).unwrap_or_default()) {
                out.devices.truncate(out.rows);
                return self.skip(wanted, rows);
            }
        }
        if wanted.users {
            self.users.pseudonyms(rows, &mut out.users)?;
        }
        if wanted.days {
            self.days.words(rows, &mut out.days)?;
        }
        if wanted.time.is_some() {
            self.times.long_words(rows, &mut out.times)?;
        }
        if wanted.measure.is_some() {
            let counts = out.days.get(out.rows..).unwrap_or_default().iter().map(|days| days.count_ones() as usize).sum();
            self.counts.words(counts, &mut out.counts)?;
        }
        if let Some(grouping) = &wanted.grouping {
            for (column, codes) in self.dimensions.iter_mut().zip(&mut self.codes) {
                codes.clear();
                column.codes(rows, codes)?;
            }
            let texts: Vec<&[String]> = self.dimensions.iter().map(Column::texts).collect();
            self.combiner.groups(grouping, rows, &self.codes, &texts, &mut out.groups);
        }
        out.rows += rows;
        Ok(())
    }

    fn skip(&mut self, wanted: &Wanted, rows: usize) -> Result<(), Trouble> {
        if wanted.users {
            self.users.skip(rows)?;
        }
        if wanted.time.is_some() {
            self.times.skip(rows)?;
        }
        if wanted.measure.is_some() {
            let mut days = Vec::with_capacity(rows);
            self.days.words(rows, &mut days)?;
            self.counts.skip(days.iter().map(|days| days.count_ones() as usize).sum())?;
        } else if wanted.days {
            self.days.skip(rows)?;
        }
        self.dimensions.iter_mut().try_for_each(|column| column.skip(rows))
    }
}
