//! `erase run` beside a process that maintains the warehouse (`serve`, say): the wish
//! goes on the ledger, that process fulfils it, and this one follows.

use std::time::Duration;

use ameles_core::Random;
use ameles_ledger::RequestId;
use ameles_store::Maintainer;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::run::{RequestOutcome, RunReport};
use crate::{Eraser, ErasureError, Progress, Step};

/// The ledger's setting that holds the wish.
const WISHED: &str = "erasure.run_requested";
/// The ledger's setting that holds the answer.
const ANSWERED: &str = "erasure.run_finished";

/// A wish for a run; its token tells it from earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wish {
    token: String,
    by: String,
}

/// How a wished run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    token: String,
    error: Option<String>,
}

impl Eraser {
    /// Carries out a run that another process has wished for, if one has: what the process
    /// that maintains the warehouse calls every second or so.
    ///
    /// # Errors
    /// As [`Eraser::run`]; the process that wished for the run is told as well.
    pub fn run_if_requested<'a>(
        &'a self,
        maintainer: &'a mut Maintainer,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<Option<RunReport>, ErasureError>> {
        async move {
            let Some(wish) = read::<Wish>(self, WISHED).await? else { return Ok(None) };
            // Taken back first: a run that fails must not be repeated every second.
            self.ledger.set_setting(WISHED, None, &wish.by).await?;
            let outcome = self.run_with(maintainer, &wish.by, progress).await;
            let error = outcome.as_ref().err().map(ErasureError::chain);
            let answer = Answer { token: wish.token, error };
            let text = serde_json::to_string(&answer).map_err(ErasureError::Record)?;
            self.ledger.set_setting(ANSWERED, Some(&text), &wish.by).await?;
            outcome.map(Some)
        }
        .boxed()
    }
}

/// Wishes for a run and follows it until it has ended.
pub(crate) async fn follow(eraser: &Eraser, actor: &str, progress: &dyn Progress) -> Result<RunReport, ErasureError> {
    let open: Vec<RequestId> = eraser.ledger.open_requests().await?.iter().map(|request| request.request.id).collect();
    if open.is_empty() {
        return Ok(RunReport::default());
    }
    let token = wish(eraser, actor).await?;
    progress.begin(Step::Begin, "waiting for the process that maintains this warehouse", open.len() as u64);
    let timeout = Duration::from_secs(eraser.settings.handover_timeout_s);
    let follow = async {
        loop {
            // That process may have ended meanwhile, or have been no server at all.
            if let Some(mut maintainer) = eraser.warehouse.try_maintainer(&*eraser.random).await? {
                if read::<Wish>(eraser, WISHED).await?.is_some_and(|wish| wish.token == token) {
                    eraser.ledger.set_setting(WISHED, None, actor).await?;
                }
                let mut report = eraser.run_with(&mut maintainer, actor, progress).await?;
                let missing: Vec<_> = open.iter().filter(|id| !report.requests.iter().any(|outcome| outcome.id == **id)).copied().collect();
                report.requests.extend(outcomes(eraser, &missing).await?);
                return Ok::<_, ErasureError>(report);
            }
            if let Some(answer) = read::<Answer>(eraser, ANSWERED).await?.filter(|answer| answer.token == token) {
                return match answer.error {
                    Some(error) => Err(ErasureError::HandedOver(error)),
                    None => handed_over(eraser, &open).await,
                };
            }
            let report = handed_over(eraser, &open).await?;
            if report.requests.iter().all(|outcome| !outcome.state.is_open()) {
                return Ok::<_, ErasureError>(report);
            }
            tokio::time::sleep(Duration::from_millis(eraser.settings.handover_poll_ms)).await;
        }
    };
    match tokio::time::timeout(timeout, follow).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ErasureError::HandOverTimeout { seconds: timeout.as_secs() }),
    }
}

/// Puts the wish on the ledger, or joins one that stands there.
async fn wish(eraser: &Eraser, actor: &str) -> Result<String, ErasureError> {
    if let Some(standing) = read::<Wish>(eraser, WISHED).await? {
        return Ok(standing.token);
    }
    let mut bytes = [0; 8];
    let random: &dyn Random = &*eraser.random;
    random.fill(&mut bytes)?;
    let wish = Wish { token: hex::encode(bytes), by: actor.to_owned() };
    let text = serde_json::to_string(&wish).map_err(ErasureError::Record)?;
    eraser.ledger.set_setting(WISHED, Some(&text), actor).await?;
    Ok(wish.token)
}

async fn read<T: serde::de::DeserializeOwned>(eraser: &Eraser, key: &str) -> Result<Option<T>, ErasureError> {
    let Some(text) = eraser.ledger.setting(key).await? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(ErasureError::Record)
}

async fn handed_over(eraser: &Eraser, ids: &[RequestId]) -> Result<RunReport, ErasureError> {
    let requests = outcomes(eraser, ids).await?;
    Ok(RunReport { rows_erased: requests.iter().map(|outcome| outcome.rows).sum(), requests, handed_over: true, ..RunReport::default() })
}

/// What became of requests, by their certificates where they have one.
async fn outcomes(eraser: &Eraser, ids: &[RequestId]) -> Result<Vec<RequestOutcome>, ErasureError> {
    #[derive(Deserialize)]
    struct Document {
        certificate: Certificate,
    }
    let mut outcomes = Vec::with_capacity(ids.len());
    for id in ids {
        let state = eraser.ledger.request(*id).await?.state;
        let document = match eraser.ledger.certificate(*id).await? {
            Some(text) => Some(serde_json::from_str::<Document>(&text).map_err(ErasureError::Record)?),
            None => None,
        };
        let (rows, warnings) =
            document.map_or((0, Vec::new()), |document| (document.certificate.found.event_rows, document.certificate.warnings));
        outcomes.push(RequestOutcome { id: *id, state, rows, warnings });
    }
    Ok(outcomes)
}
