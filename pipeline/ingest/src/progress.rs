//! What long work tells while it runs.

/// Told from the coordinating task only, never from a worker thread.
pub trait Progress: Send + Sync {
    /// The bytes that are there to read, as stored (compressed), when known.
    fn total(&self, bytes: Option<u64>);
    /// Bytes read so far (as stored) and events received so far.
    fn advanced(&self, bytes: u64, rows: u64);
    /// What is being done now, without identifiers or file names.
    fn message(&self, text: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn total(&self, _bytes: Option<u64>) {}
    fn advanced(&self, _bytes: u64, _rows: u64) {}
    fn message(&self, _text: &str) {}
}
