//! Devices and their months. Nothing is stored for a device: all of it follows
//! from the seed and the device's number, and pseudonyms ascend with the number,
//! so that any part of the fleet can be written by itself.

use ameles_core::{Day, Month};

use super::super::fleet::PRODUCTS;
use super::super::rng::mix;
use super::shape::{Curve, FleetShape};
use super::words::Words;

const DAY_MS: u64 = 86_400_000;
/// Events of a day by four random bits; most days have few.
const EVENTS: [u32; 16] = [1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 8, 10, 13, 18, 28];
/// No place in a dictionary: null.
pub const NULL: u32 = u32::MAX;

pub struct Population {
    pub shape: FleetShape,
    pub words: Words,
    key: u64,
    users: u64,
    /// Pseudonyms lie so far apart on average, in their leading 64 bits.
    step: u64,
    /// Of 2^32 devices, how many are activated before the end of each month.
    activated_until: Vec<u64>,
    /// Of 2^32 devices of an age, how many are active.
    active_at_age: Vec<u64>,
    months: Vec<MonthDays>,
}

/// A month's calendar.
struct MonthDays {
    start_ms: i64,
    days: u32,
    /// Bits of its Saturdays and Sundays.
    weekend: u32,
}

/// What is a device's for all its life.
#[derive(Clone, Copy)]
pub struct Device {
    number: u64,
    hash: u64,
    activated: usize,
}

/// A device in one month.
pub struct ActiveMonth {
    pub days: u32,
    pub first_ms: i64,
    pub last_ms: i64,
    /// Random bits of the month.
    bits: u64,
}

/// `bits` of each 2^32.
fn of_32_bits(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64
}

/// Each bit is set with a chance of `chance` in 256 (Steele and others' bit-sliced comparison).
fn each_bit(chance: u32, words: &[u64; 4]) -> u32 {
    let mut mask = 0_u32;
    for (place, word) in words.iter().flat_map(|word| [*word as u32, (*word >> 32) as u32]).enumerate() {
        mask = if chance >> place & 1 == 1 { mask | word } else { mask & word };
    }
    mask
}

const fn scaled(bits: u64, bound: u64) -> u64 {
    ((bits as u128 * bound as u128) >> 64) as u64
}

impl MonthDays {
    fn new(month: Month) -> Self {
        let first: Day = month.first_day();
        // 1970-01-01 was a Thursday.
        let is_weekend = |day: u32| (first.epoch_days() + day as i32 + 3).rem_euclid(7) >= 5;
        let weekend = (0..month.days()).filter(|day| is_weekend(*day)).fold(0, |bits, day| bits | 1 << day);
        Self { start_ms: first.start().micros() / 1_000, days: month.days(), weekend }
    }
}

impl Population {
    pub fn new(shape: FleetShape, curve: &Curve) -> Self {
        let mut until = 0.0;
        let mut so_far = |share: &f64| {
            until += share;
            of_32_bits(until)
        };
        Self {
            shape,
            words: Words::new(shape.months),
            key: mix(shape.seed ^ 0x666c_6565_7400),
            users: (shape.devices * 6 / 10).max(1),
            step: u64::MAX / shape.devices,
            activated_until: curve.activated.iter().map(&mut so_far).collect(),
            active_at_age: curve.active_at_age.iter().copied().map(of_32_bits).collect(),
            months: (0..shape.months as usize).map(|month| MonthDays::new(shape.month(month))).collect(),
        }
    }

    /// The device of a number below `shape.devices`.
    pub fn device(&self, number: u64) -> Device {
        let hash = mix(self.key ^ number);
        let when = mix(hash ^ 1) >> 32;
        let activated = self.activated_until.iter().filter(|until| when >= **until).count();
        Device { number, hash, activated: activated.min(self.activated_until.len() - 1) }
    }

    /// Its pseudonym: random, and ascending with the number.
    pub fn pseudonym(&self, device: &Device) -> u128 {
        let high = device.number * self.step + scaled(mix(device.hash ^ 2), self.step);
        u128::from(high) << 64 | u128::from(mix(device.hash ^ 3))
    }

    /// Months since it was activated, if it is active in that month.
    pub fn age(&self, device: &Device, month: usize) -> Option<usize> {
        let age = month.checked_sub(device.activated)?;
        // Most are used until they are given up for good; some are taken up now and then.
        let occasional = device.hash & 7 == 0;
        let draw = mix(device.hash ^ if occasional { 0x100 + month as u64 } else { 4 }) >> 32;
        (age == 0 || draw < self.active_at_age[age]).then_some(age)
    }

    /// What it does in a month in which it has this age.
    pub fn month(&self, device: &Device, month: usize, age: usize) -> ActiveMonth {
        let calendar = &self.months[month];
        let bits = mix(device.hash ^ (0x200 + month as u64));
        let words = [mix(bits ^ 1), mix(bits ^ 2), mix(bits ^ 3), mix(bits ^ 4)];
        let keen = (device.hash >> 8 & 0xff) as u32;
        // The keenest use theirs every other day or more often, most a few days a month; less so as it ages.
        let daily = (7 + (15 * keen * keen >> 12)) * 32 / (32 + age as u32);
        let weekend = if device.hash >> 16 & 3 == 0 { daily / 2 } else { daily + daily / 4 };
        let mut days = each_bit(daily, &words) & !calendar.weekend | each_bit(weekend.min(255), &words) & calendar.weekend;
        days &= (1_u64 << calendar.days).wrapping_sub(1) as u32;
        let some_day = scaled(mix(bits ^ 5), u64::from(calendar.days)) as u32;
        if age == 0 {
            days = days & (u32::MAX << some_day) | 1 << some_day;
        } else if days == 0 {
            days = 1 << some_day;
        }
        // Peaks in the afternoon.
        let time = |bits: u64| 5 * 3_600_000 + scaled(bits << 32, 9 * 3_600_000) + scaled(bits & !0xffff_ffff, 9 * 3_600_000);
        let (first_day, last_day) = (u64::from(days.trailing_zeros()), u64::from(31 - days.leading_zeros()));
        let first = first_day * DAY_MS + time(mix(bits ^ 6));
        let last = last_day * DAY_MS + time(mix(bits ^ 7));
        let last = if first_day == last_day { first + scaled(mix(bits ^ 7), (first_day + 1) * DAY_MS - first) } else { last };
        ActiveMonth { days, first_ms: calendar.start_ms + first as i64, last_ms: calendar.start_ms + last as i64, bits }
    }

    /// Wakes on each of the active days, in order.
    pub fn wakes(&self, device: &Device, month: &ActiveMonth, counts: &mut Vec<i32>) {
        let rate = PRODUCTS[usize::from(self.words.made(self.model(device)).product)].wakes as u32;
        let draws = u128::from(mix(month.bits ^ 8)) << 64 | u128::from(mix(month.bits ^ 9));
        counts.extend((0..month.days.count_ones()).map(|day| (EVENTS[(draws >> (4 * day) & 15) as usize] * rate / 256) as i32));
    }

    pub fn model(&self, device: &Device) -> u32 {
        self.words.model(device.hash >> 20)
    }

    /// Where it is in a month, as a place among the countries.
    pub fn country(&self, device: &Device, month: usize) -> u32 {
        let bits = mix(device.hash ^ 10);
        // One of 512 does not know; one of 64 moves once.
        if bits & 0x1ff == 0 {
            return NULL;
        }
        let moved = bits >> 9 & 0x3f == 0 && month > device.activated + (bits >> 15 & 3) as usize;
        self.words.country(if moved { bits >> 40 } else { bits >> 24 })
    }

    pub fn firmware(device: &Device, month: usize) -> u32 {
        Words::firmware(month, device.hash >> 40)
    }

    /// Its users' pseudonyms: five of eight devices have an owner, one of eight of those is shared.
    pub fn users(&self, device: &Device) -> [Option<u128>; 2] {
        let bits = mix(device.hash ^ 11);
        let owned = bits & 7 < 5;
        let shared = owned && bits >> 3 & 7 == 0;
        let number = |salt: u64| scaled(mix(bits ^ salt), self.users);
        let (owner, other) = (number(1), number(2));
        [owned.then(|| self.user(owner)), (shared && other != owner).then(|| self.user(other))]
    }

    fn user(&self, number: u64) -> u128 {
        // One-to-one: no two users are one.
        let high = mix(number ^ mix(self.key ^ 12));
        u128::from(high) << 64 | u128::from(mix(high ^ 13))
    }

    /// The days on which one of its users was signed in.
    pub fn signed_in(month: &ActiveMonth, user: usize) -> u32 {
        let draw = |salt: u64| mix(month.bits ^ salt) as u32;
        match user {
            0 => month.days & (draw(14) | draw(15)),
            _ => month.days & draw(16),
        }
    }
}
