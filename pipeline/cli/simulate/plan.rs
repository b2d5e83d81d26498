//! What the devices do on one day, as small records that are ordered by arrival
//! before any of them is written out.

use super::fleet::{Fleet, Life, PRODUCTS};
use super::rng::{Chance, Rng, mix};
use super::spec::FleetSpec;

pub const DAY_MS: i64 = 86_400_000;
/// The longest that an event is late or comes again; buckets reach so far ahead.
pub const DELAY_DAYS_MAX: usize = 4;
const DELAY_MS_MAX: i64 = (DELAY_DAYS_MAX as i64 - 1) * DAY_MS;
/// Numbers of the rare events of a device's day; all others count from 0.
const WITHDRAWAL: u8 = 250;
const GRANT: u8 = 251;
const RESET: u8 = 252;
const FIRST_GRANT: u8 = 253;
const EVENTS_MAX: u64 = 60;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Activate,
    Wake,
    Heartbeat,
    Control,
    ConsentGranted,
    ConsentWithdrawn,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Wake => "wake",
            Self::Heartbeat => "heartbeat",
            Self::Control => "control",
            Self::ConsentGranted => "consent_granted",
            Self::ConsentWithdrawn => "consent_withdrawn",
        }
    }
}

/// One line to be written. Times are milliseconds since 1970.
#[derive(Clone, Copy)]
pub struct Record {
    pub arrival: i64,
    pub at: i64,
    pub device: u32,
    pub day: u16,
    /// Which of the device's events of that day.
    pub number: u8,
    pub kind: Kind,
    pub repeated: bool,
}

impl Record {
    /// No other event of the fleet has it; 56 bits.
    pub const fn identity(&self) -> u64 {
        (self.day as u64) << 40 | (self.number as u64) << 32 | self.device as u64
    }
    /// Total, so that the order is the same on every machine.
    pub const fn order(&self) -> (i64, u64, bool) {
        (self.arrival, self.identity(), self.repeated)
    }
}

/// The hours at which people use their devices, each as often as it stands here.
const LOCAL_HOURS: [u8; 64] = [
    0, 1, 5, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8, 9, 9, 9, 10, 10, 11, 11, 12, 12, 12, 13, 13, 14, 14, 15, 15, 16, 16, 16, 17, 17, 17, 17, 18, 18,
    18, 18, 18, 19, 19, 19, 19, 19, 19, 20, 20, 20, 20, 20, 20, 21, 21, 21, 21, 21, 22, 22, 22, 22, 23, 23,
];

pub struct Planner<'a> {
    pub fleet: &'a Fleet,
    first_ms: i64,
    first_weekday: u32,
    late: Chance,
    duplicate: Chance,
}

impl<'a> Planner<'a> {
    pub fn new(fleet: &'a Fleet, spec: &FleetSpec) -> Self {
        let epoch_days = spec.from.epoch_days();
        Self {
            fleet,
            first_ms: i64::from(epoch_days) * DAY_MS,
            // 1970-01-01 was a Thursday.
            first_weekday: (epoch_days + 3).rem_euclid(7) as u32,
            late: Chance::new(spec.late_rate),
            duplicate: Chance::new(spec.duplicate_rate),
        }
    }

    pub const fn day_start(&self, day: u32) -> i64 {
        self.first_ms + day as i64 * DAY_MS
    }

    /// All that one device does on one day.
    pub fn plan(&self, device: u32, day: u32, mut emit: impl FnMut(Record)) {
        let life = self.fleet.life(device);
        if life.is_quiet(day) {
            return;
        }
        let mut rng = Rng::new(mix(life.hash ^ (u64::from(day) << 8 | 5)));
        let bits = rng.next();
        let weekend = (self.first_weekday + day) % 7 >= 5;
        let start = self.day_start(day);
        let mut send = |rng: &mut Rng, at: i64, number: u8, kind: Kind| {
            let record = Record { arrival: at, at, device, day: day as u16, number, kind, repeated: false };
            self.arrive(record, rng, &mut emit);
        };
        // Nothing of the day lies before what started it.
        let mut earliest = 0;
        if day == life.activation {
            earliest = Self::hour_of_use(&mut rng);
            if !life.activation_lost {
                send(&mut rng, start + earliest, 0, Kind::Activate);
            }
            if life.grants_at_activation {
                send(&mut rng, start + earliest, FIRST_GRANT, Kind::ConsentGranted);
            }
        }
        if day == life.reset && life.is_there(day) && life.may_send(day) {
            let at = start + Self::hour_of_use(&mut rng);
            send(&mut rng, at, RESET, Kind::Activate);
        }
        if day == life.withdrawal {
            let at = start + Self::hour_of_use(&mut rng);
            send(&mut rng, at, WITHDRAWAL, Kind::ConsentWithdrawn);
        }
        if day == life.grant {
            earliest = Self::hour_of_use(&mut rng);
            send(&mut rng, start + earliest, GRANT, Kind::ConsentGranted);
        }
        if !life.is_active(day, weekend, bits) {
            return;
        }
        let mut number = 1;
        let mut left = 1 + (bits >> 16 & 0xff) * (bits >> 24 & 0xff) * 3 / 0x1_0000 + if bits >> 32 & 0x3f == 0 { 12 } else { 0 };
        left = left.min(EVENTS_MAX);
        while left > 0 {
            let kind = Self::kind(&life, &mut rng);
            let at = if earliest == 0 { Self::hour_of_use(&mut rng) } else { earliest + rng.below((DAY_MS - earliest) as u64) as i64 };
            send(&mut rng, start + at, number, kind);
            number += 1;
            left -= 1;
        }
    }

    fn hour_of_use(rng: &mut Rng) -> i64 {
        let hour = LOCAL_HOURS[rng.below(LOCAL_HOURS.len() as u64) as usize];
        i64::from(hour) * 3_600_000 + rng.below(3_600_000) as i64
    }

    fn kind(life: &Life, rng: &mut Rng) -> Kind {
        let product = &PRODUCTS[life.product];
        match rng.below(256) {
            share if share < product.wakes => Kind::Wake,
            share if share < product.wakes + product.heartbeats => Kind::Heartbeat,
            _ => Kind::Control,
        }
    }

    /// Some are late by hours or days; some come again within minutes, a few within days.
    fn arrive(&self, mut record: Record, rng: &mut Rng, emit: &mut impl FnMut(Record)) {
        let delay = if rng.chance(self.late) {
            let longest = if rng.below(4) == 0 { DELAY_MS_MAX } else { 10 * 3_600_000 };
            3_600_000 + rng.below((longest - 3_600_000) as u64) as i64
        } else {
            50 + rng.below(1_500) as i64
        };
        record.arrival = record.at + delay;
        emit(record);
        if rng.chance(self.duplicate) {
            let longest = if rng.below(8) == 0 { DELAY_MS_MAX - delay } else { 600_000 };
            record.arrival += rng.below(longest.max(1) as u64) as i64;
            record.repeated = true;
            emit(record);
        }
    }
}
