//! The order of a range's rows, and which of them repeat each other.

use super::Row;
use super::part::range_of;

/// Further bits of the device by which a range is sorted before it is compared: few devices share them, so that what is left
/// to compare is nearly in order.
const DIGIT_BITS: u32 = 11;
/// A device with at most so many rows in a month has its repeats looked for in a small table.
const FEW_ROWS: usize = 48;

/// One row to sort; those of one batch have no two equal `at`, and a smaller one has arrived before.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) device: u128,
    pub(super) ts: i64,
    pub(super) at: u32,
}

/// Sorts the rows of one range: first by the bits of the device behind the range's, so that few are left to compare.
pub(super) fn sort(keys: &mut Vec<Key>, spare: &mut Vec<Key>, bits: u32, rows: &[Row]) {
    let order = |left: &Key, right: &Key| (left.device, left.ts).cmp(&(right.device, right.ts));
    let digit = |key: &Key| range_of(key.device << bits, DIGIT_BITS) as usize;
    let mut ends = vec![0_u32; 1 << DIGIT_BITS];
    for key in keys.iter() {
        ends[digit(key)] += 1;
    }
    let mut end = 0;
    for count in &mut ends {
        end += *count;
        *count = end - *count;
    }
    spare.clear();
    spare.extend_from_slice(keys);
    for key in keys.iter() {
        let place = &mut ends[digit(key)];
        spare[*place as usize] = *key;
        *place += 1;
    }
    std::mem::swap(keys, spare);
    let mut start = 0;
    for end in ends {
        keys[start as usize..end as usize].sort_unstable_by(order);
        start = end;
    }
    // Few events of a device share their microsecond.
    let mut start = 0;
    while start < keys.len() {
        let key = keys[start];
        let same = keys[start..].iter().take_while(|other| (other.device, other.ts) == (key.device, key.ts)).count();
        if same > 1 {
            keys[start..start + same].sort_unstable_by_key(|key| (rows[key.at as usize].event_key, key.at));
        }
        start += same;
    }
}

/// Of a device's rows with the same event key the first to arrive stays; which others went is told.
pub(super) fn drop_repeats(keys: &mut Vec<Key>, rows: &[Row]) -> Vec<u32> {
    let mut repeated: Vec<(usize, u32)> = Vec::new();
    let mut of_device: Vec<(u128, u32, usize)> = Vec::new();
    let mut start = 0;
    for device in keys.chunk_by(|left, right| left.device == right.device) {
        if device.len() <= FEW_ROWS {
            repeats_of_few(device, start, rows, &mut repeated);
            start += device.len();
            continue;
        }
        of_device.clear();
        of_device.extend(device.iter().zip(start..).map(|(key, at)| (rows[key.at as usize].event_key, key.at, at)));
        of_device.sort_unstable_by_key(|(event_key, arrived, _)| (*event_key, *arrived));
        let twice = |pair: &&[(u128, u32, usize)]| pair[0].0 == pair[1].0 && pair[1].0 != 0;
        repeated.extend(of_device.windows(2).filter(twice).map(|pair| (pair[1].2, pair[1].1)));
        start += device.len();
    }
    if !repeated.is_empty() {
        repeated.sort_unstable();
        let mut next = repeated.iter().peekable();
        let mut at = 0;
        keys.retain(|_| {
            at += 1;
            next.next_if(|(repeat, _)| *repeat == at - 1).is_none()
        });
    }
    repeated.into_iter().map(|(_, arrived)| arrived).collect()
}

/// The same for a device with at most `FEW_ROWS` rows, the first of which is number `start`.
fn repeats_of_few(device: &[Key], start: usize, rows: &[Row], repeated: &mut Vec<(usize, u32)>) {
    /// More than rows, so that one stays free; a power of two.
    const PLACES: usize = 64;
    // Which row stands there, counted from 1; an event key is random already.
    let mut places = [0_u8; PLACES];
    let mut event_keys = [0_u128; FEW_ROWS];
    for (number, key) in device.iter().enumerate() {
        let event_key = rows[key.at as usize].event_key;
        if event_key == 0 {
            continue;
        }
        event_keys[number] = event_key;
        let mut at = event_key as usize % PLACES;
        while places[at] != 0 {
            let other = usize::from(places[at]) - 1;
            if event_keys[other] == event_key {
                break;
            }
            at = (at + 1) % PLACES;
        }
        match usize::from(places[at]).checked_sub(1) {
            Some(earlier) if device[earlier].at < key.at => repeated.push((start + number, key.at)),
            Some(later) => {
                repeated.push((start + later, device[later].at));
                places[at] = number as u8 + 1;
            }
            None => places[at] = number as u8 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(device: u128, event_key: u128) -> Row {
        Row { device, user: 0, event_key, ts: 0, line: 0 }
    }

    proptest! {
        /// Devices with few rows and with many, event keys that share their low bits, and rows without any.
        #[test]
        fn the_first_of_a_devices_repeats_stays(
            rows in prop::collection::vec((0..4_u128, 0..30_u128), 0..400),
            mixed in any::<u64>(),
        ) {
            let rows: Vec<Row> = rows.into_iter().map(|(device, key)| row(device / 2, if key % 3 == 0 { key } else { key << 64 })).collect();
            let mut keys: Vec<Key> = (0..).zip(&rows).map(|(at, row)| Key { device: row.device, ts: 0, at }).collect();
            // By device; within one in an order that is not that of arrival.
            keys.sort_by_key(|key| (key.device, (u64::from(key.at) + 1).wrapping_mul(mixed | 1).rotate_left(17)));
            let before: Vec<u32> = keys.iter().map(|key| key.at).collect();
            let mut repeated = drop_repeats(&mut keys, &rows);
            let is_first = |at: u32| {
                let row = rows[at as usize];
                row.event_key == 0 || !rows[..at as usize].iter().any(|other| (other.device, other.event_key) == (row.device, row.event_key))
            };
            let (kept, gone): (Vec<u32>, Vec<u32>) = before.into_iter().partition(|at| is_first(*at));
            prop_assert_eq!(keys.iter().map(|key| key.at).collect::<Vec<_>>(), kept);
            repeated.sort_unstable();
            let mut gone = gone;
            gone.sort_unstable();
            prop_assert_eq!(repeated, gone);
        }
    }
}
