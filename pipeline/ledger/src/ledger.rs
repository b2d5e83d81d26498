use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::pin::Pin;
use ameles_core::*;
use serde_json::Value;
use crate::*;

#[derive(Clone, Debug)]
pub struct LedgerOptions { pub path: PathBuf, pub journal: PathBuf, pub horizon_days: u32 }
impl LedgerOptions { pub fn new(path: &Path) -> Self { let _ = path; unimplemented!() } }
#[derive(Clone)]
pub struct Ledger;
type R<T> = Result<T, LedgerError>;
#[allow(unused_variables)]
impl Ledger {
 pub async fn create(path: &Path, keys: LedgerKeys, clock: SharedClock, random: SharedRandom) -> R<Self> { unimplemented!() }
 pub async fn open(path: &Path, keys: LedgerKeys, clock: SharedClock, random: SharedRandom) -> R<Self> { unimplemented!() }
 pub async fn create_with(options: LedgerOptions, keys: LedgerKeys, clock: SharedClock, random: SharedRandom) -> R<Self> { unimplemented!() }
 pub async fn open_with(options: LedgerOptions, keys: LedgerKeys, clock: SharedClock, random: SharedRandom) -> R<Self> { unimplemented!() }
 pub async fn close(&self) { unimplemented!() }
 pub async fn submit(&self, request: NewRequest) -> R<RequestId> { unimplemented!() }
 pub async fn submit_all(&self, requests: Vec<NewRequest>) -> R<Vec<RequestId>> { unimplemented!() }
 pub async fn requests(&self, filter: &RequestFilter) -> R<Vec<Request>> { unimplemented!() }
 pub async fn request(&self, id: RequestId) -> R<Request> { unimplemented!() }
 pub async fn extend(&self, id: RequestId, due: Timestamp, reason: &str, actor: &str) -> R<()> { unimplemented!() }
 pub async fn cancel(&self, id: RequestId, actor: &str) -> R<()> { unimplemented!() }
 pub async fn begin_run(&self, actor: &str) -> R<Vec<RequestWithSubjects>> { unimplemented!() }
 pub async fn open_requests(&self) -> R<Vec<RequestWithSubjects>> { unimplemented!() }
 pub async fn add_userless(&self, id: RequestId, devices: &[DeviceId]) -> R<()> { unimplemented!() }
 pub async fn set_step(&self, id: RequestId, step: &str, detail_json: &str) -> R<()> { unimplemented!() }
 pub async fn set_step_all(&self, ids: &[RequestId], step: &str, detail_json: &str) -> R<()> { unimplemented!() }
 pub async fn complete(&self, id: RequestId, certificate_json: &str) -> R<()> { unimplemented!() }
 pub async fn complete_all(&self, certificates: &[(RequestId, String)]) -> R<()> { unimplemented!() }
 pub async fn certificate(&self, id: RequestId) -> R<Option<String>> { unimplemented!() }
 pub async fn counts(&self) -> R<LedgerCounts> { unimplemented!() }
 pub async fn suppression_sequence(&self) -> R<u64> { unimplemented!() }
 pub async fn suppressions(&self) -> R<Arc<SuppressionSet>> { unimplemented!() }
 pub async fn note_drops(&self, subjects: &[Subject], at: Timestamp) -> R<u64> { unimplemented!() }
 pub async fn expire_suppressions(&self) -> R<u64> { unimplemented!() }
 pub async fn record_consents(&self, events: &[ConsentEvent]) -> R<ConsentsRecorded> { unimplemented!() }
 pub async fn consents(&self) -> R<Arc<ConsentBook>> { unimplemented!() }
 pub async fn forget_subject(&self, subjects: &[Subject]) -> R<u64> { unimplemented!() }
 pub async fn create_token(&self, token: NewToken) -> R<TokenSecret> { unimplemented!() }
 pub async fn list_tokens(&self) -> R<Vec<TokenInfo>> { unimplemented!() }
 pub async fn revoke_token(&self, name: &str, actor: &str) -> R<()> { unimplemented!() }
 pub async fn verify_token(&self, secret: &str) -> R<Option<Principal>> { unimplemented!() }
 pub async fn verify_named_token(&self, name: &str, secret: &str) -> R<Option<Principal>> { unimplemented!() }
 pub async fn record_report_run(&self, run: NewReportRun) -> R<ReportRunId> { unimplemented!() }
 pub async fn report_runs(&self, name: Option<&str>, limit: u32) -> R<Vec<ReportRun>> { unimplemented!() }
 pub async fn report_run(&self, id: ReportRunId) -> R<Option<ReportRun>> { unimplemented!() }
 pub async fn last_report_run(&self, name: &str) -> R<Option<ReportRun>> { unimplemented!() }
 pub async fn setting(&self, key: &str) -> R<Option<String>> { unimplemented!() }
 pub async fn set_setting(&self, key: &str, value: Option<&str>, actor: &str) -> R<()> { unimplemented!() }
 pub async fn audit(&self, actor: &str, action: &str, request: Option<RequestId>, detail: Value) -> R<()> { unimplemented!() }
 pub async fn audit_list(&self, filter: &AuditFilter) -> R<Vec<AuditRow>> { unimplemented!() }
 pub async fn audit_verify(&self) -> R<AuditVerdict> { unimplemented!() }
 pub async fn check_journal(&self) -> R<JournalCheck> { unimplemented!() }
 pub async fn replay_journal(&self) -> R<ReplayReport> { unimplemented!() }
 pub async fn restart_journal(&self, actor: &str) -> R<()> { unimplemented!() }
}
impl SuppressionSource for Ledger {
 fn current(&self) -> Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>> {
  Box::pin(async move { self.suppressions().await.map_err(|e| SuppressionUnavailable(Box::new(e))) })
 }
}
