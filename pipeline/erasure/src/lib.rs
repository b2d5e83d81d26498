//! Erasure: requests are submitted, carried out in a job that survives `kill -9`,
//! verified by decoding what may hold a subject, and certified with a signature.
//!
//! `docs/erasure.md` tells the state machine in prose. Identifiers enter as
//! [`ameles_pseudonym::RawIdentifier`], are pseudonymised at once under every key
//! epoch, and go no further.

mod canonical;
mod census;
pub mod certificate;
mod certify;
mod eraser;
mod error;
mod evidence;
mod fault;
mod handover;
pub mod opendsr;
mod preview;
mod progress;
mod record;
mod resolve;
mod run;
mod signature;
mod submit;
mod verify;

pub use canonical::{CanonicalError, canonical_bytes};
pub use certificate::Certificate;
pub use eraser::{Elsewhere, Eraser, Layout, Settings};
pub use error::ErasureError;
pub use fault::{FaultPoints, Step};
pub use preview::{NumberChange, Preview};
pub use progress::{Progress, Silent};
pub use run::{RequestOutcome, RunReport};
pub use signature::{CertificateError, CertificateVerdict, check_certificate, parse_public_key, sign_certificate};
pub use submit::{ListSubmission, RefusedRow, SUBJECT_REQUEST_ID, SubmitOptions};
pub use verify::VerifyReport;

#[cfg(test)]
mod tests;
