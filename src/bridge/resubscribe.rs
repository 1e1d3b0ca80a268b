//! A `subscriptions/listen` of the client itself, on the wire since 2026-07-28. If it breaks, it is opened again with the filter of the
//! client.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::Bridge;
use super::events::Progress;
use super::fields::{Media, media};
use super::link::{Answer, Body, Lane, Outbound};
use super::message::Route;
use super::passing::{is_ours_and_passes, is_passing};
use super::post::no_message;
use super::requests::Ticket;
use super::subscription::Subscription;
use super::told::Why;

/// A stream that lived so long has not failed.
const LIVED: Duration = Duration::from_secs(10);

impl Bridge {
    /// Reads the stream of a subscription until the client or the server ends it.
    pub(super) async fn subscription(&self, ticket: &Ticket, request: Bytes, mut body: Body) -> Result<(), Why> {
        let subscription = Subscription::default();
        let mut failures = 0_u32;
        loop {
            let (mut progress, since) = (Progress::of_request(), Instant::now());
            self.events(&mut body, Route::Listen(ticket, &subscription), &mut progress).await?;
            if progress.is_answered {
                return Ok(());
            }
            failures = if since.elapsed() >= LIVED { 0 } else { failures.saturating_add(1) };
            // The broken one must not keep the place that the next one needs.
            drop(body);
            body = loop {
                progress.failures = failures;
                progress.wait().await;
                match self.subscribe_again(ticket, request.clone()).await? {
                    Again::Open(body) => break body,
                    Again::Later => failures = failures.saturating_add(1),
                    Again::Answered => return Ok(()),
                }
            };
        }
    }

    async fn subscribe_again(&self, ticket: &Ticket, request: Bytes) -> Result<Again, Why> {
        let fields = self.fields(&ticket.wire, false);
        let outbound = Outbound { method: Method::POST, target: self.target().await?, fields, body: request };
        let Answer { head, body } = match self.link.send(outbound, Lane::Others).await {
            Ok(answer) => answer,
            Err(Why::DaemonAway | Why::AnswerLost) => return Ok(Again::Later),
            Err(why) => return Err(why),
        };
        match (head.status, media(&head.headers)) {
            (StatusCode::OK, Media::Events) => Ok(Again::Open(body)),
            (status, _) if is_passing(status) => Ok(Again::Later),
            (status, Media::Json) => {
                let answer = self.whole(body).await?;
                if is_ours_and_passes(&answer) {
                    return Ok(Again::Later);
                }
                self.deliver_whole(ticket, status, &answer).await.map(|()| Again::Answered)
            }
            (status, media) => Err(no_message(status, media)),
        }
    }
}

/// What became of a subscription that was opened again.
enum Again {
    Open(Body),
    Later,
    Answered,
}
