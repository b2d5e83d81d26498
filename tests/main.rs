//! End to end: the binary as a user runs it, on real files, a real server, a
//! real browser and other makers' readers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod bad_input;
mod canary;
mod crash;
mod erasure;
mod files;
mod http_load;
mod kafka;
mod ledger;
mod load;
mod metrics;
mod policy;
mod readers;
mod rebuild;
mod reissue;
mod server;
mod support;
mod tidy;
