//! Who is behind the counts: up to `k` devices and `k` users of each cell, all of them where they are fewer.
//!
//! Devices come from the counting itself, which keeps the first rows of each cell. Users come from `links`, which is ordered by user and
//! long: a few rows of both tables, met with each other, fill nearly all cells; what then is still open is looked for everywhere.

use std::sync::{Mutex, PoisonError};

use ameles_schemas::Table;
use ameles_store::StoreError;
use ameles_store::scan::{Columns, Piece, Reader, Wanted};
use hashbrown::HashMap;

use super::sink::{Keeping, Kept, Whom};
use super::sweep::Devices;
use super::tally::bits;
use super::work::{Unit, Work};
use super::{Slots, in_threads};

/// Rows of links read at once: as many as a page has.
const READ_ROWS: usize = 8 << 10;
/// What part of the sample is met first: it fills the cells of one group.
const FIRST_SHARE: usize = 8;

/// Distinct people by bit, up to `k` for each.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    pub by_bit: Vec<Vec<u64>>,
    full: u64,
}

impl Crowd {
    /// Adds one for each bit of the mask.
    fn add(&mut self, mask: u64, id: u64, k: u32) {
        for bit in bits(mask & !self.full) {
            if bit >= self.by_bit.len() {
                self.by_bit.resize_with(bit + 1, Vec::new);
            }
            let Some(ids) = self.by_bit.get_mut(bit) else { continue };
            if !ids.contains(&id) {
                ids.push(id);
            }
            if ids.len() >= k as usize {
                self.full |= 1 << bit;
            }
        }
    }
}

/// A pseudonym's first 8 bytes: keyed hashes make a collision unlikely, and one would only count too few.
const fn short(pseudonym: u128) -> u64 {
    (pseudonym >> 64) as u64
}

/// The devices of both parts of each slot.
pub fn devices_of(work: &Work<'_>, slots: &Slots, kept: &mut [Kept], k: u32, threads: usize) -> Result<Vec<[Crowd; 2]>, StoreError> {
    name_all(work, kept, threads)?;
    let mut crowds = vec![<[Crowd; 2]>::default(); slots.list.len()];
    for row in kept.iter() {
        if let (Whom::Device(device), Some(crowd)) = (row.whom, slots.at(row.series as usize, row.group).and_then(|at| crowds.get_mut(at)))
        {
            crowd[0].add(row.mark.first, short(device), k);
            crowd[1].add(row.mark.second, short(device), k);
        }
    }
    Ok(crowds)
}

/// Replaces places of rows by their devices.
fn name_all(work: &Work<'_>, kept: &mut [Kept], threads: usize) -> Result<(), StoreError> {
    let mut by_piece: HashMap<u32, Vec<usize>> = HashMap::new();
    for row in kept.iter() {
        if let Whom::At { piece, row } = row.whom {
            by_piece.entry(piece).or_default().push(row as usize);
        }
    }
    let pieces: Vec<(u32, Vec<usize>)> = by_piece.into_iter().collect();
    let wanted = Wanted { devices: true, ..Wanted::default() };
    let named = in_threads(threads, &pieces, |(number, rows), named: &mut HashMap<(u32, u32), u128>| {
        let Some(piece) = work.piece(*number) else { return Ok(()) };
        let mut rows = rows.clone();
        rows.sort_unstable();
        let mut rows = rows.into_iter().peekable();
        let mut reader = Reader::new(work.view, Table::Activity, &wanted, [piece.clone()]);
        let (mut columns, mut before) = (Columns::default(), 0);
        while rows.peek().is_some() && reader.read(READ_ROWS, &mut columns)?.is_some() {
            while let Some(row) = rows.next_if(|row| *row < before + columns.rows) {
                if let Some(device) = columns.devices.get(row - before) {
                    named.insert((*number, row as u32), *device);
                }
            }
            before += columns.rows;
            columns.clear();
        }
        Ok(())
    })?;
    let named: HashMap<(u32, u32), u128> = named.into_iter().flatten().collect();
    for kept in kept {
        if let Whom::At { piece, row } = kept.whom
            && let Some(device) = named.get(&(piece, row))
        {
            kept.whom = Whom::Device(*device);
        }
    }
    Ok(())
}

/// The users of both parts of each slot; `kept` are the rows of `devices_of`.
pub fn users_of(work: &Work<'_>, slots: &Slots, kept: &[Kept], k: u32, threads: usize) -> Result<Vec<[Crowd; 2]>, StoreError> {
    let users = Users { work, slots, k, threads, crowds: slots.list.iter().map(|_| Mutex::default()).collect() };
    users.fill(kept)?;
    Ok(users.crowds.into_iter().map(|crowd| crowd.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

struct Users<'a> {
    work: &'a Work<'a>,
    slots: &'a Slots,
    k: u32,
    threads: usize,
    crowds: Vec<Mutex<[Crowd; 2]>>,
}

impl Users<'_> {
    fn fill(&self, kept: &[Kept]) -> Result<(), StoreError> {
        // A few rows and a few links; more of both where cells are many.
        let (rows, links) = self.work.sizes.sample;
        for share in [FIRST_SHARE, 1] {
            let (open, any) = self.open(0);
            if !any {
                return Ok(());
            }
            let (units, all_rows) = self.work.sample(rows / share, self.threads);
            let all_links = self.meet(&self.keep(&units, &open)?, links / share)?;
            if all_rows && all_links {
                return Ok(());
            }
        }
        // The rows that counting kept, all those of a small cell, and all links.
        let (open, any) = self.open(0);
        if !any {
            return Ok(());
        }
        let is_open = |row: &Kept| {
            let open = open.get(row.series as usize).and_then(|groups| groups.get(row.group as usize)).copied().unwrap_or(0);
            row.mark.cover() & open != 0
        };
        let kept: Vec<Kept> = kept.iter().copied().filter(is_open).collect();
        self.meet(&kept, usize::MAX)?;
        // All rows of large cells that have next to no users.
        let (mut open, mut any) = self.open(u64::from(self.k));
        let mut waiting: Vec<Kept> = Vec::new();
        let mut units = self.work.units(16 * self.threads).into_iter().peekable();
        while any && units.peek().is_some() {
            let batch: Vec<Unit> = units.by_ref().take(self.threads * 4).collect();
            waiting.append(&mut self.keep(&batch, &open)?);
            if waiting.len() >= self.work.sizes.kept_rows {
                self.meet(&waiting, usize::MAX)?;
                waiting.clear();
                (open, any) = self.open(u64::from(self.k));
            }
        }
        self.meet(&waiting, usize::MAX)?;
        Ok(())
    }

    /// Bits of cells of some devices, at least so many, that have not enough users, by series and group; and whether there are any.
    fn open(&self, devices_min: u64) -> (Vec<Vec<u128>>, bool) {
        let mut open: Vec<Vec<u128>> = self.slots.index.iter().map(|groups| vec![0; groups.len()]).collect();
        let mut any = false;
        for (slot, crowd) in self.slots.list.iter().zip(&self.crowds) {
            let crowd = crowd.lock().unwrap_or_else(PoisonError::into_inner);
            let mut mask = 0_u128;
            for (part, counts) in [&slot.first, &slot.second].into_iter().enumerate() {
                for (bit, count) in counts.iter().enumerate().filter(|(bit, _)| crowd[part].full >> bit & 1 == 0) {
                    mask |= u128::from(*count > 0 && *count >= devices_min) << (bit + 64 * part);
                }
            }
            any |= mask != 0;
            if let Some(place) = open.get_mut(slot.series).and_then(|groups| groups.get_mut(slot.group as usize)) {
                *place = mask;
            }
        }
        (open, any)
    }

    fn keep(&self, units: &[Unit], open: &[Vec<u128>]) -> Result<Vec<Kept>, StoreError> {
        let sinks = in_threads(self.threads, units, |unit, kept: &mut Vec<Kept>| {
            let mut sink = Keeping { open, kept: std::mem::take(kept) };
            let done = self.work.run(unit, true, &mut sink);
            *kept = sink.kept;
            done
        })?;
        Ok(sinks.concat())
    }

    /// Meets rows with up to so many links of each month (about); tells whether these were all.
    fn meet(&self, kept: &[Kept], links_max: usize) -> Result<bool, StoreError> {
        let mut of_series: Vec<Vec<&Kept>> = vec![Vec::new(); self.slots.index.len()];
        for row in kept {
            if let Some(rows) = of_series.get_mut(row.series as usize) {
                rows.push(row);
            }
        }
        let mut met: Vec<Met<'_>> = Vec::with_capacity(of_series.len());
        let mut units: Vec<(usize, Piece)> = Vec::new();
        let mut all = true;
        for (series, rows) in of_series.into_iter().enumerate() {
            let mut left = links_max;
            if !rows.is_empty() {
                for piece in self.work.view.pieces(Table::Links, self.work.month(series))? {
                    if left > 0 || !piece.is_settled() {
                        left = left.saturating_sub(piece.rows());
                        units.push((series, piece));
                    } else {
                        all = false;
                    }
                }
            }
            met.push(Met::new(&rows));
        }
        in_threads(self.threads, &units, |(series, piece), state: &mut Vec<[u64; 2]>| {
            state.resize(self.crowds.len(), [0; 2]);
            match met.get(*series) {
                Some(met) => self.meet_piece(*series, piece, met, state),
                None => Ok(()),
            }
        })?;
        Ok(all)
    }

    /// `full` is what a thread knows of cells that need nobody any more.
    fn meet_piece(&self, series: usize, piece: &Piece, met: &Met<'_>, full: &mut [[u64; 2]]) -> Result<(), StoreError> {
        let wanted = Wanted { devices: true, users: true, days: true, ..Wanted::default() };
        let mut reader = Reader::new(self.work.view, Table::Links, &wanted, [piece.clone()]);
        let mut columns = Columns::default();
        let mut hits: Vec<(usize, &Kept)> = Vec::new();
        let by_user = self.work.by_user;
        loop {
            hits.clear();
            let mut looked = 0;
            let mut look = |devices: &[u128]| {
                looked = devices.len();
                hits.extend(devices.iter().enumerate().filter(|_| !by_user).filter_map(|(row, device)| Some((row, met.row(*device)?))));
                by_user || !hits.is_empty()
            };
            let read = reader.read_if(READ_ROWS, &mut columns, &mut look)?;
            if read.is_none() {
                break;
            }
            // Merged rows have not been looked at, and others are in the places of those that were left out.
            let (known, behind) = if by_user { (&columns.users, &columns.devices) } else { (&columns.devices, &columns.users) };
            if by_user || looked != columns.rows || self.work.view.has_pending() {
                hits.clear();
                hits.extend(known.iter().enumerate().filter_map(|(row, one)| Some((row, met.row(*one)?))));
            }
            for (at, row) in &hits {
                let (Some(one), Some(days)) = (behind.get(*at), columns.days.get(*at)) else { continue };
                let Some(slot) = self.slots.at(row.series as usize, row.group) else { continue };
                let Some(full) = full.get_mut(slot) else { continue };
                let masks = self.work.bits_of_user(series, row.mark, *days);
                if masks[0] & !full[0] == 0 && masks[1] & !full[1] == 0 {
                    continue;
                }
                if let Some(crowd) = self.crowds.get(slot) {
                    let mut crowd = crowd.lock().unwrap_or_else(PoisonError::into_inner);
                    for part in 0..2 {
                        crowd[part].add(masks[part], short(*one), self.k);
                        full[part] = crowd[part].full;
                    }
                }
            }
            columns.clear();
        }
        Ok(())
    }
}

/// Rows of one month by their device.
struct Met<'a> {
    devices: Devices,
    rows: Vec<&'a Kept>,
    range: (u128, u128),
}

impl<'a> Met<'a> {
    fn new(kept: &[&'a Kept]) -> Self {
        let mut devices = Devices::default();
        devices.reset_drawn(kept.len());
        let mut rows = Vec::with_capacity(kept.len());
        let mut range = (u128::MAX, 0);
        for row in kept {
            if let Whom::Device(device) = row.whom
                && devices.insert(device).1
            {
                rows.push(*row);
                range = (range.0.min(device), range.1.max(device));
            }
        }
        Self { devices, rows, range }
    }

    #[inline]
    fn row(&self, device: u128) -> Option<&'a Kept> {
        if device < self.range.0 || device > self.range.1 {
            return None;
        }
        self.rows.get(self.devices.get(device)?).copied()
    }
}
