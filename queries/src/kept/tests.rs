#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::Int64Array;

use super::*;
use crate::tests::block_on;

const ROOM: usize = 1 << 20;

fn id(version: i64, sequence: u64) -> SnapshotId {
    SnapshotId { versions: vec![version, 1], sequence }
}

fn question_at(name: &str, k: u32, watermark: &str) -> Question {
    let completeness = Completeness { watermark: watermark.parse().unwrap(), closed_before: "2018-09".parse().unwrap() };
    Question::new(&MetricRequest::named(name), k, completeness)
}

fn question(name: &str, k: u32) -> Question {
    question_at(name, k, "2018-10-01T12:00:00Z")
}

fn rows(value: i64, count: usize) -> RecordBatch {
    RecordBatch::try_from_iter([("value", Arc::new(Int64Array::from(vec![value; count])) as arrow::array::ArrayRef)]).unwrap()
}

/// Answers numbered in the order in which they are computed.
struct Engine {
    kept: KeptAnswers,
    computed: AtomicU64,
}

impl Engine {
    fn new() -> Self {
        Self { kept: KeptAnswers::new(ROOM), computed: AtomicU64::new(0) }
    }
    async fn ask_later(&self, snapshot: &SnapshotId, question: Question) -> i64 {
        let compute = async {
            tokio::task::yield_now().await;
            Ok(rows(self.computed.fetch_add(1, Ordering::Relaxed) as i64, 3))
        };
        let answer = self.kept.answer(snapshot, question, compute).await.unwrap();
        answer.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0)
    }
    fn ask(&self, snapshot: &SnapshotId, question: Question) -> i64 {
        block_on(self.ask_later(snapshot, question))
    }
}

#[test]
fn a_question_is_computed_once_in_a_snapshot_and_never_for_another_k() {
    let engine = Engine::new();
    assert_eq!(engine.ask(&id(1, 0), question("dau", 10)), 0);
    assert_eq!(engine.ask(&id(1, 0), question("dau", 10)), 0);
    assert_eq!(engine.ask(&id(1, 0), question("dau", 11)), 1);
    assert_eq!(engine.ask(&id(1, 0), question("mau", 10)), 2);
    assert_eq!(engine.ask(&id(1, 0), question("dau", 10)), 0);
    // What `complete` says depends on the day that the watermark has reached.
    assert_eq!(engine.ask(&id(1, 0), question_at("dau", 10, "2018-10-01T23:59:59Z")), 0);
    assert_eq!(engine.ask(&id(1, 0), question_at("dau", 10, "2018-10-02T00:00:00Z")), 3);
}

#[test]
fn answers_of_smaller_groups_than_the_configured_are_not_kept() {
    let engine = Engine { kept: KeptAnswers::new(ROOM).of_groups_from(10), computed: AtomicU64::new(0) };
    assert_eq!((engine.ask(&id(1, 0), question("dau", 9)), engine.ask(&id(1, 0), question("dau", 9))), (0, 1));
    assert_eq!(engine.kept.bytes(), 0);
    assert_eq!((engine.ask(&id(1, 0), question("dau", 10)), engine.ask(&id(1, 0), question("dau", 10))), (2, 2));
}

#[test]
fn a_commit_and_a_suppression_drop_what_is_older() {
    let engine = Engine::new();
    engine.ask(&id(1, 0), question("dau", 10));
    let one = engine.kept.bytes();
    engine.ask(&id(1, 0), question("mau", 10));
    assert!(engine.kept.bytes() > one);
    assert_eq!(engine.ask(&id(2, 0), question("dau", 10)), 2);
    assert_eq!(engine.kept.bytes(), one, "both of the older snapshot are gone");
    assert_eq!(engine.ask(&id(2, 1), question("dau", 10)), 3);
    assert_eq!(engine.kept.bytes(), one);
}

#[test]
fn a_question_over_an_older_view_is_neither_answered_from_what_is_kept_nor_kept() {
    let engine = Engine::new();
    assert_eq!(engine.ask(&id(2, 1), question("dau", 10)), 0);
    for older in [id(1, 1), id(2, 0), id(3, 0), id(1, 2)] {
        let before = engine.computed.load(Ordering::Relaxed) as i64;
        assert_eq!(engine.ask(&older, question("dau", 10)), before);
    }
    assert_eq!(engine.ask(&id(2, 1), question("dau", 10)), 0);
}

#[test]
fn an_answer_that_comes_after_a_newer_snapshot_is_not_kept() {
    let engine = Engine::new();
    let older = id(1, 0);
    block_on(async {
        let slow = engine.kept.answer(&older, question("dau", 10), async {
            // Meanwhile a device is suppressed, and somebody asks.
            let newer = engine.kept.answer(&id(1, 1), question("dau", 10), async { Ok(rows(7, 3)) }).await.unwrap();
            assert_eq!(newer, rows(7, 3));
            Ok(rows(8, 3))
        });
        assert_eq!(slow.await.unwrap(), rows(8, 3));
    });
    let unasked = async { unreachable!("it is kept") };
    assert_eq!(block_on(engine.kept.answer(&id(1, 1), question("dau", 10), unasked)).unwrap(), rows(7, 3));
}

#[test]
fn of_several_who_ask_at_once_one_computes() {
    let engine = Engine::new();
    let snapshot = id(1, 0);
    let all = block_on(futures::future::join_all((0..20).map(|_| engine.ask_later(&snapshot, question("dau", 10)))));
    assert_eq!(all, [0; 20]);
}

#[test]
fn errors_are_not_kept() {
    let kept = KeptAnswers::new(ROOM);
    let failed = async { Err(QueryError::TimedOut { seconds: 1 }) };
    block_on(kept.answer(&id(1, 0), question("dau", 10), failed)).unwrap_err();
    let answer = block_on(kept.answer(&id(1, 0), question("dau", 10), async { Ok(rows(1, 1)) })).unwrap();
    assert_eq!(answer, rows(1, 1));
}

#[test]
fn bytes_are_bounded() {
    let kept = KeptAnswers::new(10_000);
    for k in 2..100 {
        block_on(kept.answer(&id(1, 0), question("dau", k), async { Ok(rows(1, 40)) })).unwrap();
        assert!(kept.bytes() <= 10_000);
    }
    assert!(kept.bytes() > 5_000);
    // What is too large alone is answered and not kept.
    let large = block_on(kept.answer(&id(1, 0), question("dau", 500), async { Ok(rows(1, 4_000)) })).unwrap();
    assert_eq!(large.num_rows(), 4_000);
    assert!(kept.bytes() <= 10_000);
}
