//! The rows of several months side by side, in the order of devices.
//!
//! The range of pseudonyms is cut into buckets of some thousand rows; a bucket's rows of all months lie in the core's cache together.
//! Ranges of buckets are for different threads.

use ameles_core::Month;
use ameles_schemas::Table;
use ameles_store::scan::{Columns, Piece, Reader, Users, Wanted};
use ameles_store::{ReadView, StoreError};

use super::Sizes;
use super::sink::Whom;

const BITS_MAX: u32 = 24;

/// One month of one table; of `links`, its users in the place of devices.
pub struct Lane {
    pub table: Table,
    /// Its place among the months of the data.
    pub month: usize,
    pub pieces: Vec<Piece>,
    pub wanted: Wanted,
}

impl Lane {
    /// Of a month that has rows.
    pub fn open(view: &ReadView, table: Table, (month, at): (Month, usize), wanted: &Wanted) -> Result<Option<Self>, StoreError> {
        let pieces = if table == Table::Links { view.links_by_user(month).into_iter().collect() } else { view.pieces(table, month)? };
        Ok((!pieces.is_empty()).then(|| Self { table, month: at, pieces, wanted: wanted.clone() }))
    }

    fn rows(&self) -> usize {
        self.pieces.iter().map(Piece::rows).sum()
    }
}

/// Months to go through together.
pub struct Sweep<'v> {
    view: &'v ReadView,
    sizes: Sizes,
    pub lanes: Vec<Lane>,
    /// Rows of the largest lane.
    pub rows_max: usize,
    /// Binary digits of the number of buckets.
    pub bucket_bits: u32,
}

/// Rows of one bucket and lane.
#[derive(Clone, Copy, Default)]
pub struct Rows<'a> {
    pub devices: &'a [u128],
    pub days: &'a [u32],
    pub times: &'a [i64],
    pub groups: &'a [u32],
}

impl Rows<'_> {
    /// A row's device.
    pub fn whom(&self, row: usize) -> Whom {
        Whom::Device(self.devices.get(row).copied().unwrap_or(0))
    }
}

/// Where a lane's rows come from.
enum Source<'v> {
    Rows(Box<Reader<'v>>),
    Users(Box<Users<'v>>),
}

/// Reads one lane, bucket by bucket.
struct Cursor<'v> {
    source: Source<'v>,
    columns: Columns,
    start: usize,
    end: usize,
    done: bool,
    read_rows: usize,
}

impl Cursor<'_> {
    /// Makes `start..end` the next rows, those before `bound` (all without one).
    fn advance(&mut self, bound: Option<u128>) -> Result<(), StoreError> {
        self.start = self.end;
        loop {
            let rows = &self.columns.devices;
            if let (Some(bound), Some(last)) = (bound, rows.last())
                && *last >= bound
            {
                self.end = self.start + rows.get(self.start..).unwrap_or_default().partition_point(|device| *device < bound);
                return Ok(());
            }
            if self.done {
                self.end = rows.len();
                return Ok(());
            }
            self.columns.discard(self.start);
            self.start = 0;
            let read = match &mut self.source {
                Source::Rows(rows) => rows.read(self.read_rows, &mut self.columns)?,
                Source::Users(users) => users.read(self.read_rows, &mut self.columns)?,
            };
            self.done = read.is_none();
        }
    }

    fn rows(&self) -> Rows<'_> {
        fn part<T>(values: &[T], start: usize, end: usize) -> &[T] {
            values.get(start..end).unwrap_or_default()
        }
        let (start, end, columns) = (self.start, self.end, &self.columns);
        Rows {
            devices: part(&columns.devices, start, end),
            days: part(&columns.days, start, end),
            times: part(&columns.times, start, end),
            groups: part(&columns.groups, start, end),
        }
    }
}

impl<'v> Sweep<'v> {
    pub fn new(view: &'v ReadView, sizes: Sizes, lanes: Vec<Lane>) -> Self {
        let rows_max = lanes.iter().map(Lane::rows).max().unwrap_or_default();
        let bucket_bits = (rows_max / sizes.bucket_rows).next_power_of_two().trailing_zeros().min(BITS_MAX);
        Self { view, sizes, lanes, rows_max, bucket_bits }
    }

    /// Whether one can begin anywhere.
    pub fn is_seekable(&self) -> bool {
        self.lanes.iter().all(|lane| lane.pieces.iter().all(Piece::is_seekable))
    }

    /// The first `end` buckets in about so many parts.
    pub fn parts(&self, end: u64, parts: usize) -> impl Iterator<Item = std::ops::Range<u64>> {
        // A merged month is read from its beginning, and once.
        let parts = if self.is_seekable() { (parts as u64).clamp(1, end.max(1)) } else { 1 };
        (0..parts).map(move |part| end * part / parts..end * (part + 1) / parts)
    }

    /// Goes through some buckets; `each` gets the rows of all lanes.
    pub fn run<E: From<StoreError>>(
        &self,
        buckets: std::ops::Range<u64>,
        mut each: impl FnMut(&[Rows<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let bits = self.bucket_bits;
        // The beginning of a bucket; none after the last.
        let bound = |bucket: u64| (bucket < 1 << bits).then(|| if bits == 0 { 0 } else { u128::from(bucket) << (128 - bits) });
        let (low, high) = (bound(buckets.start).unwrap_or(u128::MAX), bound(buckets.end));
        let mut cursors = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            let within =
                |piece: &&Piece| piece.range().is_none_or(|(least, greatest)| greatest >= low && high.is_none_or(|high| least < high));
            let pieces = lane.pieces.iter().filter(within).cloned();
            let source = match lane.table {
                Table::Links => Source::Users(Box::new(Users::new(self.view, &lane.wanted, pieces))),
                table => Source::Rows(Box::new(Reader::in_order(self.view, table, &lane.wanted, pieces)?)),
            };
            let mut cursor =
                Cursor { source, columns: Columns::default(), start: 0, end: 0, done: false, read_rows: self.sizes.bucket_rows * 2 };
            if low > 0 {
                cursor.advance(Some(low))?;
            }
            cursors.push(cursor);
        }
        for bucket in buckets {
            let end = bound(bucket + 1);
            for cursor in &mut cursors {
                cursor.advance(end)?;
            }
            let rows: Vec<Rows<'_>> = cursors.iter().map(Cursor::rows).collect();
            each(&rows)?;
        }
        Ok(())
    }
}

/// Devices of one bucket, each with a number.
#[derive(Default)]
pub struct Devices {
    places: Vec<u32>,
    /// How a device's place is made: what of its second half is mixed into the first, times a factor, some digits left out, as many kept as places need.
    mixed: u64,
    factor: u64,
    skipped: u32,
    shift: u32,
    pub known: Vec<u128>,
}

impl Devices {
    /// Empties it, with room for so many devices of one bucket.
    ///
    /// A device's place follows from its order in the bucket, so that sorted rows find theirs one after the other in the nearest cache.
    /// That is for pseudonyms, which are spread evenly; where many more lie in one bucket than in others, places are drawn by a hash.
    pub fn reset(&mut self, sweep: &Sweep<'_>, most: usize) {
        self.reset_drawn(most);
        let bits = sweep.bucket_bits;
        if bits + (64 - self.shift) <= 64 && most <= sweep.lanes.len() * sweep.sizes.bucket_rows * 4 {
            (self.mixed, self.factor, self.skipped) = (0, 1, bits);
        }
    }

    /// Empties it, with room for so many, from anywhere.
    pub fn reset_drawn(&mut self, most: usize) {
        let bits = (most * 3).next_power_of_two().trailing_zeros().max(4);
        self.places.clear();
        self.places.resize(1 << bits, 0);
        self.shift = 64 - bits;
        (self.mixed, self.factor, self.skipped) = (u64::MAX, 0x9e37_79b9_7f4a_7c15, 0);
        self.known.clear();
    }

    #[inline]
    fn home(&self, device: u128) -> usize {
        let folded = (device >> 64) as u64 ^ ((device as u64).rotate_left(32) & self.mixed);
        (folded.wrapping_mul(self.factor) << self.skipped >> self.shift) as usize
    }

    /// Its number, if it has one.
    #[inline]
    pub fn get(&self, device: u128) -> Option<usize> {
        let mut at = self.home(device);
        loop {
            let place = *self.places.get(at)?;
            if place == 0 {
                return None;
            }
            let number = place as usize - 1;
            if *self.known.get(number)? == device {
                return Some(number);
            }
            at = (at + 1) & (self.places.len() - 1);
        }
    }

    /// Its number, a new one if it has none, and whether it is new.
    #[inline]
    pub fn insert(&mut self, device: u128) -> (usize, bool) {
        let mut at = self.home(device);
        let mask = self.places.len() - 1;
        while let Some(place) = self.places.get_mut(at) {
            if *place == 0 {
                self.known.push(device);
                *place = self.known.len() as u32;
                return (self.known.len() - 1, true);
            }
            let number = *place as usize - 1;
            if self.known.get(number) == Some(&device) {
                return (number, false);
            }
            at = (at + 1) & mask;
        }
        (0, false)
    }
}

/// A merge under way: the next rows of both, and where they end.
#[derive(Clone, Copy)]
struct Merge {
    mine: usize,
    mine_end: usize,
    theirs: usize,
    theirs_end: usize,
}

impl Merge {
    const fn is_under_way(&self) -> bool {
        self.mine < self.mine_end && self.theirs < self.theirs_end
    }

    /// Without branches: whether the next step is one in the first or in the second is anyone's guess.
    #[inline(always)]
    fn step(&mut self, devices: &[u128], others: &[u128], days: &[u32], out: &mut [u32]) {
        let (device, other) = (devices[self.mine], others[self.theirs]);
        out[self.mine] = if device == other { days[self.theirs] } else { 0 };
        self.mine += usize::from(device <= other);
        self.theirs += usize::from(other <= device);
    }
}

/// For each of the rows what the other month says of the same device, 0 where it says nothing; both are in order.
///
/// Two halves side by side: each step of a merge waits for the step before.
pub fn look_up(devices: &[u128], others: Rows<'_>, out: &mut Vec<u32>) {
    out.clear();
    out.resize(devices.len(), 0);
    let (theirs, days) = (others.devices, others.days);
    if days.len() != theirs.len() {
        return;
    }
    let half = devices.len() / 2;
    let their_half = devices.get(half).map_or(0, |first| theirs.partition_point(|device| device < first));
    let mut first = Merge { mine: 0, mine_end: half, theirs: 0, theirs_end: their_half };
    let mut second = Merge { mine: half, mine_end: devices.len(), theirs: their_half, theirs_end: theirs.len() };
    while first.is_under_way() && second.is_under_way() {
        first.step(devices, theirs, days, out);
        second.step(devices, theirs, days, out);
    }
    while first.is_under_way() {
        first.step(devices, theirs, days, out);
    }
    while second.is_under_way() {
        second.step(devices, theirs, days, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_month_is_found_by_device() {
        let mut number = 3_u64;
        let mut draw = |bound: u64| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) % bound
        };
        for round in 0..300 {
            let mut month = |most: u64| {
                let mut devices: Vec<u128> = (0..draw(most)).map(|_| u128::from(draw(120)) << 60).collect();
                devices.sort_unstable();
                devices.dedup();
                devices
            };
            let (mine, theirs) = (month(1 + round % 90), month(1 + round % 70));
            let days: Vec<u32> = theirs.iter().map(|device| (device >> 60) as u32 + 1).collect();
            let mut found = Vec::new();
            look_up(&mine, Rows { devices: &theirs, days: &days, ..Rows::default() }, &mut found);
            let expected: Vec<u32> = mine.iter().map(|device| theirs.binary_search(device).map_or(0, |at| days[at])).collect();
            assert_eq!(found, expected);
        }
    }
}
