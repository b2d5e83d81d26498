#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub(crate) mod certificates;
mod fixture;
mod handing_over;
mod hiding;
mod jobs;
mod opendsr;
mod resuming;
