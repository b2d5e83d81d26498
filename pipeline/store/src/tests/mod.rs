//! The warehouse against a model in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crashes;
mod erasure;
mod laws;
mod life;
mod positions;
mod reads;
mod speed;
pub(crate) mod support;
