//! Devices and their lives. Nothing is stored for a device: all of it follows
//! from the seed and the device's number, so that a fleet takes no memory.

use super::rng::mix;
use super::spec::FleetSpec;

/// A day that never comes.
const NEVER: u32 = u32::MAX;
const QUANTILES: usize = 4_096;
/// Share of devices that are still there a month later.
const MONTHLY_SURVIVAL: f64 = 0.93;

pub struct Product {
    pub name: &'static str,
    /// Of 256 devices.
    pub share: u32,
    /// Chance of 256 to be active on a day, for the keenest owner.
    daily: u32,
    /// Of 256 events.
    pub wakes: u64,
    pub heartbeats: u64,
    /// Lifetime in sixteenths of the common one.
    lasting: u32,
}

pub const PRODUCTS: [Product; 8] = [
    Product { name: "speaker", share: 84, daily: 250, wakes: 170, heartbeats: 60, lasting: 18 },
    Product { name: "tv", share: 44, daily: 230, wakes: 120, heartbeats: 110, lasting: 24 },
    Product { name: "phone", share: 52, daily: 240, wakes: 150, heartbeats: 90, lasting: 12 },
    Product { name: "laptop", share: 22, daily: 190, wakes: 110, heartbeats: 140, lasting: 14 },
    Product { name: "light", share: 24, daily: 220, wakes: 20, heartbeats: 90, lasting: 30 },
    Product { name: "vacuum", share: 12, daily: 120, wakes: 40, heartbeats: 80, lasting: 20 },
    Product { name: "thermostat", share: 10, daily: 240, wakes: 10, heartbeats: 200, lasting: 36 },
    Product { name: "watch", share: 8, daily: 210, wakes: 130, heartbeats: 110, lasting: 8 },
];

/// In order of frequency; the n-th has a share of 1/n.
pub const COUNTRIES: [&str; 41] = [
    "DE", "US", "FR", "GB", "IT", "ES", "PL", "NL", "BR", "BE", "AT", "SE", "CH", "CZ", "PT", "DK", "FI", "IE", "NO", "HU", "RO", "GR",
    "SK", "BG", "HR", "SI", "LT", "LV", "EE", "LU", "CY", "MT", "IS", "CA", "MX", "JP", "KR", "AU", "NZ", "IN", "ZA",
];

pub struct Fleet {
    key: u64,
    pub devices: u32,
    users: u64,
    product_of: [u8; 256],
    country_of: Box<[u8; QUANTILES]>,
    activation_of: Vec<u16>,
    lifetime_of: Vec<u16>,
}

/// When a device does what; days count from the fleet's first.
pub struct Life {
    /// Random bits that are the device's own.
    pub hash: u64,
    pub product: usize,
    pub activation: u32,
    /// The activation event itself was lost.
    pub activation_lost: bool,
    /// First day without it.
    end: u32,
    /// From when on it is there again.
    back: u32,
    /// The day of a second activation, after a reset.
    pub reset: u32,
    pub withdrawal: u32,
    /// From when on it is allowed again.
    pub grant: u32,
    /// Consent is asked for when it is set up.
    pub grants_at_activation: bool,
    /// Of 65,536.
    daily: u32,
    pub consent: Consent,
}

/// What a device says that its user consented to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consent {
    Current,
    /// With a purpose besides analytics.
    Wide,
    /// Of a policy that no longer counts.
    Old,
    /// For another purpose only.
    OtherPurpose,
    /// Says nothing.
    None,
}

impl Fleet {
    pub fn new(spec: &FleetSpec) -> Self {
        let mut product_of = [0; 256];
        let mut at = 0;
        for (index, product) in PRODUCTS.iter().enumerate() {
            product_of[at..at + product.share as usize].fill(index as u8);
            at += product.share as usize;
        }
        let mut country_of = Box::new([0; QUANTILES]);
        let total: f64 = (1..=COUNTRIES.len()).map(|rank| 1.0 / rank as f64).sum();
        let (mut rank, mut until) = (0, 1.0 / total);
        for (slot, country) in country_of.iter_mut().enumerate() {
            while slot as f64 / QUANTILES as f64 >= until && rank + 1 < COUNTRIES.len() {
                rank += 1;
                until += 1.0 / (rank + 1) as f64 / total;
            }
            *country = rank as u8;
        }
        let quantile = |slot: usize| (slot as f64 + 0.5) / QUANTILES as f64;
        let of_days = |share: f64| (share * f64::from(spec.days)) as u16;
        let monthly = 30.0 / -MONTHLY_SURVIVAL.ln();
        Self {
            key: mix(spec.seed),
            devices: spec.devices as u32,
            users: spec.users,
            product_of,
            country_of,
            // More in the first weeks than later.
            activation_of: (0..QUANTILES).map(|slot| of_days(quantile(slot) * quantile(slot).sqrt())).collect(),
            lifetime_of: (0..QUANTILES).map(|slot| (-quantile(slot).ln() * monthly).min(30_000.0) as u16 + 1).collect(),
        }
    }

    /// Random bits for one event.
    pub const fn event_hash(&self, device_hash: u64, identity: u64) -> u64 {
        mix(device_hash ^ identity.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    pub fn life(&self, device: u32) -> Life {
        let hash = mix(self.key ^ (u64::from(device) << 20));
        let (when, rare) = (mix(hash ^ 1), mix(hash ^ 2));
        let product_index = usize::from(self.product_of[(hash & 0xff) as usize]);
        let product = &PRODUCTS[product_index];
        let activation = u32::from(self.activation_of[(when & 0xfff) as usize]);
        let lifetime = u32::from(self.lifetime_of[(when >> 12 & 0xfff) as usize]) * product.lasting / 16;
        let end = activation + lifetime.max(1);
        // The keenest owner is five times as keen as the least.
        let daily = product.daily * (40 + (when >> 24 & 0xff) as u32 * 176 / 256);
        let withdraws = rare & 0xff == 0;
        let withdrawal = if withdraws { activation + 5 + (rare >> 8 & 0x1f) as u32 } else { NEVER };
        let regrets = withdraws && rare >> 13 & 3 == 0;
        Life {
            hash,
            product: product_index,
            activation,
            activation_lost: rare >> 20 & 0x3f == 0,
            end,
            back: if when >> 40 & 0xf == 0 { end + 35 + (when >> 44 & 0x3f) as u32 } else { NEVER },
            reset: if rare >> 26 & 0x7f == 0 { activation + 10 + (rare >> 33 & 0x3f) as u32 } else { NEVER },
            withdrawal,
            grant: if regrets { withdrawal + 4 + (rare >> 15 & 0xf) as u32 } else { NEVER },
            grants_at_activation: rare >> 56 & 0x3f == 0,
            daily,
            consent: match rare >> 48 & 0xff {
                0..=6 => Consent::Old,
                7..=9 => Consent::None,
                10 => Consent::OtherPurpose,
                11..=60 => Consent::Wide,
                _ => Consent::Current,
            },
        }
    }

    pub fn country(&self, life: &Life, day: u32) -> Option<&'static str> {
        let bits = mix(life.hash ^ 3);
        // One of 512 does not know where it is; one of 64 moves, in the middle of a month as a rule.
        if bits >> 24 & 0x1ff == 0 {
            return None;
        }
        let moves = bits >> 33 & 0x3f == 0;
        let moved = moves && day >= life.activation + 3 + (bits >> 39 & 0x1f) as u32;
        let slot = if moved { bits >> 12 } else { bits } & 0xfff;
        Some(COUNTRIES[usize::from(self.country_of[slot as usize])])
    }

    /// Who used the device for an event with these bits: three of five devices
    /// have an owner, one of eight of those is shared by up to four.
    pub const fn user(&self, life: &Life, event_bits: u64) -> Option<u64> {
        let bits = mix(life.hash ^ 4);
        if self.users == 0 || bits & 0xff >= 154 {
            return None;
        }
        // Nobody was signed in.
        if event_bits & 0xf == 0 {
            return None;
        }
        let shared = (bits >> 8) & 7 == 0;
        let member = if shared { (event_bits >> 4) & 0x3 } else { 0 };
        Some(((mix(bits ^ member) >> 32) * self.users) >> 32)
    }
}

impl Life {
    /// Whether the device is in use at all on that day.
    pub const fn is_there(&self, day: u32) -> bool {
        day >= self.activation && (day < self.end || day >= self.back)
    }
    /// Whether it may still send: until a few events after a withdrawal, and again from a grant on.
    pub const fn may_send(&self, day: u32) -> bool {
        self.withdrawal == NEVER || day <= self.withdrawal + 1 || day >= self.grant
    }
    /// Whether it is active, by 16 random bits. Weekends are busier.
    pub const fn is_active(&self, day: u32, weekend: bool, bits: u64) -> bool {
        let daily = if weekend { self.daily + self.daily / 8 } else { self.daily };
        self.is_there(day) && self.may_send(day) && (day == self.activation || (bits & 0xffff) < daily as u64)
    }
    /// Whether anything can happen on that day; quick.
    pub const fn is_quiet(&self, day: u32) -> bool {
        !self.is_there(day) && day != self.withdrawal && day != self.grant && day != self.reset
    }
}
