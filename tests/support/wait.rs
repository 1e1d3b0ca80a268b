//! Waits until a condition is true, with a time limit.

use std::time::Duration;

/// Checks the condition repeatedly; fails after `limit`.
pub async fn until(limit: Duration, text: &str, mut what: impl AsyncFnMut() -> bool) {
    let looked = async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(limit, looked).await.is_ok(), "not within {limit:?}: {text}");
}
