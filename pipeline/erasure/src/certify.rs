//! The last steps of a run: search what the warehouse keeps, sign, close.

use ameles_core::Timestamp;
use ameles_ledger::{RequestId, RequestWithSubjects};

use crate::certificate::{
    Certificate, CertifiedClock, CertifiedRequest, FORMAT_VERSION, Found, RemainsElsewhere, SuppressionHorizon, Verification,
};
use crate::evidence::{SplicedFiles, tables_for};
use crate::record::FoundRecord;
use crate::resolve::Resolved;
use crate::run::{RequestOutcome, Run, RunReport};
use crate::signature::Signer;
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
        self.eraser.ledger.complete_all(&signed).await?;
        self.eraser.faults.passed(Step::Complete)?;
        Ok(self.report(outcomes))
    }

    /// All requests' certificates, signed, and what became of each.
    fn certificates(&self, resolved: &Resolved) -> Result<(Vec<(RequestId, String)>, Vec<RequestOutcome>), ErasureError> {
        let key = self.eraser.keyring.signing_key()?;
        let signer = Signer::new(key.expose())?;
        drop(key);
        let now = self.eraser.clock.now();
        let spliced = SplicedFiles::new(&self.record);
        let certify = |request: &RequestWithSubjects| -> Result<_, ErasureError> {
            let certificate = self.certificate_for(request, resolved, &spliced, now);
            let signed = (request.request.id, signer.sign(&certificate)?);
            let outcome = RequestOutcome {
                id: request.request.id,
                state: ameles_ledger::RequestState::Completed,
                rows: certificate.found.event_rows,
                warnings: certificate.warnings,
            };
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

    fn certificate_for(
        &self,
        request: &RequestWithSubjects,
        resolved: &Resolved,
        spliced: &SplicedFiles<'_>,
        now: Timestamp,
    ) -> Certificate {
        let asked = &request.request;
        let found = self.record.found.get(&asked.id.to_string()).cloned().unwrap_or_default();
        let purged = self.record.purged.unwrap_or(now);
        let mut epochs: Vec<u32> = request.subjects.iter().map(|(epoch, _)| *epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        Certificate {
            format_version: FORMAT_VERSION,
            issued_by: concat!("ameles ", env!("CARGO_PKG_VERSION")).to_owned(),
            request: CertifiedRequest {
                id: asked.id.to_string(),
                subject_kind: asked.kind,
                regulation: asked.regulation.clone(),
                reference: asked.reference.clone(),
            },
            clock: CertifiedClock {
                received: asked.received,
                suppressed: asked.submitted,
                erased: self.record.erased.unwrap_or(now),
                purged,
                certified: now,
                due: asked.due,
                in_time: purged <= asked.due,
            },
            tables: tables_for(&self.record, spliced, &found),
            verification: self.record.verification.clone().unwrap_or_default(),
            remains_elsewhere: self.remains_elsewhere(now),
            suppression: SuppressionHorizon {
                at_least_until: now.plus_days(i64::from(self.eraser.settings.horizon_days)),
                note: "an encrypted entry keeps new and replayed events of the subject out; the time starts again at each event that it drops, and only an explicit grant that is later than the request ends it".to_owned(),
            },
            warnings: self.warnings(request, resolved, &found, purged),
            found: Found {
                event_rows: found.events.values().sum(),
                quarantine_rows: found.quarantine,
                months: found.events.into_keys().collect(),
                key_epochs: u32::try_from(epochs.len()).unwrap_or(u32::MAX),
            },
        }
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

/// Works on all requests, many of them in several threads; the results are in their order.
fn in_threads<T: Send>(
    requests: &[RequestWithSubjects],
    work: &(impl Fn(&RequestWithSubjects) -> Result<T, ErasureError> + Sync),
) -> Result<Vec<T>, ErasureError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = requests.len().div_ceil(cores).max(PER_THREAD_MIN);
    let parts: Vec<Result<Vec<T>, ErasureError>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            requests.chunks(share).map(|part| scope.spawn(move || part.iter().map(work).collect::<Result<Vec<T>, _>>())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut all = Vec::with_capacity(requests.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}
