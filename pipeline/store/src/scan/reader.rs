//! Pieces read one after the other, column by column.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use ameles_schemas::Table;
use arrow::datatypes::{Schema, SchemaRef};

use super::columns::{Column, Shape};
use super::grouping::Combiner;
use super::pages::{ChunkPlace, Trouble};
use super::pieces::{Kind, Settled};
use super::rows::{BatchRows, names_of};
use super::{Columns, Piece, Wanted};
use crate::files::{InMemory, RunReader};
use crate::provider::Part;
use crate::{ReadView, StoreError};

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

pub(super) enum State<'v> {
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
    pub(super) state: State<'v>,
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

    pub(super) fn schema(&self) -> Result<SchemaRef, StoreError> {
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
