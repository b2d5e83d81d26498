//! Types and arithmetic that every part of Ameles shares; no I/O.
//!
//! A pseudonym knows its domain, a month is not a string, time and randomness
//! are injected. See `ARCHITECTURE.md` for the invariants these types carry.

mod calendar;
mod clock;
mod daybits;
mod ids;
mod limits;
mod random;
mod rejection;
mod sha256;
#[cfg(target_arch = "x86_64")]
pub mod side_by_side;
#[cfg(target_arch = "x86_64")]
mod sixteen;
mod suppression;

pub use calendar::{CalendarError, Day, Grain, Month, Timestamp};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use daybits::{DayBits, window_mask};
pub use ids::{Device, DeviceId, Domain, EventKey, IdError, Pseudonym, Subject, SubjectKind, User, UserId};
pub use limits::Limits;
pub use random::{Random, RandomUnavailable, SeededRandom, SharedRandom, SystemRandom};
pub use rejection::{Reason, Tally};
pub use sha256::{SHA256_INITIAL, sha256, sha256_pair};
pub use suppression::{SuppressedSubject, SuppressionEntry, SuppressionSet, SuppressionSource, SuppressionUnavailable};
