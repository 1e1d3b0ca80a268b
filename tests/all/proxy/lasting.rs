//! Sessions through rotations, an outage of the issuer and restarts of server and daemon, by proxy and by bridge. Ten thousand calls of the same kind are in
//! `tests/others/long.rs`.

use std::time::Duration;

use support::long_session::{By, Event, Plan, Why, run};

use crate::binary;

#[tokio::test]
async fn sessions_outlast_rotations_an_outage_and_restarts_of_server_and_daemon() {
    lasts(By::Proxy).await;
}

#[tokio::test]
async fn sessions_of_bridges_outlast_the_same() {
    lasts(By::Bridge).await;
}

async fn lasts(by: By) {
    let (seconds, milliseconds) = (Duration::from_secs, Duration::from_millis);
    let events = vec![
        Event::IssuerAway(milliseconds(2_500)),
        Event::ServerAgain(milliseconds(100)),
        // It forgets which session stands for the one before.
        Event::DaemonAgain(milliseconds(200)),
    ];
    let plan = Plan { by, calls: 240, clients: 3, pause: milliseconds(40), life: seconds(2), events };
    let report = run(binary(), plan).await;
    assert!(report.wrong().is_empty(), "{report}: {:#?} {:?}", report.wrong(), report.windows);
    assert_eq!(report.calls, 240);
    assert!(report.tokens >= 3, "{report}");
    assert!(report.windows.iter().any(|window| window.why == Why::Daemon), "{report}");
    // More would mean that nothing was tried.
    assert!(report.failures.len() < 30, "{report}");
}
