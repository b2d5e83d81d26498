//! The last steps of a run: search what the warehouse keeps, sign, close.

use std::collections::BTreeSet;
use std::collections::hash_map::{Entry, HashMap};

use ameles_core::{Month, Timestamp};
use ameles_ledger::{RequestId, RequestWithSubjects};

#[cfg(doc)]
use crate::certificate::Certificate;
use crate::certificate::{CertifiedClock, CertifiedRequest, FORMAT_VERSION, Found, RemainsElsewhere, SuppressionHorizon, Verification};
use crate::evidence::{SplicedFiles, tables_for};
use crate::record::FoundRecord;
use crate::resolve::Resolved;
use crate::run::{RequestOutcome, Run, RunReport};
use crate::signature::{CertificateError, Signer, canonical};
use crate::verify::{rows_left, search};
use crate::{ErasureError, Step};

const SEARCHED: [&str; 5] = [
    "of the data files that the tables name: each page of the device columns whose range can hold the subject, and the user columns where a user was erased, decoded value by value; indexes and footers byte by byte",
    "every other Parquet file in the warehouse, such as files that no table names, decoded value by value",
    "every Delta log entry and checkpoint",
    "every other file of the warehouse and of the home, byte by byte, for the pseudonym as bytes, hex and base64",
    "for subjects that a later grant has lifted: the rows of events from before it",
];

impl Run<'_> {
    /// Searches all that is kept. Something found ends the run: its requests stay open.
    pub(crate) async fn verify(&mut self, resolved: &Resolved) -> Result<(), ErasureError> {
        self.enter(Step::Verify, "searching all that is kept", 0);
        let scan = search(self.eraser, &resolved.gone_for_good, true, self.progress).await?;
        if let Some(first) = scan.findings.first() {
            return Err(ErasureError::Residue { places: scan.findings.len(), first: format!("{} ({})", first.path, first.what) });
        }
        let mut verification = Verification {
            searched: SEARCHED.iter().map(|text| (*text).to_owned()).collect(),
            files_decoded: scan.files_decoded + scan.files_searched,
            rows_decoded: scan.rows,
            bytes_read: scan.bytes,
            files_excluded_by_index: scan.files_excluded,
            ..Verification::default()
        };
        if !resolved.lifted.is_empty() || !resolved.targets.userless.is_empty() {
            let left = rows_left(self.eraser, resolved.targets.clone(), Some(resolved.devices())).await?;
            if left > 0 {
                return Err(ErasureError::Residue {
                    places: usize::try_from(left).unwrap_or(usize::MAX),
                    first: "events (rows that are covered)".to_owned(),
                });
            }
        }
        verification.at = self.eraser.clock.now();
        self.record.verification = Some(verification);
        self.done(Step::Verify).await
    }

    /// Signs a certificate for each request and closes them all in one transaction.
    pub(crate) async fn certify(&mut self, resolved: &Resolved) -> Result<RunReport, ErasureError> {
        self.enter(Step::Certify, "signing certificates", self.requests.len() as u64);
        let (signed, outcomes) = self.certificates(resolved)?;
        self.done(Step::Certify).await?;
        self.enter(Step::Complete, "closing requests", 0);
        self.eraser.ledger.complete_all(signed).await?;
        self.eraser.faults.passed(Step::Complete)?;
        Ok(self.report(outcomes))
    }

    /// All requests' certificates, signed, and what became of each.
    fn certificates(&self, resolved: &Resolved) -> Result<(Vec<(RequestId, String)>, Vec<RequestOutcome>), ErasureError> {
        let key = self.eraser.keyring.signing_key()?;
        let signer = Signer::new(key.expose())?;
        drop(key);
        let now = self.eraser.clock.now();
        let common = Common { now, shared: self.shared(now)?, spliced: SplicedFiles::new(&self.record) };
        let none = FoundRecord::default();
        let certify = |tables: &mut TablesMade, request: &RequestWithSubjects| -> Result<_, ErasureError> {
            let id = request.request.id.to_string();
            let found = self.record.found.get(&id).unwrap_or(&none);
            let warnings = self.warnings(request, resolved, found, self.record.purged.unwrap_or(now));
            let contents = self.contents_for(request, &id, found, &warnings, &common, tables)?;
            let signed = (request.request.id, signer.sign_contents(&contents)?);
            let rows = found.events.values().sum();
            let outcome = RequestOutcome { id: request.request.id, state: ameles_ledger::RequestState::Completed, rows, warnings };
            self.progress.advance(1);
            Ok((signed, outcome))
        };
        let all = || in_threads(&self.requests, &certify);
        let certified = match tokio::runtime::Handle::current().runtime_flavor() {
            tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(all)?,
            _ => all()?,
        };
        Ok(certified.into_iter().unzip())
    }

    /// The fields of a [`Certificate`] that are the same for all requests of the run.
    fn shared(&self, now: Timestamp) -> Result<[Field; 5], CertificateError> {
        let verification = self.record.verification.clone().unwrap_or_default();
        let suppression = SuppressionHorizon {
            at_least_until: now.plus_days(i64::from(self.eraser.settings.horizon_days)),
            note: "an encrypted entry keeps new and replayed events of the subject out; the time starts again at each event that it drops, and only an explicit grant that is later than the request ends it".to_owned(),
        };
        Ok([
            ("format_version", canonical(&FORMAT_VERSION)?),
            ("issued_by", canonical(&concat!("ameles ", env!("CARGO_PKG_VERSION")))?),
            ("remains_elsewhere", canonical(&self.remains_elsewhere(now))?),
            ("suppression", canonical(&suppression)?),
            ("verification", canonical(&verification)?),
        ])
    }

    /// The canonical bytes of a request's [`Certificate`]. Of ten thousand requests nearly all of it is the same, and is made once.
    fn contents_for(
        &self,
        request: &RequestWithSubjects,
        id: &str,
        found: &FoundRecord,
        warnings: &[String],
        common: &Common<'_>,
        tables: &mut TablesMade,
    ) -> Result<Vec<u8>, CertificateError> {
        let asked = &request.request;
        let purged = self.record.purged.unwrap_or(common.now);
        let mut epochs: Vec<u32> = request.subjects.iter().map(|(epoch, _)| *epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        let certified = CertifiedRequest {
            id: id.to_owned(),
            subject_kind: asked.kind,
            regulation: asked.regulation.clone(),
            reference: asked.reference.clone(),
        };
        let clock = CertifiedClock {
            received: asked.received,
            suppressed: asked.submitted,
            erased: self.record.erased.unwrap_or(common.now),
            purged,
            certified: common.now,
            due: asked.due,
            in_time: purged <= asked.due,
        };
        let counts = Found {
            event_rows: found.events.values().sum(),
            quarantine_rows: found.quarantine,
            months: found.events.keys().copied().collect(),
            key_epochs: u32::try_from(epochs.len()).unwrap_or(u32::MAX),
        };
        let own = [
            ("clock", canonical(&clock)?),
            ("found", canonical(&counts)?),
            ("request", canonical(&certified)?),
            ("warnings", canonical(&warnings)?),
        ];
        let tables = tables.get(found, || canonical(&tables_for(&self.record, &common.spliced, found)))?;
        let fields = own.iter().chain(&common.shared).map(|(name, bytes)| (*name, bytes.as_slice()));
        Ok(object_of(fields.chain([("tables", tables)])))
    }

    fn remains_elsewhere(&self, now: Timestamp) -> Vec<RemainsElsewhere> {
        let settings = &self.eraser.settings;
        let elsewhere = settings.elsewhere.iter().map(|copy| RemainsElsewhere {
            place: copy.place.clone(),
            until: copy.days.map(|days| now.plus_days(i64::from(days))),
            note: copy.note.clone(),
        });
        elsewhere.collect()
    }

    fn warnings(&self, request: &RequestWithSubjects, resolved: &Resolved, found: &FoundRecord, purged: Timestamp) -> Vec<String> {
        let mut warnings = Vec::new();
        if found.events.values().sum::<u64>() == 0 && found.quarantine == 0 {
            warnings.push("no row of the subject was found: check the spelling and the kind of the identifier; where it was looked for is told under verification".to_owned());
        }
        if purged > request.request.due {
            warnings.push("the erasure was completed after it was due".to_owned());
        }
        if !request.userless.is_empty() {
            warnings.push(format!("events without a user went as well on {} devices where no other user was seen", request.userless.len()));
        }
        if request.subjects.iter().any(|(_, subject)| resolved.lifted.contains(subject)) {
            warnings.push("the subject has consented again since the request: events from then on are kept".to_owned());
        }
        if self.record.resumed > 0 {
            warnings.push(format!("the run was interrupted and resumed {} times", self.record.resumed));
        }
        let reconstructed =
            self.record.rewrites.iter().filter(|evidence| evidence.reconstructed && found.events.contains_key(&evidence.month));
        for evidence in reconstructed {
            warnings.push(format!(
                "the run was interrupted just after it had rewritten {}: the evidence for it was told from the tables afterwards",
                evidence.month
            ));
        }
        warnings
    }
}

/// Requests that are worth a thread.
const PER_THREAD_MIN: usize = 256;

/// A field of a certificate: its name and its canonical bytes.
type Field = (&'static str, Vec<u8>);

/// What all certificates of a run are made from.
struct Common<'a> {
    now: Timestamp,
    shared: [Field; 5],
    spliced: SplicedFiles<'a>,
}

/// The canonical bytes of an object with these fields, whose names need no escape.
fn object_of<'a>(fields: impl Iterator<Item = (&'static str, &'a [u8])>) -> Vec<u8> {
    let mut fields: Vec<_> = fields.collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    let mut object = Vec::with_capacity(fields.iter().map(|(name, bytes)| name.len() + bytes.len() + 4).sum::<usize>() + 2);
    for (name, bytes) in fields {
        object.push(if object.is_empty() { b'{' } else { b',' });
        object.push(b'"');
        object.extend_from_slice(name.as_bytes());
        object.extend_from_slice(b"\":");
        object.extend_from_slice(bytes);
    }
    object.push(b'}');
    object
}

/// How many tables' evidence is kept at once.
const TABLES_KEPT_MAX: usize = 1_024;

/// What was done to the tables, as certificates tell it, by what it depends on: requests whose rows were in the same files
/// and months are told the same.
#[derive(Default)]
struct TablesMade {
    made: HashMap<TablesKey, Vec<u8>>,
}

#[derive(PartialEq, Eq, Hash)]
struct TablesKey {
    months: Vec<Month>,
    files: BTreeSet<u32>,
    quarantined: bool,
}

impl TablesMade {
    fn get(&mut self, found: &FoundRecord, make: impl FnOnce() -> Result<Vec<u8>, CertificateError>) -> Result<&[u8], CertificateError> {
        let key =
            TablesKey { months: found.events.keys().copied().collect(), files: found.files.clone(), quarantined: found.quarantine > 0 };
        if self.made.len() >= TABLES_KEPT_MAX && !self.made.contains_key(&key) {
            self.made.clear();
        }
        Ok(match self.made.entry(key) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(make()?),
        })
    }
}

/// Works on all requests, many of them in several threads; the results are in their order.
fn in_threads<T: Send>(
    requests: &[RequestWithSubjects],
    work: &(impl Fn(&mut TablesMade, &RequestWithSubjects) -> Result<T, ErasureError> + Sync),
) -> Result<Vec<T>, ErasureError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = requests.len().div_ceil(cores).max(PER_THREAD_MIN);
    let run = |part: &[RequestWithSubjects]| {
        let mut tables = TablesMade::default();
        part.iter().map(|request| work(&mut tables, request)).collect::<Result<Vec<T>, _>>()
    };
    let run = &run;
    let parts: Vec<Result<Vec<T>, ErasureError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = requests.chunks(share).map(|part| scope.spawn(move || run(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut all = Vec::with_capacity(requests.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::certificate::Certificate;

    /// A field that is added to the certificate has to be added to what is signed.
    #[test]
    fn fields_put_together_are_the_certificates_canonical_bytes() {
        let Certificate {
            format_version,
            issued_by,
            request,
            clock,
            found,
            tables,
            verification,
            remains_elsewhere,
            suppression,
            warnings,
        } = crate::tests::certificates::sample();
        let fields = [
            ("warnings", canonical(&warnings).unwrap()),
            ("verification", canonical(&verification).unwrap()),
            ("tables", canonical(&tables).unwrap()),
            ("suppression", canonical(&suppression).unwrap()),
            ("request", canonical(&request).unwrap()),
            ("remains_elsewhere", canonical(&remains_elsewhere).unwrap()),
            ("issued_by", canonical(&issued_by).unwrap()),
            ("found", canonical(&found).unwrap()),
            ("format_version", canonical(&format_version).unwrap()),
            ("clock", canonical(&clock).unwrap()),
        ];
        let whole = canonical(&crate::tests::certificates::sample()).unwrap();
        assert_eq!(object_of(fields.iter().map(|(name, bytes)| (*name, bytes.as_slice()))), whole);
    }

    #[test]
    fn tables_are_told_anew_where_files_months_or_quarantine_differ() {
        let mut made = TablesMade::default();
        let month = Month::from_epoch_months(582);
        let first = FoundRecord { events: [(month, 3)].into(), quarantine: 0, files: [1, 2].into() };
        assert_eq!(made.get(&first, || Ok(vec![1])).unwrap(), [1]);
        let same = FoundRecord { events: [(month, 9)].into(), ..first.clone() };
        assert_eq!(made.get(&same, || Ok(vec![2])).unwrap(), [1]);
        let others = [
            FoundRecord { quarantine: 1, ..first.clone() },
            FoundRecord { files: [1].into(), ..first.clone() },
            FoundRecord { events: [(Month::from_epoch_months(583), 3)].into(), ..first },
        ];
        for (at, other) in (3_u8..).zip(&others) {
            assert_eq!(made.get(other, || Ok(vec![at])).unwrap(), [at]);
        }
    }
}
