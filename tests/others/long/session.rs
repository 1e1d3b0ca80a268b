//! A long session: see `support::long_session`.

use std::time::Duration;

use crate::fakes::long_session::{By, Event, Plan, run};
use crate::process::SAFECONDUCT;

#[tokio::test]
async fn ten_thousand_calls_last_through_a_hundred_tokens_outages_and_restarts() {
    lasts(By::Proxy).await;
}

#[tokio::test]
async fn ten_thousand_calls_of_bridges_last_through_the_same() {
    lasts(By::Bridge).await;
}

async fn lasts(by: By) {
    let milliseconds = Duration::from_millis;
    let mut events = Vec::new();
    for round in 0..5 {
        // Some are over before a call has waited long enough to be told, and some are not.
        events.push(Event::IssuerAway(milliseconds([3_000, 14_000][round % 2])));
        if round % 2 == 0 {
            events.push(Event::DaemonAgain(milliseconds(500)));
            events.push(Event::ServerAgain(milliseconds([400, 6_000][round / 2 % 2])));
        }
    }
    let plan = Plan { by, calls: 10_000, clients: 4, pause: milliseconds(70), life: Duration::from_secs(2), events };
    let report = run(SAFECONDUCT, plan).await;
    assert!(report.wrong().is_empty(), "{report}: {:#?} {:?}", report.wrong(), report.windows);
    assert_eq!(report.calls, 10_000);
    assert!(report.tokens > 100, "{report}");
    assert!(!report.failures.is_empty() && report.failures.len() < 500, "the windows were felt: {report}");
}
