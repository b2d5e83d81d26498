//! `ameles erase` and its subcommands.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `ameles erase`.
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: EraseCommand,
}

/// `ameles erase …`.
#[derive(Debug, Subcommand)]
pub enum EraseCommand {
    /// Take in a request; its subject is suppressed from then on.
    Submit {
        /// Read a device's identifier from standard input: always `-`.
        #[arg(long, value_name = "-")]
        device: Option<String>,
        /// Read a user's identifier from standard input: always `-`.
        #[arg(long, value_name = "-")]
        user: Option<String>,
        /// A CSV file with the header kind,identifier; - for standard input.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "user"])]
        file: Option<PathBuf>,
        /// The regulation that the request rests on.
        #[arg(long, default_value = "gdpr")]
        regulation: String,
        /// The day or time at which the request was received, if not now.
        #[arg(long, value_name = "DATE")]
        received: Option<String>,
        /// Your case number: letters, digits and -.
        #[arg(long, value_name = "CASE")]
        reference: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Carry out all that is pending, in one pass.
    Run {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Tell what a run would do; changes nothing.
    Preview {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show a request.
    Status {
        /// The request.
        id: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List requests.
    List {
        /// Only those past their due date.
        #[arg(long)]
        overdue: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Extend a request's due date, within the first month and with a reason.
    Extend {
        /// The request.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Cancel a pending request.
    Cancel {
        /// The request.
        id: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print a completed request's certificate.
    Certificate {
        /// The request.
        id: String,
        /// Write to FILE instead of standard output.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check a certificate's signature, offline.
    CheckCertificate {
        /// The certificate.
        file: PathBuf,
        /// The public key: a file, base64 or hex.
        #[arg(long, value_name = "KEY")]
        public_key: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Decode all that the warehouse keeps and report what remains of erased subjects.
    Verify {
        /// Look for one device, its identifier read from standard input: always `-`.
        #[arg(long, value_name = "-")]
        device: Option<String>,
        /// Look for one user, its identifier read from standard input: always `-`.
        #[arg(long, value_name = "-", conflicts_with = "device")]
        user: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}
