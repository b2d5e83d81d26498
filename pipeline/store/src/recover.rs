//! After a crash: roll-ups that did not come to pass are made from events.

use crate::{Maintainer, StoreError};

impl Maintainer {
    /// Brings activity, links and devices in line with events where a process died in between. Safe to repeat.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn recover(&mut self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
