//! `erase run` beside a process that maintains the warehouse.

use ameles_core::SubjectKind::Device;
use ameles_ledger::RequestState;

use super::fixture::{Home, remaining};
use crate::{ErasureError, Silent, Step};

#[tokio::test]
async fn the_maintainer_carries_the_run_out_and_the_other_follows() {
    let home = Home::with_fleet().await;
    let id = home.submit(Device, "d1").await;
    let mut maintainer = home.eraser.warehouse.try_maintainer(&*home.eraser.random).await.unwrap().unwrap();
    assert!(home.eraser.run_if_requested(&mut maintainer, &Silent).await.unwrap().is_none());
    let asking = home.eraser.clone();
    let follower = tokio::spawn(async move { asking.run("cli", &Silent).await });
    let carried_out = loop {
        if let Some(report) = home.eraser.run_if_requested(&mut maintainer, &Silent).await.unwrap() {
            break report;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(carried_out.requests.len(), 1);
    let followed = follower.await.unwrap().unwrap();
    assert!(followed.handed_over);
    assert_eq!((followed.requests[0].id, followed.requests[0].state, followed.requests[0].rows), (id, RequestState::Completed, 4));
    assert!(home.eraser.run_if_requested(&mut maintainer, &Silent).await.unwrap().is_none());
    home.assert_holds_only(&remaining(|event| event.device == "d1")).await;
}

#[tokio::test]
async fn the_follower_hears_of_a_failure() {
    let home = Home::with_fleet().await;
    home.submit(Device, "d1").await;
    let mut maintainer = home.eraser.warehouse.try_maintainer(&*home.eraser.random).await.unwrap().unwrap();
    home.eraser.faults.fail_after(Step::Plan);
    let asking = home.eraser.clone();
    let follower = tokio::spawn(async move { asking.run("cli", &Silent).await });
    while home.eraser.run_if_requested(&mut maintainer, &Silent).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(matches!(follower.await.unwrap(), Err(ErasureError::HandedOver(_))));
}

#[tokio::test]
async fn the_follower_takes_over_when_the_maintainer_ends() {
    let home = Home::with_fleet().await;
    home.submit(Device, "d1").await;
    let maintainer = home.eraser.warehouse.try_maintainer(&*home.eraser.random).await.unwrap().unwrap();
    let asking = home.eraser.clone();
    let follower = tokio::spawn(async move { asking.run("cli", &Silent).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    drop(maintainer);
    let report = follower.await.unwrap().unwrap();
    assert!(!report.handed_over);
    assert_eq!(report.rows_erased, 4);
}
