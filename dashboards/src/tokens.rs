//! Tokens, looked up once for all requests that ask at the same moment.
//!
//! Nothing is remembered: a lookup begins after each request that it answers
//! has come, so that a token that was revoked before is refused.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ameles_ledger::{Ledger, LedgerError, Principal};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use ring::digest::{SHA256, digest};
use tokio::time::{Instant, sleep_until};

/// Time between two lookups of one token: a request that comes in between waits for the next.
const PACE: Duration = Duration::from_millis(2);
/// Tokens that are kept track of before those that nobody waits for are forgotten.
const SLOTS_MAX: usize = 1_024;

type Outcome = Result<Option<Principal>, Arc<LedgerError>>;
type Lookup = BoxFuture<'static, Outcome>;

/// One token's lookups.
struct Slot {
    /// When the last one began.
    begun: Instant,
    /// The one that has not begun; it ends with the last request that waits for it.
    next: Option<WeakShared<Lookup>>,
}

impl Slot {
    fn next(&self) -> Option<Shared<Lookup>> {
        self.next.as_ref().and_then(WeakShared::upgrade)
    }
}

/// By the hash of the token. A request at a time is what the map grows by, and it forgets.
type Slots = HashMap<[u8; 32], Slot>;

/// Looks tokens up.
#[derive(Default)]
pub(crate) struct TokenDesk {
    slots: Arc<Mutex<Slots>>,
}

impl fmt::Debug for TokenDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenDesk").finish_non_exhaustive()
    }
}

impl TokenDesk {
    /// Whose token it is, as [`Ledger::verify_token`] says.
    pub(crate) async fn verify(&self, ledger: &Ledger, secret: &str) -> Outcome {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        self.lookup(ledger, secret, key).await
    }

    fn lookup(&self, ledger: &Ledger, secret: &str, key: [u8; 32]) -> Shared<Lookup> {
        let mut slots = locked(&self.slots);
        if let Some(waiting) = slots.get(&key).and_then(Slot::next) {
            return waiting;
        }
        let now = Instant::now();
        if slots.len() >= SLOTS_MAX {
            slots.retain(|_, slot| slot.begun + PACE > now || slot.next().is_some());
        }
        let due = slots.get(&key).map(|slot| slot.begun + PACE);
        let (slots_later, ledger, secret) = (Arc::clone(&self.slots), ledger.clone(), secret.to_owned());
        let lookup = async move {
            if let Some(due) = due.filter(|due| *due > Instant::now()) {
                sleep_until(due).await;
            }
            // Whoever comes from here on begins another.
            locked(&slots_later).insert(key, Slot { begun: Instant::now(), next: None });
            ledger.verify_token(&secret).await.map_err(Arc::new)
        };
        let lookup = lookup.boxed().shared();
        let begun = due.map_or(now, |due| due - PACE);
        slots.insert(key, Slot { begun, next: lookup.downgrade() });
        lookup
    }
}

fn locked(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}
