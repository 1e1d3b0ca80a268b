//! What a server without sessions sends by itself: a `subscriptions/listen` with what the client can know of, opened after
//! `notifications/initialized`, with another filter when the client subscribes to a resource, and again whenever it ends.
//!
//! With another filter the new stream is acknowledged before the old one is closed, so that nothing is missed. After a stream that
//! broke the client is told that everything may have changed.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::Bridge;
use super::super::link::Lane;
use super::super::passing::{is_ours_and_passes, is_passing};
use super::super::told::Why;
use super::made::{End, Made, State, new_id};
use super::{Met, Wanted};
use crate::mcp::era::answer::Answer;
use crate::mcp::era::filter::Filter;
use crate::mcp::era::request;

/// So long the acknowledgement is waited for.
const OPENING: Duration = Duration::from_secs(10);
/// A stream that lived so long has not failed.
const LIVED: Duration = Duration::from_secs(10);
/// The first pause before a stream is opened again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// An open stream. It is closed when this is dropped.
struct Stream {
    filter: Filter,
    state: watch::Receiver<State>,
    since: Instant,
    _stop: DropGuard,
}

impl Stream {
    /// Waits until it is acknowledged, or has ended.
    async fn opened(&mut self) -> Result<Filter, End> {
        let begun = self.state.wait_for(|state| state.honored.is_some() || state.ended.is_some());
        let Ok(Ok(state)) = timeout(OPENING, begun).await.map(|state| state.map(|state| state.clone())) else {
            return Err(End::Broken);
        };
        match state.honored.map(|honored| honored.within(&self.filter)) {
            Some(honored) if honored.is_empty() => Err(End::Refused),
            Some(honored) => Ok(honored),
            None => Err(state.ended.unwrap_or(End::Broken)),
        }
    }

    /// Waits until it has ended.
    async fn ended(stream: &mut Option<Self>) {
        match stream {
            Some(stream) => drop(stream.state.wait_for(|state| state.ended.is_some()).await),
            None => std::future::pending().await,
        }
    }
}

fn pause(failures: u32) -> Duration {
    let (first, longest) = PAUSES;
    longest.min(first.saturating_mul(1 << failures.min(16)))
}

/// What is kept between the attempts.
#[derive(Default)]
struct Following {
    current: Option<Stream>,
    failures: u32,
    /// Something may have been missed.
    has_gap: bool,
    not_before: Option<Instant>,
}

impl Following {
    /// An attempt failed, or a stream has ended.
    fn failed(&mut self) {
        self.not_before = Some(Instant::now() + pause(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.has_gap = true;
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, wanted: &mut watch::Receiver<Wanted>) -> Result<(), watch::error::RecvError> {
        let not_before = self.not_before;
        let later = async {
            match not_before {
                Some(time) => sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => changed?,
            () = Stream::ended(&mut self.current) => {
                let has_lived = self.current.take().is_some_and(|stream| stream.since.elapsed() >= LIVED);
                self.failures = if has_lived { 0 } else { self.failures };
                self.failed();
                return Ok(());
            }
            () = later => {}
        }
        self.not_before = None;
        Ok(())
    }
}

impl Bridge {
    /// Keeps a stream with what is wanted.
    pub(in crate::bridge) async fn follow(self: Arc<Self>, met: Arc<Met>) {
        let mut wanted = met.wanted.subscribe();
        let mut following = Following::default();
        loop {
            let Wanted { filter, serial } = wanted.borrow_and_update().clone();
            let there = following.current.as_ref().filter(|stream| stream.filter == filter);
            let honored = match there {
                _ if filter.is_empty() => {
                    following.current = None;
                    Some(filter)
                }
                Some(stream) => stream.state.borrow().honored.clone(),
                None if following.not_before.is_some() => None,
                None => Some(self.open_in_place(&met, filter, &mut following).await),
            };
            if let Some(filter) = honored {
                met.confirmed.send_replace(Wanted { filter, serial });
            }
            if following.wait(&mut wanted).await.is_err() {
                return;
            }
        }
    }

    /// Opens a stream, which takes the place of the one that is there. Gives what the server sends: nothing, if it failed.
    async fn open_in_place(self: &Arc<Self>, met: &Arc<Met>, filter: Filter, following: &mut Following) -> Filter {
        let mut stream = self.open(met, filter);
        let honored = match stream.opened().await {
            Ok(honored) => honored,
            Err(end) => {
                if end == End::Broken {
                    following.failed();
                }
                return Filter::default();
            }
        };
        following.current = Some(stream);
        if std::mem::take(&mut following.has_gap) {
            for change in honored.changes(None) {
                self.say(change.into_bytes()).await;
            }
        }
        honored
    }

    fn open(self: &Arc<Self>, met: &Arc<Met>, filter: Filter) -> Stream {
        let (sender, state) = watch::channel(State::default());
        let stop = CancellationToken::new();
        let id = new_id();
        let message = request::listen(id.as_str(), &met.own_meta(), &filter);
        let (bridge, stopped) = (Arc::clone(self), stop.clone());
        self.tasks.spawn(async move {
            let made = Made::listening(id, sender.clone());
            let asked = bridge.exchange(made, "subscriptions/listen", message.into(), Lane::Others);
            let Some(reply) = stopped.run_until_cancelled(asked).await else { return };
            let ended = match reply {
                Ok(reply) if reply.is_passing() => End::Broken,
                Ok(reply) => end_of(&reply.text),
                Err(Why::Status(status)) => end_of_status(status),
                Err(Why::NotServed | Why::DaemonNotUsable | Why::Malformed | Why::NoAnswer) => End::Refused,
                Err(_) => End::Broken,
            };
            if ended == End::Refused {
                tracing::warn!("the server does not send what the client could be told of");
            }
            sender.send_modify(|state| state.ended = Some(ended));
        });
        Stream { filter, state, since: Instant::now(), _stop: stop.drop_guard() }
    }
}

/// What an answer with this status and without a message means.
fn end_of_status(status: u16) -> End {
    let passes = StatusCode::from_u16(status).is_ok_and(is_passing);
    if passes { End::Broken } else { End::Refused }
}

/// What the answer to a `subscriptions/listen` means.
fn end_of(answer: &str) -> End {
    match Answer::read(answer) {
        Answer::Result(_) => End::Broken,
        Answer::Error(_) if is_ours_and_passes(answer.as_bytes()) => End::Broken,
        _ => End::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_opened_again_at_once_and_later_if_that_does_not_help() {
        let pauses: Vec<u128> = (0..11).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(pause(u32::MAX), PAUSES.1);
    }

    #[test]
    fn only_what_passes_is_asked_for_again_at_once() {
        let of = |member: &str| end_of(&format!(r#"{{"jsonrpc":"2.0","id":"n",{member}}}"#));
        assert_eq!(of(r#""result":{"resultType":"complete"}"#), End::Broken, "the server ends it in good order");
        let ours = |class| format!(r#""error":{{"code":-31080,"message":"m","data":{{"class":"{class}"}}}}"#);
        assert_eq!(of(&ours("temporary")), End::Broken);
        for refused in [ours("refused"), r#""error":{"code":-32601,"message":"m"}"#.to_owned()] {
            assert_eq!(of(&refused), End::Refused);
        }
    }
}
