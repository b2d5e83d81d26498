//! Events as bytes, by hand: a generator must not be slower than what it feeds.

use ameles_core::Day;

use super::fleet::{Consent, Fleet, Life, PRODUCTS};
use super::plan::{DAY_MS, Kind, Record};
use super::rng::{Chance, Rng, mix};
use super::spec::FleetSpec;

const ROOMS: [&str; 8] = ["kitchen", "living room", "bedroom", "office", "hall", "küche", "salón", "garage"];
const OUIS: [&str; 8] = ["38:a7:51", "0c:4d:e9", "a4:77:33", "f0:b4:29", "18:b4:30", "d8:31:34", "50:dc:e7", "b8:27:eb"];
const HEX: &[u8; 16] = b"0123456789abcdef";
const DEVICE_BASE: u64 = 800_000_000_000;
const USER_BASE: u64 = 900_000_000;
const IDENTITY_BITS: u64 = (1 << 60) - 1;
/// No event is longer.
const EVENT_BYTES_MAX: usize = 1_024;

pub struct Renderer<'a> {
    fleet: &'a Fleet,
    /// `2018-07-01`, for each day of the fleet.
    dates: Vec<[u8; 10]>,
    undeclared: Chance,
    key: u64,
}

impl<'a> Renderer<'a> {
    pub fn new(fleet: &'a Fleet, spec: &FleetSpec) -> Self {
        let dates = (0..spec.days as i32).map(|day| date(spec.from.plus(day))).collect();
        Self { fleet, dates, undeclared: Chance::new(spec.undeclared_rate), key: mix(spec.seed ^ 0x6964) }
    }

    /// Appends the event's line, without its end. The same record gives the same bytes.
    pub fn event(&self, record: &Record, out: &mut Vec<u8>) {
        out.reserve(EVENT_BYTES_MAX);
        let life = self.fleet.life(record.device);
        let event = self.fleet.event_hash(life.hash, record.identity());
        let day = u32::from(record.day);
        out.extend_from_slice(b"{\"event_id\":\"");
        self.event_id(record, event, out);
        out.extend_from_slice(b"\",\"device_id\":\"");
        digits::<12>(DEVICE_BASE + u64::from(record.device), out);
        if let Some(user) = self.fleet.user(&life, event) {
            out.extend_from_slice(b"\",\"user_id\":\"u");
            digits::<10>(USER_BASE + user, out);
        } else if event >> 8 & 7 == 0 {
            out.extend_from_slice(b"\",\"user_id\":null,\"type\":\"");
            return self.after_user(record, &life, event, day, out);
        }
        out.extend_from_slice(b"\",\"type\":\"");
        self.after_user(record, &life, event, day, out);
    }

    fn after_user(&self, record: &Record, life: &Life, event: u64, day: u32, out: &mut Vec<u8>) {
        let own = mix(life.hash ^ 6);
        out.extend_from_slice(record.kind.name().as_bytes());
        out.extend_from_slice(b"\",\"ts\":\"");
        out.extend_from_slice(&self.dates[usize::from(record.day)]);
        time(record.at.rem_euclid(DAY_MS) as u32, out);
        out.extend_from_slice(b"\",\"product\":\"");
        out.extend_from_slice(PRODUCTS[life.product].name.as_bytes());
        out.extend_from_slice(b"\",\"model\":\"m");
        // 40 models a product, the first ones more often; 200 partners likewise.
        digits::<4>(1 + life.product as u64 * 40 + skewed(own, 40), out);
        out.extend_from_slice(b"\",\"partner\":\"p");
        digits::<3>(1 + skewed(own >> 16, 200), out);
        if let Some(country) = self.fleet.country(life, day) {
            out.extend_from_slice(b"\",\"country\":\"");
            out.extend_from_slice(country.as_bytes());
        }
        out.extend_from_slice(b"\",\"firmware\":\"1.");
        number(1 + (u64::from(day) + (own >> 32 & 0x1f)) / 45, out);
        out.push(b'.');
        number(own >> 37 & 0x1f, out);
        out.push(b'"');
        consent(record.kind, life, out);
        out.extend_from_slice(b",\"ip\":\"203.0.");
        number(own >> 42 & 0xff, out);
        out.push(b'.');
        number(event >> 16 & 0xff, out);
        out.extend_from_slice(b"\",\"mac\":\"");
        out.extend_from_slice(OUIS[(own >> 50 & 7) as usize].as_bytes());
        for shift in [24, 32, 40] {
            out.extend_from_slice(&[b':', HEX[(life.hash >> (shift + 4) & 0xf) as usize], HEX[(life.hash >> shift & 0xf) as usize]]);
        }
        out.push(b'"');
        let room = ROOMS[(own >> 53 & 7) as usize];
        match record.kind {
            Kind::Wake => {
                out.extend_from_slice(b",\"props\":{\"latency_ms\":");
                number(180 + skewed(event >> 24, 1_800), out);
                out.extend_from_slice(b",\"room\":\"");
                out.extend_from_slice(room.as_bytes());
                out.extend_from_slice(b"\"}");
            }
            Kind::Control => {
                out.extend_from_slice(b",\"props\":{\"room\":\"");
                out.extend_from_slice(room.as_bytes());
                out.extend_from_slice(b"\"}");
            }
            Kind::Heartbeat if event >> 44 & 1 == 0 => out.extend_from_slice(b",\"props\":{}"),
            _ => {}
        }
        if Rng::new(event).chance(self.undeclared) {
            out.extend_from_slice(b",\"battery\":");
            number(event >> 45 & 0x3f, out);
            // A careless firmware: the key itself is an identifier.
            if event >> 51 & 3 == 0 {
                out.extend_from_slice(b",\"session-");
                digits::<12>(DEVICE_BASE + u64::from(record.device), out);
                out.extend_from_slice(b"\":true");
            }
        }
        out.push(b'}');
    }

    /// In a UUID's form: 60 random bits, then the event's identity, scrambled
    /// one-to-one, so that no two events of the fleet share an id.
    fn event_id(&self, record: &Record, event: u64, out: &mut Vec<u8>) {
        let head = mix(event ^ self.key);
        let mut tail = (record.identity() ^ self.key) & IDENTITY_BITS;
        tail ^= tail >> 31;
        tail = tail.wrapping_mul(0x5851_f42d_4c95_7f2d) & IDENTITY_BITS;
        tail ^= tail >> 29;
        let mut id = *b"00000000-0000-7000-8000-000000000000";
        hex(head >> 32, &mut id[0..8]);
        hex(head >> 16 & 0xffff, &mut id[9..13]);
        hex(head & 0xfff, &mut id[15..18]);
        hex(tail >> 48, &mut id[20..23]);
        hex(tail & 0xffff_ffff_ffff, &mut id[24..36]);
        out.extend_from_slice(&id);
    }
}

fn consent(kind: Kind, life: &Life, out: &mut Vec<u8>) {
    let text: &[u8] = match (kind, life.consent) {
        (Kind::ConsentGranted, _) | (_, Consent::Current) if kind != Kind::ConsentWithdrawn => {
            b",\"consent\":{\"policy\":\"2018-05-25\",\"purposes\":[\"analytics\"]}"
        }
        (Kind::ConsentWithdrawn, _) => b",\"consent\":{\"policy\":\"2018-05-25\",\"purposes\":[]}",
        (_, Consent::Wide) => b",\"consent\":{\"policy\":\"2018-06-15\",\"purposes\":[\"analytics\",\"marketing\"]}",
        (_, Consent::Old) => b",\"consent\":{\"policy\":\"2017-11-01\",\"purposes\":[\"analytics\"]}",
        (_, Consent::OtherPurpose) => b",\"consent\":{\"policy\":\"2018-05-25\",\"purposes\":[\"marketing\"]}",
        _ => b"",
    };
    out.extend_from_slice(text);
}

/// Below `bound`, small ones more often, by 16 random bits.
const fn skewed(bits: u64, bound: u64) -> u64 {
    let bits = bits & 0xffff;
    (bits * bits * bound) >> 32
}

fn hex(mut value: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = HEX[(value & 0xf) as usize];
        value >>= 4;
    }
}

/// Exactly `N` digits.
fn digits<const N: usize>(mut value: u64, out: &mut Vec<u8>) {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text);
}

fn number(value: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let (mut at, mut left) = (text.len(), value);
    loop {
        at -= 1;
        text[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// `T00:33:35.580Z`.
fn time(millis: u32, out: &mut Vec<u8>) {
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let digit = |value: u32| b'0' + value as u8;
    out.extend_from_slice(&[
        b'T',
        digit(hour / 10),
        digit(hour % 10),
        b':',
        digit(minute / 10),
        digit(minute % 10),
        b':',
        digit(second / 10),
        digit(second % 10),
        b'.',
        digit(millis / 100),
        digit(millis / 10 % 10),
        digit(millis % 10),
        b'Z',
    ]);
}

fn date(day: Day) -> [u8; 10] {
    let mut text = *b"0000-00-00";
    let written = day.to_string();
    if written.len() == text.len() {
        text.copy_from_slice(written.as_bytes());
    }
    text
}
