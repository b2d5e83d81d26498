//! Whom and what an erasure touches.

use std::collections::BTreeSet;

use ameles_core::{DeviceId, Month, SuppressionSet};
use hashbrown::HashSet;

use crate::{StoreError, Warehouse};

/// What the erasure of some subjects touches.
#[derive(Clone, Debug, Default)]
pub struct Affected {
    /// Devices of which some row goes: the subjects themselves and the devices of the users among them.
    pub devices: HashSet<DeviceId>,
    /// Devices where no user but erased ones was ever seen: their events without a user go as well.
    pub userless_devices: HashSet<DeviceId>,
    /// Months with rows of those devices.
    pub months: BTreeSet<Month>,
    /// Users who are not erased but whose events go with an erased device.
    pub other_users: u64,
    /// Rows of `events` that go.
    pub rows: u64,
}

/// Finds what the erasure of `suppressions`' subjects touches.
///
/// # Errors
/// When storage fails.
pub async fn affected(warehouse: &Warehouse, suppressions: &SuppressionSet) -> Result<Affected, StoreError> {
    unimplemented!()
}
