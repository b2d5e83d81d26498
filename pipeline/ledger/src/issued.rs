//! What was issued about closed months: kept so that an answer from before a change and one from
//! after it cannot be subtracted. What may be issued anew the caller decides; here it is kept,
//! sealed, and nobody overwrites what he has not seen.

use std::collections::{BTreeMap, BTreeSet};

use ameles_core::Month;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ring::hmac;
use sqlx::Row as _;

use crate::error::Doing as _;
use crate::keys::{open, seal};
use crate::write::Write;
use crate::{Ledger, LedgerError};

/// The largest month of a series before it is compressed, in bytes.
const BODY_BYTES_MAX: u32 = 256 << 20;
const ZSTD_LEVEL: i32 = 3;

/// A month of a series as it was issued last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedMonth {
    /// The month.
    pub month: Month,
    /// The caller's own bytes; they hold no pseudonym.
    pub body: Vec<u8>,
}

/// What has been issued, at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    /// Moves whenever something is issued, by whomever.
    pub turn: i64,
    /// The series' months.
    pub months: Vec<IssuedMonth>,
    /// For each month about which anything was issued, in any series: how many devices were active in it then.
    pub marks: BTreeMap<Month, BTreeSet<u64>>,
}

/// What is about to be issued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issue {
    /// The turn at which it was decided.
    pub turn: i64,
    /// The series' months that are new or have changed.
    pub months: Vec<IssuedMonth>,
    /// Months that its rows rest on, with the devices active in them.
    pub marks: Vec<(Month, u64)>,
}

impl Ledger {
    /// What was issued in a series, in the months from the first to the last, and the marks of all months. `series`
    /// is the question in words; it may hold what somebody typed, and is only hashed.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn issued<'a>(&'a self, series: &'a str, months: (Month, Month)) -> BoxFuture<'a, Result<Issued, LedgerError>> {
        async move {
            const DOING: &str = "read what was issued";
            let mut tx = self.inner.pool.begin().await.doing(DOING)?;
            let turn = sqlx::query_scalar("SELECT turn FROM issues").fetch_one(&mut *tx).await.doing(DOING)?;
            let name = self.series_name(series);
            let rows = sqlx::query("SELECT month, sealed FROM issued WHERE series = ? AND month BETWEEN ? AND ? ORDER BY month")
                .bind(&name[..])
                .bind(months.0.epoch_months())
                .bind(months.1.epoch_months())
                .fetch_all(&mut *tx)
                .await
                .doing(DOING)?;
            let marked = sqlx::query("SELECT month, devices FROM issued_marks").fetch_all(&mut *tx).await.doing(DOING)?;
            drop(tx);
            let mut issued = Issued { turn, ..Issued::default() };
            for row in &rows {
                let month = month_of(row.try_get(0).doing(DOING)?)?;
                let sealed: &[u8] = row.try_get(1).doing(DOING)?;
                let packed = open(&self.inner.keys.issued_seal, sealed, &place(&name, month));
                let packed = packed.ok_or(LedgerError::Damaged("rows that were issued do not open"))?;
                issued.months.push(IssuedMonth { month, body: unpack(&packed)? });
            }
            for row in &marked {
                let devices: i64 = row.try_get(1).doing(DOING)?;
                issued.marks.entry(month_of(row.try_get(0).doing(DOING)?)?).or_default().insert(devices.max(0) as u64);
            }
            Ok(issued)
        }
        .boxed()
    }

    /// Keeps what is about to be issued; on disk when this returns. False, and nothing kept, where somebody has issued
    /// something since `issue.turn`: decide again.
    ///
    /// # Errors
    /// When it would take more than `bytes_max` in all, or the ledger cannot be written.
    pub fn issue<'a>(&'a self, series: &'a str, issue: &'a Issue, bytes_max: u64) -> BoxFuture<'a, Result<bool, LedgerError>> {
        async move {
            const DOING: &str = "keep what is issued";
            let name = self.series_name(series);
            let mut sealed = Vec::with_capacity(issue.months.len());
            for IssuedMonth { month, body } in &issue.months {
                sealed.push((month, seal(&self.inner.keys.issued_seal, &pack(body)?, &place(&name, *month), &*self.inner.random)?));
            }
            let mut write = Write::begin_plain(&self.inner).await?;
            let row = sqlx::query("SELECT turn, bytes FROM issues").fetch_one(&mut *write.tx).await.doing(DOING)?;
            let (turn, mut bytes): (i64, i64) = (row.try_get(0).doing(DOING)?, row.try_get(1).doing(DOING)?);
            if turn != issue.turn {
                return Ok(false);
            }
            let before = bytes;
            for (month, sealed) in sealed {
                let old: Option<i64> = sqlx::query_scalar("SELECT length(sealed) FROM issued WHERE series = ? AND month = ?")
                    .bind(&name[..])
                    .bind(month.epoch_months())
                    .fetch_optional(&mut *write.tx)
                    .await
                    .doing(DOING)?;
                bytes += sealed.len() as i64 - old.unwrap_or(0);
                sqlx::query("INSERT INTO issued (series, month, sealed) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET sealed = ?3")
                    .bind(&name[..])
                    .bind(month.epoch_months())
                    .bind(sealed)
                    .execute(&mut *write.tx)
                    .await
                    .doing(DOING)?;
            }
            if bytes > before && u64::try_from(bytes).unwrap_or(0) > bytes_max {
                return Err(LedgerError::IssuedFull { mib_max: bytes_max >> 20 });
            }
            for (month, devices) in &issue.marks {
                sqlx::query("INSERT INTO issued_marks (month, devices) VALUES (?, ?) ON CONFLICT DO NOTHING")
                    .bind(month.epoch_months())
                    .bind(i64::try_from(*devices).unwrap_or(i64::MAX))
                    .execute(&mut *write.tx)
                    .await
                    .doing(DOING)?;
            }
            sqlx::query("UPDATE issues SET turn = turn + 1, bytes = ?").bind(bytes).execute(&mut *write.tx).await.doing(DOING)?;
            write.commit().await?;
            Ok(true)
        }
        .boxed()
    }

    fn series_name(&self, series: &str) -> [u8; 16] {
        let tag = hmac::sign(&self.inner.keys.issued_name, series.as_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&tag.as_ref()[..16]);
        name
    }
}

/// The length, then the bytes compressed.
fn pack(body: &[u8]) -> Result<Vec<u8>, LedgerError> {
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= BODY_BYTES_MAX);
    let length = length.ok_or(LedgerError::Damaged("rows of one month are too many to be kept"))?;
    let packed = zstd::bulk::compress(body, ZSTD_LEVEL).map_err(|_| LedgerError::Damaged("rows cannot be compressed"))?;
    Ok([&length.to_be_bytes()[..], &packed].concat())
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, LedgerError> {
    const DAMAGED: LedgerError = LedgerError::Damaged("rows that were issued do not decompress");
    let (length, packed) = packed.split_first_chunk().ok_or(DAMAGED)?;
    let length = u32::from_be_bytes(*length).min(BODY_BYTES_MAX);
    zstd::bulk::decompress(packed, length as usize).map_err(|_| DAMAGED)
}

/// Binds a seal to its row.
fn place(name: &[u8; 16], month: Month) -> Vec<u8> {
    [&name[..], &month.epoch_months().to_be_bytes()].concat()
}

fn month_of(stored: i64) -> Result<Month, LedgerError> {
    i32::try_from(stored).map(Month::from_epoch_months).map_err(|_| LedgerError::Damaged("a month that was issued is none"))
}
