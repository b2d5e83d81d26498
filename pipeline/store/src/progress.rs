//! Work in a thread of its own that tells how far it has come.
//!
//! Only the latest count is kept between the two: a slow listener holds nothing
//! up, and no queue grows.

use tokio::sync::watch;

use crate::StoreError;

/// What the work counts on.
pub(crate) struct Counter(watch::Sender<u64>);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.send_modify(|total| *total += count);
    }
}

/// Runs `work` where it may block; `told` hears how much was counted since it heard last.
pub(crate) async fn counted<T: Send + 'static>(
    work: impl FnOnce(Counter) -> Result<T, StoreError> + Send + 'static,
    told: &(dyn Fn(u64) + Send + Sync),
) -> Result<T, StoreError> {
    let (sender, mut total) = watch::channel(0);
    let running = tokio::task::spawn_blocking(move || work(Counter(sender)));
    let mut heard = 0;
    // Ends when the work has dropped its counter, after the last count was heard.
    while total.changed().await.is_ok() {
        let now = *total.borrow_and_update();
        told(now - heard);
        heard = now;
    }
    running.await?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn all_that_is_counted_is_told_though_not_each_count() {
        let total = AtomicU64::new(0);
        let work = |counter: Counter| {
            (0..100_000).for_each(|_| counter.add(3));
            Ok("done")
        };
        let add = |count| {
            assert!(count > 0);
            total.fetch_add(count, Ordering::Relaxed);
        };
        assert_eq!(counted(work, &add).await.unwrap(), "done");
        assert_eq!(total.load(Ordering::Relaxed), 300_000);
        counted(|_| Ok(()), &|_| panic!("nothing was counted")).await.unwrap();
    }
}
