//! The loop: plan a day, order what arrives on it, write it out.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use super::bad::BadLine;
use super::fleet::Fleet;
use super::plan::{DAY_MS, DELAY_DAYS_MAX, Kind, Planner, Record};
use super::render::Renderer;
use super::rng::{Chance, Rng, mix};
use super::spec::FleetSpec;

/// Lines are handed on in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All lines, empty ones included.
    pub lines: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// Events sent for the first time.
    pub events: u64,
    /// Events sent again.
    pub duplicates: u64,
    /// Grants and withdrawals among `events`.
    pub consents: u64,
    /// Events that arrived an hour or more after they happened, repeats included.
    pub late: u64,
    /// Bad lines by kind.
    pub bad: BTreeMap<BadLine, u64>,
}

/// Takes the lines, each with the number of the stream that it belongs to.
pub trait Sink {
    /// Lines of one stream, complete.
    fn piece(&mut self, stream: usize, bytes: &[u8]) -> io::Result<()>;
}

struct One<'a>(&'a mut dyn Write);

impl Sink for One<'_> {
    fn piece(&mut self, _: usize, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

/// Writes a fleet's events as NDJSON in order of arrival.
///
/// Takes memory for the events of about one day, 32 bytes each.
///
/// # Errors
/// When the specification is unusable (`InvalidInput`) or `out` fails.
pub fn write(spec: &FleetSpec, out: &mut dyn Write) -> io::Result<Summary> {
    let summary = write_streams(spec, 1, &mut One(out))?;
    out.flush()?;
    Ok(summary)
}

/// Writes a fleet's events to several streams, each in order of arrival. A
/// device keeps to one stream, but for one of four repeats, as when a producer
/// restarts with another partitioning.
///
/// # Errors
/// When the specification is unusable (`InvalidInput`) or the sink fails.
pub fn write_streams(spec: &FleetSpec, streams: usize, sink: &mut dyn Sink) -> io::Result<Summary> {
    if let Some(fault) = spec.fault() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, fault));
    }
    let fleet = Fleet::new(spec);
    let planner = Planner::new(&fleet, spec);
    let mut lines = Lines {
        renderer: Renderer::new(&fleet, spec),
        sink,
        buffers: (0..streams.max(1)).map(|_| Vec::with_capacity(PIECE_BYTES + 4_096)).collect(),
        limit: spec.events_limit.unwrap_or(u64::MAX),
        bad: Chance::new(spec.bad_line_rate),
        huge_left: spec.huge_line,
        rng: Rng::new(mix(spec.seed ^ 0x6261_6421)),
        good: Vec::new(),
        summary: Summary::default(),
    };
    // The arrivals of the day at hand and of the few after it.
    let mut days: VecDeque<Vec<Record>> = (0..=DELAY_DAYS_MAX).map(|_| Vec::new()).collect();
    for day in 0..spec.days + DELAY_DAYS_MAX as u32 {
        if day < spec.days {
            let start = planner.day_start(day);
            for device in 0..fleet.devices {
                planner.plan(device, day, |record| {
                    let ahead = ((record.arrival - start) / DAY_MS) as usize;
                    days[ahead.min(DELAY_DAYS_MAX)].push(record);
                });
            }
        }
        let Some(mut arrivals) = days.pop_front() else { break };
        arrivals.sort_unstable_by_key(Record::order);
        for record in &arrivals {
            if !lines.write(record)? {
                return lines.finish();
            }
        }
        // Not the used one: each bucket would keep a whole day's memory.
        days.push_back(Vec::new());
    }
    lines.finish()
}

/// How many lines a fleet of these rates gives for each device, roughly: so
/// that a fleet can be made for a number of events.
pub fn lines_per_device(spec: &FleetSpec) -> f64 {
    const SAMPLE: u64 = 2_000;
    let sample = FleetSpec { devices: SAMPLE, ..spec.clone() };
    let fleet = Fleet::new(&sample);
    let planner = Planner::new(&fleet, &sample);
    let mut lines = 0_u64;
    for device in 0..fleet.devices {
        for day in 0..sample.days {
            planner.plan(device, day, |_| lines += 1);
        }
    }
    lines as f64 / SAMPLE as f64
}

struct Lines<'a> {
    renderer: Renderer<'a>,
    sink: &'a mut dyn Sink,
    buffers: Vec<Vec<u8>>,
    limit: u64,
    bad: Chance,
    huge_left: bool,
    rng: Rng,
    good: Vec<u8>,
    summary: Summary,
}

impl Lines<'_> {
    /// Whether more lines are wanted.
    fn write(&mut self, record: &Record) -> io::Result<bool> {
        if self.summary.lines >= self.limit {
            return Ok(false);
        }
        let stream = self.stream(record);
        let buffer = &mut self.buffers[stream];
        self.renderer.event(record, buffer);
        buffer.push(b'\n');
        self.summary.lines += 1;
        if record.repeated {
            self.summary.duplicates += 1;
        } else {
            self.summary.events += 1;
            self.summary.consents += u64::from(matches!(record.kind, Kind::ConsentGranted | Kind::ConsentWithdrawn));
        }
        self.summary.late += u64::from(record.arrival - record.at >= 3_600_000);
        if self.huge_left {
            self.huge_left = false;
            self.write_bad(BadLine::Huge, record, stream);
        }
        if self.rng.chance(self.bad) {
            let number = self.summary.bad.iter().filter(|(kind, _)| **kind != BadLine::Huge).map(|(_, count)| count).sum();
            self.write_bad(BadLine::nth(number), record, stream);
        }
        if self.buffers[stream].len() >= PIECE_BYTES {
            self.hand_on(stream)?;
        }
        Ok(true)
    }

    fn write_bad(&mut self, kind: BadLine, record: &Record, stream: usize) {
        if self.summary.lines >= self.limit {
            return;
        }
        self.good.clear();
        self.renderer.event(record, &mut self.good);
        kind.write(&self.good, self.summary.lines, &mut self.buffers[stream]);
        self.buffers[stream].push(b'\n');
        self.summary.lines += 1;
        *self.summary.bad.entry(kind).or_default() += 1;
    }

    fn stream(&self, record: &Record) -> usize {
        let streams = self.buffers.len() as u64;
        if streams == 1 {
            return 0;
        }
        let strayed = record.repeated && mix(record.identity()) & 3 == 0;
        ((mix(u64::from(record.device)) + u64::from(strayed)) % streams) as usize
    }

    fn hand_on(&mut self, stream: usize) -> io::Result<()> {
        let buffer = &mut self.buffers[stream];
        self.summary.bytes += buffer.len() as u64;
        self.sink.piece(stream, buffer)?;
        buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Summary> {
        for stream in 0..self.buffers.len() {
            self.hand_on(stream)?;
        }
        Ok(self.summary)
    }
}
