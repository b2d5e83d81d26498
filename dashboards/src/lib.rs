//! The server: HTTP API, dashboard, metrics for operators.
//!
//! Each route names the access that it needs in its handler's signature; an identifier travels in a
//! body only, and no error, log line or label of this crate holds one.

mod auth;
mod body;
mod error;
mod kafka_metrics;
mod middleware;
mod page;
mod routes;
mod serve;
mod session;
mod state;
mod telemetry;
mod tokens;

pub use error::ApiError;
pub use routes::router;
pub use serve::{ServeError, Server, TlsFiles, serve};
pub use state::{CompletenessSource, ServerLimits, ServerParts, ServerState, completeness_by_clock};
pub use telemetry::Telemetry;

#[cfg(test)]
mod tests;
