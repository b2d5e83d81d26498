//! A home in a temporary folder with a small fleet, and a client of its router.

use std::sync::Arc;

use ameles_core::{Day, Limits, ManualClock, Month, SeededRandom, SharedClock, SharedRandom, Timestamp};
use ameles_erasure::{Eraser, FaultPoints, Layout, Settings};
use ameles_ingest::{Collector, CollectorOptions, EnvParts, IngestEnv};
use ameles_ledger::{Ledger, LedgerKeys, NewToken, Role};
use ameles_pseudonym::{KeyEncryptionKey, Keyring};
use ameles_schemas::{Contract, Policy};
use ameles_store::Warehouse;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use tower::ServiceExt;

use crate::{ServerLimits, ServerParts, ServerState, completeness_by_clock, router};

pub(super) struct Home {
    pub folder: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub state: Arc<ServerState>,
    pub router: Router,
}

pub(super) const K: u32 = 5;

impl Home {
    pub(super) async fn new() -> Self {
        Self::with(ServerLimits::default()).await
    }

    pub(super) async fn with(limits: ServerLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        std::fs::create_dir(&path).unwrap();
        let clock = Arc::new(ManualClock::new("2018-08-05T00:00:00Z".parse().unwrap()));
        let shared: SharedClock = clock.clone();
        let random: SharedRandom = Arc::new(SeededRandom::new(7));
        let kek = KeyEncryptionKey::create(&folder.path().join("home.key"), random.as_ref()).unwrap();
        let keyring =
            Keyring::create(&path.join("keyring.json"), &kek, &["device", "user", "event"], shared.as_ref(), random.as_ref()).unwrap();
        let secret = |purpose: &str| *keyring.secret(purpose).unwrap().expose();
        let keys = LedgerKeys::new(secret("suppression"), secret("journal"), secret("audit"));
        let ledger = Ledger::create(&path.join("ledger.db"), keys, shared.clone(), random.clone()).await.unwrap();
        let contract = Arc::new(Contract::default_contract());
        let policy = Arc::new(Policy::default_policy());
        let warehouse = Warehouse::create(&path.join("warehouse"), contract.tables()).await.unwrap();
        let env = IngestEnv::new(EnvParts {
            contract: contract.clone(),
            policy: policy.clone(),
            keyring: &keyring,
            ledger: ledger.clone(),
            warehouse: warehouse.clone(),
            clock: shared.clone(),
            random: random.clone(),
            limits: Limits::default(),
            k: K,
        })
        .unwrap();
        let collector = Collector::start(Arc::new(env), CollectorOptions::default()).await.unwrap();
        let eraser = Arc::new(Eraser {
            warehouse,
            ledger,
            keyring: Arc::new(keyring),
            contract,
            policy,
            clock: shared.clone(),
            random,
            layout: Layout { home: path.clone(), journal: folder.path().join("home.journal") },
            settings: Settings { purge_grace_s: 0, ..Settings::default() },
            faults: FaultPoints::default(),
        });
        let state = ServerState::new(ServerParts {
            kafka: None,
            eraser,
            collector: Some(collector),
            k: K,
            report_dir: path.join("reports"),
            policy_version: "1".to_owned(),
            completeness: completeness_by_clock(shared),
            limits,
            secure: false,
        });
        let router = router(state.clone());
        Self { folder, clock, state, router }
    }

    pub(super) async fn token(&self, role: Role, partner: Option<&str>) -> String {
        let name = format!("{role}-{}-{}", partner.unwrap_or("all"), self.state.ledger().list_tokens().await.unwrap().len());
        let expires: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let token = NewToken { name, role, partner: partner.map(str::to_owned), expires, actor: "test".to_owned() };
        self.state.ledger().create_token(token).await.unwrap().expose().to_owned()
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        Answer::of(response).await
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(ask("GET", path, Some(token)).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, token: &str, media: &str, body: impl Into<Body>) -> Answer {
        self.send(ask("POST", path, Some(token)).header(header::CONTENT_TYPE, media).body(body.into()).unwrap()).await
    }

    /// Three months of a fleet, sent as they happen.
    pub(super) async fn fill(&self, devices: u32) {
        let token = self.token(Role::Ingest, None).await;
        for month in ["2018-07", "2018-08", "2018-09"] {
            let month: Month = month.parse().unwrap();
            self.clock.set(month.end().plus_days(3));
            let body = month_of_events(month, devices);
            let lines = body.lines().count();
            let answer = self.post("/v1/events", &token, "application/x-ndjson", body).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_eq!(answer.json()["accepted"], lines, "{}", answer.text());
        }
    }
}

/// A month of events of those devices that have begun by then and not left.
fn month_of_events(month: Month, devices: u32) -> String {
    let mut lines = String::new();
    let begin: Month = "2018-07".parse().unwrap();
    let index = month.epoch_months() - begin.epoch_months();
    for device in 0..devices {
        let begins = (device % 10).saturating_sub(7) as i32;
        let gone = device % 6 == 5 && index > begins;
        if begins > index || gone {
            continue;
        }
        let first = if begins == index { (device * 7 % 24) as i32 } else { 0 };
        for at in first..month.days() as i32 {
            let day = month.first_day().plus(at);
            let activates = begins == index && at == first;
            if !activates && (at as u32 * 13 + device * 5) % 7 > 2 {
                continue;
            }
            lines.push_str(&line(device, day, if activates { "activate" } else { "wake" }));
        }
    }
    lines
}

fn line(device: u32, day: Day, kind: &str) -> String {
    let country = ["DE", "DE", "FR", "GB", "US", "NL", "BR", "JP"][device as usize * 31 % 97 % 8];
    let product = ["speaker", "speaker", "display", "phone", "laptop", "thermostat"][device as usize * 17 % 89 % 6];
    let key = (u64::from(device) << 20) + day.epoch_days() as u64;
    format!(
        "{{\"event_id\":\"{key:08x}-0000-4000-8000-000000000000\",\"device_id\":\"80000{device:07}\",\"user_id\":\"u{device:07}\",\"type\":\"{kind}\",\
         \"ts\":\"{day}T08:{:02}:00Z\",\"product\":\"{product}\",\"model\":\"m0794\",\"partner\":\"p{}\",\"country\":\"{country}\",\"firmware\":\"1.1.16\",\
         \"consent\":{{\"policy\":\"2018-05-25\",\"purposes\":[\"analytics\"]}}}}\n",
        device % 60,
        device % 2,
    )
}

pub(super) fn ask(method: &str, path: &str, token: Option<&str>) -> axum::http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    match token {
        Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    }
}

pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub bytes: bytes::Bytes,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        Self { status: parts.status, headers: parts.headers, bytes }
    }
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
