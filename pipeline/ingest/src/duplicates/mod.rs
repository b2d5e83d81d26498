//! Recently accepted events, so that a device's repeat is told at once.
//!
//! A fingerprint of (device, event key) is kept for every accepted event whose
//! day lies within the last 48 hours of event time, day by day: with its last
//! day goes what was remembered of it. A repeat has any day's time of the same
//! month, as when the month settles. What memory has
//! no room for is written as sorted runs to files without a name; each run keeps
//! a filter and the first fingerprint of each page in memory, so that an event
//! that is new hardly ever asks the disk. With its last day a run is gone.
//!
//! A fingerprint is a keyed hash under a key of this memory alone (see
//! [`fingerprint`]): neither memory nor spill holds a pseudonym.

mod filter;
mod fingerprint;
mod run;
mod spill;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use ameles_core::{Day, Month, Random, Timestamp};

use fingerprint::FingerprintKey;
use run::{Page, Run, RunWriter};
pub use spill::DuplicateError;
use spill::SpillFolder;
use table::Table;

/// Days of event time that are remembered before the newest one.
const KEPT_DAYS: i32 = 2;
/// Runs of one day and level that are merged into one: a day has fewer at each level.
const FAN_IN: usize = 8;
/// Bits of a filter for each fingerprint, and how few a new one has at least.
const FILTER_BITS: usize = 16;
const FILTER_BITS_MIN: usize = 8;

/// Remembers accepted events of the last 48 hours.
#[derive(Debug)]
pub struct DuplicateMemory {
    key: FingerprintKey,
    days: BTreeMap<Day, DayMemory>,
    newest: Option<Day>,
    bytes_max: usize,
    folder: SpillFolder,
    /// How far it knows the table's commits, by their times; none when it was not rebuilt from one.
    pub(crate) read_until: Option<Timestamp>,
}

/// The accepted events of one day.
#[derive(Debug, Default)]
struct DayMemory {
    table: Table,
    runs: Vec<Run>,
}

/// Events that were looked up together: which are repeats, and what [`DuplicateMemory::remember`] takes of the others.
#[derive(Debug, Default)]
pub struct Checked {
    /// Fingerprints of each day, in order, and the events' places.
    days: Vec<(Day, Vec<(u128, u32)>)>,
    repeats: Vec<bool>,
}

impl Checked {
    /// Whether the event at this place is a repeat of a remembered one, or of one before it.
    pub fn is_repeat(&self, at: usize) -> bool {
        self.repeats.get(at).copied().unwrap_or(false)
    }
}

impl DuplicateMemory {
    /// Keeps at most about `bytes_max` in memory, and the rest in `folder`, which is wiped.
    ///
    /// # Errors
    /// When there is no randomness, or the folder cannot be made.
    pub fn new(bytes_max: usize, folder: &Path, random: &dyn Random) -> Result<Self, DuplicateError> {
        let (key, folder) = (FingerprintKey::new(random)?, SpillFolder::open(folder)?);
        Ok(Self { key, days: BTreeMap::new(), newest: None, bytes_max, folder, read_until: None })
    }

    /// The first day that is still remembered when `latest` is the latest event's time.
    pub fn kept_from(latest: Timestamp) -> Day {
        latest.day().plus(-KEPT_DAYS)
    }

    /// Whether the event was accepted before.
    ///
    /// # Errors
    /// When the spill cannot be read: whether it is a repeat is not known then.
    pub fn contains(&self, device: u128, event_key: u128, at: Timestamp) -> Result<bool, DuplicateError> {
        let fingerprint = self.key.of(device, event_key);
        for day in self.days_of(at.month()).filter(|_| event_key != 0) {
            if day.contains(fingerprint, &self.folder)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A device that sends an event again may have given it the time of another day.
    fn days_of(&self, month: Month) -> impl Iterator<Item = &DayMemory> {
        self.days.range(month.first_day()..=month.last_day()).map(|(_, day)| day)
    }

    /// Remembers an accepted event; `now` bounds what a fast clock may push out.
    ///
    /// # Errors
    /// When the spill cannot be written. The event is remembered all the same, over the bound, and what comes next tries again.
    pub fn insert(&mut self, device: u128, event_key: u128, at: Timestamp, now: Timestamp) -> Result<(), DuplicateError> {
        if event_key == 0 || !self.reach(at.day(), now) {
            return Ok(());
        }
        let table = &mut self.days.entry(at.day()).or_default().table;
        let before = table.bytes();
        table.insert(self.key.of(device, event_key));
        if table.bytes() == before { Ok(()) } else { self.make_room(0) }
    }

    /// Looks many events up at once, as (device, event key, time) in the order of their arrival.
    ///
    /// # Errors
    /// When the spill cannot be read, or memory is over its bound and the spill cannot be written.
    pub fn check(&mut self, events: impl IntoIterator<Item = (u128, u128, Timestamp)>) -> Result<Checked, DuplicateError> {
        self.make_room(0)?;
        let mut by_day: BTreeMap<Day, Vec<(u128, u32)>> = BTreeMap::new();
        let mut repeats = Vec::new();
        for (place, (device, event_key, at)) in (0..).zip(events) {
            repeats.push(false);
            if event_key != 0 {
                by_day.entry(at.day()).or_default().push((self.key.of(device, event_key), place));
            }
        }
        // In their order they are looked up from one end of memory to the other, and equal ones are neighbours.
        by_day.values_mut().for_each(|entries| entries.sort_unstable());
        let days: Vec<(Day, Vec<(u128, u32)>)> = by_day.into_iter().collect();
        for of_month in days.chunk_by(|a, b| a.0.month() == b.0.month()) {
            mark_neighbours(of_month, &mut repeats);
            for day in self.days_of(of_month[0].0.month()) {
                for (_, entries) in of_month {
                    day.mark(entries, &mut repeats, &self.folder)?;
                }
            }
        }
        Ok(Checked { days, repeats })
    }

    /// Remembers those of checked events that were `accepted`, by their places.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn remember(&mut self, checked: &Checked, accepted: impl Fn(usize) -> bool, now: Timestamp) -> Result<(), DuplicateError> {
        let mut room = Ok(());
        // The latest day first: it is what the window goes by.
        for (day, entries) in checked.days.iter().rev() {
            let accepted = entries.iter().filter(|(_, place)| !checked.is_repeat(*place as usize) && accepted(*place as usize));
            let fingerprints: Vec<u128> = accepted.map(|(fingerprint, _)| *fingerprint).collect();
            if !fingerprints.is_empty() && self.reach(*day, now) {
                room = self.take(*day, &fingerprints).and(room);
            }
        }
        room
    }

    /// Moves the window up to a day, and says whether the day lies in it.
    fn reach(&mut self, day: Day, now: Timestamp) -> bool {
        let newest = self.newest.map_or(day, |newest| newest.max(day)).min(now.day());
        if self.newest != Some(newest) {
            self.newest = Some(newest);
            self.days = self.days.split_off(&newest.plus(-KEPT_DAYS));
        }
        day >= newest.plus(-KEPT_DAYS)
    }

    /// Takes one day's fingerprints, sorted and all different.
    fn take(&mut self, day: Day, fingerprints: &[u128]) -> Result<(), DuplicateError> {
        let growth = self.days.entry(day).or_default().table.growth(fingerprints);
        let room = self.make_room(growth);
        if growth > self.bytes_max / 2
            && let Ok(run) = self.write_run(fingerprints.len(), |write| write(fingerprints))
        {
            self.days.entry(day).or_default().runs.push(run);
            return room.and_then(|()| self.merge(day)).and_then(|()| self.make_room(0));
        }
        self.days.entry(day).or_default().table.insert_sorted(fingerprints);
        room
    }

    /// Brings what is in memory, and `more`, below the bound.
    fn make_room(&mut self, more: usize) -> Result<(), DuplicateError> {
        while self.bytes() + more > self.bytes_max {
            let of_tables: usize = self.days.values().map(|day| day.table.bytes()).sum();
            let largest = self.days.iter().filter(|(_, day)| day.table.len() > 0).max_by_key(|(_, day)| day.table.bytes());
            match largest.map(|(day, _)| *day) {
                // Filters get about half.
                Some(_) if of_tables <= self.bytes_max / 2 && self.fold() => {}
                Some(day) => self.spill(day)?,
                None if self.fold() => {}
                None => break,
            }
        }
        Ok(())
    }

    /// Writes what a day has in memory as a run.
    fn spill(&mut self, day: Day) -> Result<(), DuplicateError> {
        let Some(of_day) = self.days.get(&day) else { return Ok(()) };
        let run = self.write_run(of_day.table.len(), |write| of_day.table.each_sorted(write))?;
        if let Some(of_day) = self.days.get_mut(&day) {
            of_day.table = Table::default();
            of_day.runs.push(run);
        }
        self.merge(day)
    }

    fn write_run(
        &self,
        len: usize,
        each: impl FnOnce(&mut dyn FnMut(&[u128]) -> Result<(), DuplicateError>) -> Result<(), DuplicateError>,
    ) -> Result<Run, DuplicateError> {
        let mut writer = RunWriter::new(len, self.filter_bits(len), 0, &self.folder)?;
        each(&mut |sorted| sorted.iter().try_for_each(|fingerprint| writer.push(*fingerprint)))?;
        writer.finish()
    }

    /// Merges a day's runs of a level where there are enough of them.
    fn merge(&mut self, day: Day) -> Result<(), DuplicateError> {
        loop {
            let Some(of_day) = self.days.get_mut(&day) else { return Ok(()) };
            let at = |level| of_day.runs.iter().filter(move |run| run.level == level).count();
            let Some(level) = of_day.runs.iter().map(|run| run.level).find(|level| at(*level) >= FAN_IN) else { return Ok(()) };
            let (mut merging, others): (Vec<Run>, Vec<Run>) = of_day.runs.drain(..).partition(|run| run.level == level);
            of_day.runs = others;
            // The new filter takes their place.
            merging.iter_mut().for_each(Run::drop_filter);
            let bits = self.filter_bits(merging.iter().map(Run::len).sum());
            let merged = Run::merge(&merging, bits, &self.folder);
            let Some(of_day) = self.days.get_mut(&day) else { return Ok(()) };
            match merged {
                Ok(run) => of_day.runs.push(run),
                Err(error) => {
                    of_day.runs.append(&mut merging);
                    return Err(error);
                }
            }
        }
    }

    /// What a filter of so many fingerprints gets of each: of half the memory what is left.
    fn filter_bits(&self, len: usize) -> usize {
        let taken: usize = self.runs().map(Run::filter_bytes).sum();
        let left = (self.bytes_max / 2).saturating_sub(taken);
        (left.saturating_mul(8) / len.max(1)).clamp(FILTER_BITS_MIN, FILTER_BITS)
    }

    /// Halves the filter that has most for each fingerprint; false when none has anything.
    fn fold(&mut self) -> bool {
        let all = self.days.values_mut().flat_map(|day| &mut day.runs);
        all.max_by_key(|run| run.filter_bytes() * 1_024 / run.len().max(1)).is_some_and(Run::fold)
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.days.values().flat_map(|day| &day.runs)
    }

    /// How many events are remembered.
    pub fn len(&self) -> usize {
        self.days.values().map(|day| day.table.len()).sum::<usize>() + self.runs().map(Run::len).sum::<usize>()
    }

    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.days.values().map(|day| day.table.bytes()).sum::<usize>() + self.runs().map(Run::bytes).sum::<usize>()
    }
}

/// Marks those of a batch's events of one month, sorted by day, that come after an equal one.
fn mark_neighbours(of_month: &[(Day, Vec<(u128, u32)>)], repeats: &mut [bool]) {
    let mut mark = |sorted: &[(u128, u32)]| {
        for pair in sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            repeats[pair[1].1 as usize] = true;
        }
    };
    match of_month {
        [(_, sorted)] => mark(sorted),
        several => {
            let mut all: Vec<(u128, u32)> = several.iter().flat_map(|(_, entries)| entries).copied().collect();
            all.sort_unstable();
            mark(&all);
        }
    }
}

impl DayMemory {
    fn contains(&self, fingerprint: u128, folder: &SpillFolder) -> Result<bool, DuplicateError> {
        if self.table.contains(fingerprint) {
            return Ok(true);
        }
        for run in &self.runs {
            if run.contains(fingerprint, &mut Page::default(), folder)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Marks those of sorted fingerprints that it has, by their places.
    fn mark(&self, entries: &[(u128, u32)], repeats: &mut [bool], folder: &SpillFolder) -> Result<(), DuplicateError> {
        for (fingerprint, place) in entries {
            let repeat = &mut repeats[*place as usize];
            *repeat = *repeat || self.table.contains(*fingerprint);
        }
        // A run at a time: its filter and its pages come by once, in order.
        for run in &self.runs {
            let mut page = Page::default();
            for (fingerprint, place) in entries {
                let repeat = &mut repeats[*place as usize];
                *repeat = *repeat || run.contains(*fingerprint, &mut page, folder)?;
            }
        }
        Ok(())
    }
}
