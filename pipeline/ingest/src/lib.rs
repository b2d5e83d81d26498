//! From bytes of a source to committed events: decode by contract, admission
//! (consent, suppression, duplicates), columnar batches, files and HTTP.
//!
//! A raw identifier enters in a line of a source and leaves as a pseudonym
//! before the line's buffer is reused; nothing of this crate writes, logs or
//! reports one.
//!
//! ```text
//! file ─ reader ─▶ chunks ─▶ workers: decode, admit ─▶ parts ─▶ assembler ─▶ Append ─▶ lease
//! Kafka ─ reader ▶ chunks ─▶ workers: decode, admit ─▶ parts ─▶ assembler ─▶ Append ─▶ lease
//! HTTP ───────────────────── body: decode, admit ────▶ parts ─▶ collector ─▶ Append ─▶ lease
//! ```

pub mod admission;
pub mod batch;
#[doc(hidden)]
pub mod bench;
mod collector;
mod commit;
pub mod decode;
mod duplicates;
mod env;
mod error;
mod files;
mod kafka;
mod lines;
mod progress;
mod repeats;
#[cfg(test)]
mod testing;
mod undeclared;
mod watermark;

pub use collector::{BodyFormat, Collector, CollectorOptions, LineError, Reply, Room, SubmitError};
pub use duplicates::{Checked, DuplicateError, DuplicateMemory};
pub use env::{EnvParts, IngestEnv};
pub use error::IngestError;
pub use files::{FileError, FileOptions, FileOutcome, FileReport, ingest_files};
pub use kafka::{
    KafkaErrors, KafkaOptions, KafkaSettingsError, KafkaSource, KafkaStatus, PartitionStatus, Property, ResetPartition, TopicInfo,
    reset_kafka,
};
pub use progress::{NoProgress, Progress};
pub use undeclared::{UndeclaredField, UndeclaredReport};
pub use watermark::{Watermark, closed_before, is_closed};
