//! Entering requests: identifiers become pseudonyms here and go no further.

use std::collections::BTreeMap;
use std::io::Read;

use ameles_core::{Subject, SubjectKind, Timestamp};
use ameles_ledger::{NewRequest, Request, RequestFilter, RequestId, RequestState};
use ameles_pseudonym::{RawIdentifier, identify};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::opendsr::{API_VERSION, CancellationReply, RequestReply, StatusReply, SubjectRequest, encode_blanked, kind_of};
use crate::{Eraser, ErasureError};

/// What [`ErasureError::Refused`] says of an OpenDSR request whose id stands for another.
pub const SUBJECT_REQUEST_ID: &str = "subject_request_id";
const DEFAULT_REGULATION: &str = "gdpr";
const REFERENCE_LEN_MAX: usize = 64;
/// The most requests that one list may hold.
const LIST_ROWS_MAX: u64 = 1_000_000;
/// The most bytes that one list may have.
const LIST_BYTES_MAX: u64 = 128 << 20;
/// The most requests that are looked at under one reference.
const OF_REFERENCE_MAX: u32 = 100;

/// What is told with a submission besides whom it names.
#[derive(Clone, Debug, Default)]
pub struct SubmitOptions {
    /// `gdpr` where not given.
    pub regulation: Option<String>,
    /// When it was received; now where not given.
    pub received: Option<Timestamp>,
    /// The case number elsewhere, `[A-Za-z0-9-]{1,64}`.
    pub reference: Option<String>,
    /// Who enters it: a token's name or `cli`.
    pub actor: String,
}

/// What became of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListSubmission {
    /// The requests entered, in the list's order.
    pub requests: Vec<RequestId>,
    /// The rows refused: submit them again, corrected.
    pub refused: Vec<RefusedRow>,
}

/// A row of a list that was not entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedRow {
    /// Line, from 1.
    pub line: u64,
    /// What would be right; never what was there.
    pub reason: String,
}

impl Eraser {
    /// Enters one request for each identifier. When this returns, ingest drops the subjects'
    /// events and no query counts them, in every process.
    ///
    /// # Errors
    /// When an identifier or option breaks its rule (nothing is entered then), or the ledger fails.
    pub fn submit<'a>(
        &'a self,
        identifiers: Vec<(SubjectKind, RawIdentifier)>,
        options: &'a SubmitOptions,
    ) -> BoxFuture<'a, Result<Vec<RequestId>, ErasureError>> {
        async move {
            let terms = self.terms(options)?;
            let mut requests = Vec::with_capacity(identifiers.len());
            for (kind, identifier) in &identifiers {
                requests.push(terms.request(*kind, self.subjects(*kind, identifier)?));
            }
            drop(identifiers);
            Ok(self.ledger.submit_all(requests).await?)
        }
        .boxed()
    }

    /// Enters what one subject's request names, all or none: one request for its devices and one for
    /// its users, because a certificate speaks of one kind.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_together<'a>(
        &'a self,
        identifiers: Vec<(SubjectKind, RawIdentifier)>,
        options: &'a SubmitOptions,
    ) -> BoxFuture<'a, Result<Vec<RequestId>, ErasureError>> {
        async move {
            let terms = self.terms(options)?;
            let mut by_kind: BTreeMap<SubjectKind, Vec<(u32, Subject)>> = BTreeMap::new();
            for (kind, identifier) in &identifiers {
                let subjects = by_kind.entry(*kind).or_default();
                for subject in self.subjects(*kind, identifier)? {
                    if !subjects.contains(&subject) {
                        subjects.push(subject);
                    }
                }
            }
            drop(identifiers);
            if by_kind.is_empty() {
                return Err(ErasureError::refused("a request", "must name a device or a user"));
            }
            let requests = by_kind.into_iter().map(|(kind, subjects)| terms.request(kind, subjects));
            Ok(self.ledger.submit_all(requests.collect()).await?)
        }
        .boxed()
    }

    /// Enters one request for each row of a CSV with the header `kind,identifier`. A row
    /// that breaks a rule is refused with its line, and the others are entered.
    ///
    /// # Errors
    /// When the text is no such list, an option breaks its rule, or the ledger fails.
    pub async fn submit_list(&self, reader: impl Read, options: &SubmitOptions) -> Result<ListSubmission, ErasureError> {
        let terms = self.terms(options)?;
        let mut refused = Vec::new();
        let mut requests = Vec::new();
        read_list(reader, |line, row| {
            let made = row.map_err(str::to_owned).and_then(|(kind, identifier)| {
                self.subjects(kind, &identifier).map(|subjects| terms.request(kind, subjects)).map_err(|error| error.chain())
            });
            match made {
                Ok(request) => requests.push(request),
                Err(reason) => refused.push(RefusedRow { line, reason }),
            }
        })?;
        let requests = if requests.is_empty() { Vec::new() } else { self.ledger.submit_all(requests).await? };
        Ok(ListSubmission { requests, refused })
    }

    /// Enters an OpenDSR request; the same request sent again is answered, not entered again.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_opendsr<'a>(&'a self, request: SubjectRequest, actor: &'a str) -> BoxFuture<'a, Result<RequestReply, ErasureError>> {
        async move {
            let options = SubmitOptions {
                regulation: Some(request.regulation.clone()),
                received: Some(request.submitted_time),
                reference: Some(request.subject_request_id.clone()),
                actor: actor.to_owned(),
            };
            self.terms(&options)?;
            let encoded_request = encode_blanked(&request);
            let subject_request_id = request.subject_request_id;
            let mut identifiers = Vec::with_capacity(request.subject_identities.len());
            for identity in request.subject_identities {
                let kind = kind_of(&identity.identity_type, &self.contract)
                    .ok_or_else(|| ErasureError::refused("identity_type", "must be one that discovery lists"))?;
                identifiers.push((kind, identity.identity_value));
            }
            let mut entered = self.of_reference(&subject_request_id, actor).await?;
            let ids: Vec<RequestId> = entered.iter().map(|request| request.id).collect();
            for (kind, identifier) in identifiers.iter().filter(|_| !ids.is_empty()) {
                let subjects: Vec<Subject> = self.subjects(*kind, identifier)?.into_iter().map(|(_, subject)| subject).collect();
                if !self.ledger.may_name(&ids, &subjects).await? {
                    return Err(ErasureError::refused(
                        SUBJECT_REQUEST_ID,
                        "stands for a request that names others; send this one under an id of its own",
                    ));
                }
            }
            if entered.is_empty() {
                for id in self.submit_together(identifiers, &options).await? {
                    entered.push(self.ledger.request(id).await?);
                }
            }
            let entered = entered.first().ok_or_else(|| ErasureError::refused("the request", "was entered by nobody; send it again"))?;
            Ok(RequestReply {
                controller_id: actor.to_owned(),
                expected_completion_time: entered.due,
                received_time: entered.submitted,
                encoded_request,
                subject_request_id,
                request_id: entered.id.to_string(),
                api_version: API_VERSION.to_owned(),
            })
        }
        .boxed()
    }

    /// An OpenDSR status.
    ///
    /// # Errors
    /// When there is no such request, or the ledger fails.
    pub fn status_opendsr<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<StatusReply, ErasureError>> {
        async move {
            let request = self.find(id).await?;
            // What was entered for one OpenDSR request moves together; the state is that of the last.
            let together = match &request.reference {
                Some(reference) if request.state != RequestState::Cancelled => self.of_reference(reference, &request.actor).await?,
                _ => Vec::new(),
            };
            let order = |state: &RequestState| RequestState::ALL.iter().position(|other| other == state);
            let state = together.iter().map(|request| request.state).chain([request.state]).min_by_key(order).unwrap_or(request.state);
            let done = state == RequestState::Completed;
            Ok(StatusReply {
                controller_id: request.actor.clone(),
                expected_completion_time: request.due,
                subject_request_id: request.reference.clone().unwrap_or_else(|| request.id.to_string()),
                request_id: request.id.to_string(),
                request_status: state.as_str().to_owned(),
                results_url: done.then(|| format!("/v1/requests/{}/certificate", request.id)),
                api_version: API_VERSION.to_owned(),
            })
        }
        .boxed()
    }

    /// Cancels by OpenDSR.
    ///
    /// # Errors
    /// When there is no such request, a run has taken it up, or the ledger fails.
    pub fn cancel_opendsr<'a>(&'a self, id: &'a str, actor: &'a str) -> BoxFuture<'a, Result<CancellationReply, ErasureError>> {
        async move {
            let request = self.find(id).await?;
            self.ledger.cancel(request.id, actor).await?;
            if let Some(reference) = &request.reference {
                for other in self.of_reference(reference, &request.actor).await? {
                    self.ledger.cancel(other.id, actor).await?;
                }
            }
            Ok(CancellationReply {
                controller_id: actor.to_owned(),
                subject_request_id: request.reference.unwrap_or_else(|| request.id.to_string()),
                received_time: self.clock.now(),
                api_version: API_VERSION.to_owned(),
            })
        }
        .boxed()
    }

    /// The requests that one actor has entered under a reference and that stand.
    async fn of_reference(&self, reference: &str, actor: &str) -> Result<Vec<Request>, ErasureError> {
        let filter = RequestFilter { reference: Some(reference.to_owned()), limit: Some(OF_REFERENCE_MAX), ..RequestFilter::default() };
        let mut requests = self.ledger.requests(&filter).await?;
        requests.retain(|request| request.actor == actor && request.state != RequestState::Cancelled);
        requests.sort_by_key(|request| (request.submitted, request.kind));
        Ok(requests)
    }

    /// The subject's pseudonyms under every key epoch.
    pub(crate) fn subjects(&self, kind: SubjectKind, identifier: &RawIdentifier) -> Result<Vec<(u32, Subject)>, ErasureError> {
        if identifier.expose().trim().is_empty() {
            return Err(ErasureError::refused("the identifier", "is empty"));
        }
        Ok(identify(&self.keyring, &self.contract, kind, identifier)?)
    }

    fn terms(&self, options: &SubmitOptions) -> Result<Terms, ErasureError> {
        let now = self.clock.now();
        let received = options.received.unwrap_or(now);
        if received > now {
            return Err(ErasureError::refused("the date of receipt", "lies in the future"));
        }
        let regulation = options.regulation.as_deref().unwrap_or(DEFAULT_REGULATION).to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if regulation.is_empty() || regulation.len() > 32 || !regulation.bytes().all(plain) {
            return Err(ErasureError::refused("the regulation", "must be a short name such as gdpr or ccpa"));
        }
        if options.reference.as_deref().is_some_and(|reference| !is_reference(reference)) {
            return Err(ErasureError::refused("the reference", "must be 1 to 64 letters, digits or hyphens: a case number, not a name"));
        }
        let months = i32::try_from(self.regime_of(&regulation).erasure_months).unwrap_or(i32::MAX);
        Ok(Terms {
            regulation,
            received,
            due: received.plus_months(months),
            reference: options.reference.clone(),
            actor: options.actor.clone(),
        })
    }
}

/// What all requests of one submission share.
struct Terms {
    regulation: String,
    received: Timestamp,
    due: Timestamp,
    reference: Option<String>,
    actor: String,
}

impl Terms {
    fn request(&self, kind: SubjectKind, subjects: Vec<(u32, Subject)>) -> NewRequest {
        NewRequest {
            subjects,
            kind,
            regulation: self.regulation.clone(),
            received: self.received,
            due: self.due,
            reference: self.reference.clone(),
            actor: self.actor.clone(),
        }
    }
}

pub(crate) fn is_reference(text: &str) -> bool {
    (1..=REFERENCE_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

type Row = Result<(SubjectKind, RawIdentifier), &'static str>;

/// Reads a list row by row; errors name lines, never what stands there.
fn read_list(reader: impl Read, mut each: impl FnMut(u64, Row)) -> Result<(), ErasureError> {
    let mut text = Zeroizing::new(Vec::new());
    let too_long = |line| ErasureError::List { line, rule: "the list is too long; split it" };
    let unread = |line| ErasureError::List { line, rule: "it could not be read to its end; is the file whole?" };
    reader.take(LIST_BYTES_MAX + 1).read_to_end(&mut text).map_err(|_| unread(1))?;
    if text.len() as u64 > LIST_BYTES_MAX {
        return Err(too_long(1));
    }
    let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_slice());
    let mut record = csv::ByteRecord::new();
    let mut lines = Lines { text: &text, at: 0, line: 1 };
    let (mut rows, mut header_seen) = (0, false);
    while csv.read_byte_record(&mut record).map_err(|_| unread(lines.line))? {
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        if !header_seen {
            header_seen = true;
            if !is_header(&record) {
                return Err(ErasureError::List { line, rule: "the first line must be the header kind,identifier" });
            }
            continue;
        }
        rows += 1;
        if rows > LIST_ROWS_MAX {
            return Err(too_long(line));
        }
        each(line, read_row(&record));
    }
    if text.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
        // The parser takes the end of the text for the end of a quote.
        return Err(ErasureError::List { line: lines.line, rule: "a quote is opened and not closed; is the file whole?" });
    }
    if header_seen {
        Ok(())
    } else {
        Err(ErasureError::List { line: 1, rule: "it is empty; the first line must be the header kind,identifier" })
    }
}

/// Counts lines as an editor does. The parser's own count begins a row before the line ends and
/// blank lines that it skips.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    fn of(&mut self, byte: u64) -> u64 {
        let begins = usize::try_from(byte).unwrap_or(usize::MAX).min(self.text.len());
        let blank = self.text[begins..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let to = (begins + blank).max(self.at);
        self.line += self.text[self.at..to].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at = to;
        self.line
    }
}

fn is_header(record: &csv::ByteRecord) -> bool {
    let name = |at: usize| record.get(at).map(|name| name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name).trim_ascii().to_ascii_lowercase());
    record.len() == 2 && name(0).as_deref() == Some(b"kind") && name(1).as_deref() == Some(b"identifier")
}

fn read_row(record: &csv::ByteRecord) -> Row {
    let (Some(kind), Some(identifier), 2) = (record.get(0), record.get(1), record.len()) else {
        return Err("a row has two fields: kind,identifier");
    };
    let kind = match kind.trim_ascii() {
        b"device" => SubjectKind::Device,
        b"user" => SubjectKind::User,
        _ => return Err("the kind must be device or user"),
    };
    let text = std::str::from_utf8(identifier).map_err(|_| "the identifier is not UTF-8")?;
    if text.trim().is_empty() {
        return Err("the identifier is empty");
    }
    Ok((kind, RawIdentifier::new(text.to_owned())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn read(text: &str) -> Result<Vec<(u64, Result<SubjectKind, &'static str>)>, ErasureError> {
        let mut rows = Vec::new();
        read_list(text.as_bytes(), |line, row| rows.push((line, row.map(|(kind, _)| kind))))?;
        Ok(rows)
    }

    #[test]
    fn a_list_is_read_row_by_row_and_bad_rows_are_named_by_line_only() {
        let rows = read("\u{feff}kind,identifier\r\ndevice,\"800,1\"\r\nuser,u1\n\nfleet,x\ndevice,\ndevice,a,b\nuser\n").unwrap();
        let lines: Vec<_> = rows.iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(lines, [(2, true), (3, true), (5, false), (6, false), (7, false), (8, false)]);
        assert_eq!(rows[2].1, Err("the kind must be device or user"));
        assert_eq!(rows[3].1, Err("the identifier is empty"));
    }

    #[test]
    fn a_list_without_its_header_is_refused_whole() {
        for text in ["", "device,800000002492\n", "kind;identifier\n"] {
            let error = read(text).unwrap_err();
            assert!(!error.to_string().contains("800000002492"), "{error}");
        }
        assert!(read("kind,identifier\n").unwrap().is_empty());
    }

    #[test]
    fn references_are_case_numbers() {
        assert!(is_reference("DSR-2026-00017"));
        for text in ["", "jo@example.com", "a b", &"x".repeat(65)] {
            assert!(!is_reference(text), "{text}");
        }
    }
}
