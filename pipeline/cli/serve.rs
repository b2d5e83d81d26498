//! `ameles serve`

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use ameles_dashboards::{CompletenessSource, Server, ServerLimits, ServerParts, ServerState, TlsFiles, router};
use ameles_ingest::{Collector, CollectorOptions, KafkaSource, closed_before};
use ameles_queries::Completeness;
use tokio::sync::watch;

use crate::args::ServeArgs;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::home::Location;
use crate::maintenance;

/// Serves until it is asked to stop.
pub async fn run(home: &Location, args: &ServeArgs) -> Result<ExitCode, Failure> {
    let environment = Arc::new(Environment::open(home).await?);
    serve(environment, args.listen).await?;
    Ok(ExitCode::SUCCESS)
}

/// Serves an opened home until the process is asked to stop.
pub async fn serve(environment: Arc<Environment>, listen: Option<SocketAddr>) -> Result<(), Failure> {
    environment.take_up_journal().await?;
    let eraser = environment.eraser();
    let collector = Collector::start(environment.ingest()?, CollectorOptions::default()).await?;
    let kafka = start_kafka(&environment).await?;
    let server = &environment.config.server;
    let tls = match (&server.tls_certificate, &server.tls_key) {
        (Some(certificate), Some(key)) => {
            let root = environment.home.root();
            Some(TlsFiles { certificate: root.join(certificate), key: root.join(key) })
        }
        _ => None,
    };
    let state = ServerState::new(ServerParts {
        eraser: eraser.clone(),
        collector: Some(collector.clone()),
        kafka: kafka.clone(),
        k: environment.k(),
        report_dir: environment.home.reports(),
        policy_version: environment.policy_version.clone(),
        completeness: completeness(&environment, kafka.clone()),
        limits: ServerLimits {
            events_bytes_max: environment.config.ingest.body_bytes_max,
            request_s_max: server.query_timeout_s,
            kept_bytes_max: server.kept_mb << 20,
            issued_bytes_max: environment.config.privacy.issued_mb_max << 20,
            ..ServerLimits::default()
        },
        secure: tls.is_some(),
    });
    let listen = listen.unwrap_or(server.listen);

    let (stop, stopped) = watch::channel(false);
    let maintenance = tokio::spawn(maintenance::work(environment.clone(), eraser, kafka.clone(), stopped.clone()));
    let shutdown = {
        let mut stopped = stopped;
        async move {
            let _sender_gone = stopped.wait_for(|stop| *stop).await;
        }
    };
    let signals = tokio::spawn(async move {
        stop_signal().await;
        tracing::info!("stopping: what is waiting is stored first");
        let _nobody_listens = stop.send(true);
    });
    let bound = Server::bind(listen, tls.as_ref()).map_err(Failure::usage)?;
    tracing::info!("listening on {}", bound.local_addr()?);
    let served = bound.run(router(state), shutdown).await;
    signals.abort();
    // Both commit what they have taken.
    tokio::join!(collector.stop(), async {
        if let Some(kafka) = &kafka {
            kafka.stop().await;
        }
    });
    // Its every step is safe to stop at; waiting lets a commit end.
    maintenance.abort();
    let _aborted = maintenance.await;
    served.map_err(Failure::failed)
}

/// Reads from Kafka where brokers are configured.
async fn start_kafka(environment: &Environment) -> Result<Option<KafkaSource>, Failure> {
    let config = &environment.config.kafka;
    if !config.is_on() {
        return Ok(None);
    }
    let options = config.options(environment.home.root()).map_err(Failure::usage)?;
    Ok(Some(KafkaSource::start(environment.ingest()?, options).await?))
}

/// Files and HTTP are never behind; Kafka may be.
fn completeness(environment: &Environment, kafka: Option<KafkaSource>) -> CompletenessSource {
    let clock = environment.clock.clone();
    Arc::new(move || {
        let now = clock.now();
        let watermark = kafka.as_ref().and_then(KafkaSource::watermark).map_or(now, |watermark| watermark.min(now));
        Completeness { watermark, closed_before: closed_before(watermark) }
    })
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _interrupted = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
