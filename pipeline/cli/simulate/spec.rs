//! What fleet to simulate.

use ameles_core::Day;

/// A synthetic fleet. The same specification gives the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSpec {
    /// How many devices there are.
    pub devices: u64,
    /// How many users there are; 0 for none at all.
    pub users: u64,
    /// The first day.
    pub from: Day,
    /// How many days.
    pub days: u32,
    /// Everything random follows from it.
    pub seed: u64,
    /// Stop after so many lines.
    pub events_limit: Option<u64>,
    /// Share of events that are sent twice.
    pub duplicate_rate: f64,
    /// Share of events that arrive hours to days late.
    pub late_rate: f64,
    /// Share of events with fields that the contract does not declare.
    pub undeclared_rate: f64,
    /// Bad lines for each good one: every kind in turn.
    pub bad_line_rate: f64,
    /// One line of 10 MB among the bad ones.
    pub huge_line: bool,
}

/// Devices are numbered in 32 bits.
pub const DEVICES_MAX: u64 = u32::MAX as u64;
/// Ten years.
pub const DAYS_MAX: u32 = 3_660;
/// The user ids of the format have ten digits.
pub const USERS_MAX: u64 = 9_000_000_000;

impl Default for FleetSpec {
    /// About ten million events of 253,000 devices in 92 days.
    fn default() -> Self {
        Self::of(253_000)
    }
}

impl FleetSpec {
    /// A fleet of `devices` over the default 92 days, all lines good.
    pub fn of(devices: u64) -> Self {
        Self {
            devices,
            users: devices * 6 / 10,
            // 2018-07-01
            from: Day::from_epoch_days(17_713),
            days: 92,
            seed: 1,
            events_limit: None,
            duplicate_rate: 0.005,
            late_rate: 0.01,
            undeclared_rate: 0.002,
            bad_line_rate: 0.0,
            huge_line: false,
        }
    }

    /// What makes the specification unusable, if anything.
    pub fn fault(&self) -> Option<String> {
        if self.devices == 0 || self.devices > DEVICES_MAX {
            return Some(format!("a fleet has 1 to {DEVICES_MAX} devices, not {}", self.devices));
        }
        if self.days == 0 || self.days > DAYS_MAX {
            return Some(format!("a fleet runs for 1 to {DAYS_MAX} days, not {}", self.days));
        }
        if self.users > USERS_MAX {
            return Some(format!("a fleet has at most {USERS_MAX} users, not {}", self.users));
        }
        let last_year = self.from.plus(self.days as i32 + 10).to_string();
        if self.from.epoch_days() < 0 || last_year.len() != 10 {
            return Some(format!("a fleet starts between 1970 and 9989, not on {}", self.from));
        }
        None
    }
}
