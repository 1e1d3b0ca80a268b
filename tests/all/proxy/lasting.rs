//! Sessions through rotations, an outage of the issuer and a restart of the daemon. Ten thousand calls of the same kind are in
//! `tests/others/long.rs`.

use std::time::Duration;

use support::long_session::{Event, Plan, Why, run};

use crate::binary;

#[tokio::test]
async fn sessions_outlast_rotations_an_outage_and_a_restart_of_the_daemon() {
    let seconds = Duration::from_secs;
    let events = vec![Event::IssuerAway(Duration::from_millis(2_500)), Event::DaemonAgain(Duration::from_millis(200))];
    let plan = Plan { calls: 240, clients: 3, pause: Duration::from_millis(40), life: seconds(2), events };
    let report = run(binary(), plan).await;
    assert!(report.wrong().is_empty(), "{report}: {:#?} {:?}", report.wrong(), report.windows);
    assert_eq!(report.calls, 240);
    assert!(report.tokens >= 3, "{report}");
    assert!(report.windows.iter().any(|window| window.why == Why::Daemon), "{report}");
    // More would mean that nothing was tried.
    assert!(report.failures.len() < 30, "{report}");
}
