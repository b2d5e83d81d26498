//! The warehouse against a model in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod compaction;
mod crashes;
mod direct;
mod erasure;
pub(crate) mod forgetful;
mod hiding;
mod laws;
mod life;
mod positions;
mod power;
mod reads;
mod rebuild;
mod simulation;
mod speed;
mod splicing;
pub(crate) mod support;
