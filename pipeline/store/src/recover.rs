//! After a crash: roll-ups that did not come to pass are made from events.

use std::collections::BTreeSet;

use ameles_core::Month;
use ameles_schemas::Table;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hashbrown::HashSet;

use crate::append::{batch_of, derived_tables};
use crate::names::{Origin, Source};
use crate::rewrite::round_app;
use crate::{DataFile, Maintainer, Rewrite, Snapshot, StoreError, Warehouse};

/// Runs of `events` whose roll-up to a table has not been committed, or may not have been.
pub(crate) fn not_rolled_up<'a>(snapshot: &'a Snapshot, table: Table) -> Vec<&'a DataFile> {
    let there: HashSet<(Month, Source<'_>)> = snapshot.files(table).iter().map(|file| (file.month, file.origin.source())).collect();
    let missing = |file: &&'a DataFile| {
        let is_due = match file.origin {
            Origin::Run { .. } => file.rolled_up.contains(&table),
            // What it gave may be nothing; only an interrupted rewrite leaves that open.
            Origin::Settled { .. } | Origin::Merged { .. } => {
                let app = round_app(file.month);
                snapshot.txn(table, &app) != snapshot.txn(Table::Events, &app)
            }
        };
        is_due && !there.contains(&(file.month, file.origin.source()))
    };
    snapshot.files(Table::Events).iter().filter(missing).collect()
}

impl Maintainer {
    /// Brings activity, links and devices in line with events where a process died in between. Safe to repeat.
    ///
    /// # Errors
    /// When storage fails.
    pub fn recover<'a>(&'a mut self) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let snapshot = self.warehouse.snapshot().await?;
            for month in months_out_of_line(&self.warehouse, &snapshot)? {
                tracing::info!(%month, "making a month's roll-up anew after a crash");
                self.rewrite_month(month, &Rewrite::default(), &|_| {}).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

fn months_out_of_line(warehouse: &Warehouse, snapshot: &Snapshot) -> Result<BTreeSet<Month>, StoreError> {
    let mut months = BTreeSet::new();
    for table in derived_tables(warehouse.tables()) {
        let all: BTreeSet<Month> = snapshot.months(Table::Events).union(&snapshot.months(table)).copied().collect();
        months.extend(
            all.into_iter().filter(|month| snapshot.txn(table, &round_app(*month)) != snapshot.txn(Table::Events, &round_app(*month))),
        );
        for file in not_rolled_up(snapshot, table) {
            // A living writer is about to commit it.
            if let Some((lease, _)) = batch_of(&file.origin)
                && warehouse.is_dead(lease)?
            {
                months.insert(file.month);
            }
        }
    }
    Ok(months)
}
