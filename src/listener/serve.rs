//! Serves one connection: how long it may be quiet, how large the head of a request may be, and how it ends. How many
//! connections there may be is in `seats.rs`.
//!
//! A request ends with the body of its answer, not with its head. A body may take as long as it likes to be made, and is only
//! ended if the client stops reading it.

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Running, UntilSent};
use super::begin::Begun;
use super::body::Body;
use super::inbound::Inbound;
use super::limits::{End, Limits, end};
use super::seats::Seat;
use super::seldom::Seldom;
use super::watched::Watched;

/// Answers the requests of a connection. Beside its head a request that was malformed has a [`super::Violation`] as an
/// extension, and nothing of what the client sent.
pub trait Service: Send + Sync {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> Reply<'_>;

    /// A connection ends before its time. For a log that tells all.
    fn ended(&self, _why: &dyn Display) {}
}

/// An answer.
pub enum Reply<'a> {
    /// It is there.
    Now(Response<Body>),
    /// It has to be waited for.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>>),
}

/// What hyper asks.
struct Answers<'a> {
    service: &'a dyn Service,
    activity: &'a Arc<Activity>,
}

/// An answer on its way to hyper, with the request that it ends.
struct Answering<'a> {
    reply: Option<Reply<'a>>,
    running: Option<Running>,
}

impl<'a> hyper::service::Service<Request<Incoming>> for Answers<'a> {
    type Response = Response<UntilSent>;
    type Error = Infallible;
    type Future = Answering<'a>;

    fn call(&self, mut request: Request<Incoming>) -> Answering<'a> {
        let running = self.activity.begin();
        if let Some(violation) = self.activity.malformed() {
            request.extensions_mut().insert(violation);
        }
        Answering { reply: Some(self.service.answer(request)), running: Some(running) }
    }
}

impl Future for Answering<'_> {
    type Output = Result<Response<UntilSent>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.reply.take() {
            Some(Reply::Now(response)) => response,
            Some(Reply::Later(mut future)) => match future.as_mut().poll(context) {
                Poll::Ready(response) => response,
                Poll::Pending => {
                    self.reply = Some(Reply::Later(future));
                    return Poll::Pending;
                }
            },
            None => return Poll::Pending,
        };
        let running = self.running.take();
        Poll::Ready(Ok(response.map(|body| UntilSent::new(body, running))))
    }
}

/// Serves one connection until it ends: each request is given to `service`. The future is boxed here, so that all code of
/// a connection is compiled in this package.
pub fn connection<'a>(
    limits: Limits,
    stop: CancellationToken,
    stream: Begun<'a>,
    seat: &'a Seat,
    service: &'a dyn Service,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(serve(limits, stop, stream, seat, service))
}

async fn serve(limits: Limits, stop: CancellationToken, stream: Begun<'_>, seat: &Seat, service: &dyn Service) {
    let activity = seat.activity();
    let mut http = http1::Builder::new();
    // The looks below bound the time for the head as well, without a timer for each request.
    http.header_read_timeout(None).max_buf_size(limits.head);
    // Most answers are small: copying one behind its head is cheaper than handing the kernel two pieces.
    http.writev(false);
    let stream = Watched::new(stream, Inbound::new(limits.head), Arc::clone(activity));
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), Answers { service, activity }));
    let mut end = std::pin::pin!(end(limits, stop, seat));
    let outcome = tokio::select! {
        biased;
        outcome = connection.as_mut() => outcome,
        end = Seldom::new(end.as_mut()) => match end {
            End::AfterRequest => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            End::AtOnce(why) => {
                service.ended(&why);
                return;
            }
        },
    };
    if let Err(error) = outcome {
        service.ended(&error);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::ready;
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, Sleep, sleep, timeout};

    use super::super::seats::{Owner, Places, Seats};
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    const MINUTE: Duration = Duration::from_secs(60);

    /// A body that streams: so many pieces, each after a pause.
    struct Trickle {
        left: u32,
        every: Duration,
        piece: Bytes,
        pause: Pin<Box<Sleep>>,
    }

    impl Trickle {
        fn new(left: u32, every: Duration, piece: &'static [u8]) -> Self {
            Self { left, every, piece: Bytes::from_static(piece), pause: Box::pin(sleep(every)) }
        }
    }

    impl hyper::body::Body for Trickle {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            ready!(self.pause.as_mut().poll(context));
            self.left -= 1;
            let next = Instant::now() + self.every;
            self.pause.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
        }
    }

    /// Serves `ours` until it ends. The answer to every request is such a body.
    async fn serve(ours: DuplexStream, body: impl Fn() -> Trickle + Send + Sync) {
        serve_as(Owner::User(1), ours, body).await;
    }

    async fn serve_as(owner: Owner, ours: DuplexStream, body: impl Fn() -> Trickle + Send + Sync) {
        let seat = seats().take(owner).expect("all are free");
        serve_at(&seat, ours, body).await;
    }

    fn seats() -> Arc<Seats> {
        Seats::new(Places { all: 4, user: 4, strangers: 4 })
    }

    async fn serve_at(seat: &Seat, ours: DuplexStream, body: impl Fn() -> Trickle + Send + Sync) {
        let service = Streams(body);
        connection(Limits::API, CancellationToken::new(), Begun::new(Vec::new(), Box::new(ours)), seat, &service).await;
    }

    /// Answers every request with such a body.
    struct Streams<B>(B);

    impl<B: Fn() -> Trickle + Send + Sync> Service for Streams<B> {
        fn answer(&self, _: Request<Incoming>) -> Reply<'_> {
            Reply::Now(Response::new(Body::streamed((self.0)())))
        }
    }

    async fn received(body: impl Fn() -> Trickle + Send + Sync) -> String {
        let (ours, mut theirs) = duplex(1_024);
        let client = async {
            theirs.write_all(GET).await.expect("it reads");
            let mut text = String::new();
            theirs.read_to_string(&mut text).await.expect("it ends");
            text
        };
        let both = async { tokio::join!(serve(ours, body), client).1 };
        timeout(60 * MINUTE, both).await.expect("it ends within an hour")
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_for_ten_minutes_is_not_cut() {
        let text = received(|| Trickle::new(60, Duration::from_secs(10), b"event\n")).await;
        assert_eq!(text.matches("event\n").count(), 60);
        assert!(text.ends_with("0\r\n\r\n"), "the last chunk says that the body is whole: {text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_pauses_for_ten_minutes_is_not_cut() {
        let text = received(|| Trickle::new(2, 10 * MINUTE, b"event\n")).await;
        assert_eq!(text.matches("event\n").count(), 2);
        assert!(text.ends_with("0\r\n\r\n"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_many_requests_at_once_does_not_keep_others_waiting() {
        struct Noted<'a>(&'a std::sync::Mutex<String>, char);
        impl Service for Noted<'_> {
            fn answer(&self, _: Request<Incoming>) -> Reply<'_> {
                self.0.lock().expect("no panic").push(self.1);
                Reply::Now(Response::new(Body::whole(Bytes::new(), Bytes::new(), Bytes::new())))
            }
        }
        let answered = std::sync::Mutex::new(String::new());
        let (of_greedy, mut greedy) = duplex(64 * 1_024);
        let (of_other, mut other) = duplex(64 * 1_024);
        greedy.write_all(&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20)).await.expect("there is room");
        other.write_all(GET).await.expect("there is room");
        let seats = [seats().take(Owner::User(1)), seats().take(Owner::User(2))].map(|seat| seat.expect("free"));
        let services = [Noted(&answered, 'g'), Noted(&answered, 'o')];
        let served = async |ours: DuplexStream, at: usize| {
            connection(
                Limits::API,
                CancellationToken::new(),
                Begun::new(Vec::new(), Box::new(ours)),
                &seats[at],
                &services[at],
            )
            .await;
        };
        tokio::join!(served(of_greedy, 0), served(of_other, 1));
        let answered = answered.into_inner().expect("no panic");
        assert_eq!(answered.matches('g').count(), 20, "all are answered: {answered}");
        assert!(answered.find('o').is_some_and(|place| place <= 2), "{answered}");
    }

    /// How long a connection of the API lasts on which the client sends `said` and then nothing.
    async fn lasts(said: &[u8]) -> Duration {
        lasts_for(Owner::User(1), said).await
    }

    async fn lasts_for(owner: Owner, said: &[u8]) -> Duration {
        let (ours, mut theirs) = duplex(64 * 1024);
        let begun = Instant::now();
        let served = serve_as(owner, ours, || Trickle::new(0, MINUTE, b""));
        let client = async {
            theirs.write_all(said).await.expect("there is room");
            theirs.read_to_end(&mut Vec::new()).await.expect("it is closed");
        };
        tokio::join!(served, client);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_no_request_begins_is_closed() {
        let quiet = Limits::API.quiet.as_secs();
        assert_eq!(lasts(b"").await.as_secs(), quiet, "never a word");
        assert_eq!(lasts(b"GET /healthz HTTP/1.1\r\nhost: local").await.as_secs(), quiet, "half a head");
        let whole = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert_eq!(lasts(whole).await.as_secs(), 2 * quiet, "one request, at the first look no longer new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_has_two_seconds_for_the_head_of_a_request() {
        for said in [&b""[..], b"G", b"GET /healthz HTTP/1.1\r\nhost: local"] {
            assert_eq!(lasts_for(Owner::Stranger, said).await.as_secs(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_shows_the_secret_within_two_seconds_may_stay() {
        let (ours, mut theirs) = duplex(1_024);
        let seat = seats().take(Owner::Stranger).expect("all are free");
        let begun = Instant::now();
        let client = async {
            sleep(Duration::from_secs(1)).await;
            theirs.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it reads");
            seat.belongs_to(1);
            theirs.read_to_end(&mut Vec::new()).await.expect("it is closed");
        };
        tokio::join!(serve_at(&seat, ours, || Trickle::new(0, MINUTE, b"")), client);
        assert_eq!(begun.elapsed().as_secs(), 2 + Limits::API.quiet.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_to_make_room_is_closed_at_once() {
        let seats = Seats::new(Places { all: 1, user: 1, strangers: 1 });
        for said in [&b""[..], b"GET /healthz HTTP/1.1\r\nhost: local"] {
            let (ours, mut theirs) = duplex(1_024);
            let seat = seats.take(Owner::User(1)).expect("it is free");
            let begun = Instant::now();
            let client = async {
                theirs.write_all(said).await.expect("there is room");
                sleep(Duration::from_secs(1)).await;
                let newcomer = seats.take(Owner::User(2)).expect("the idle one goes");
                theirs.read_to_end(&mut Vec::new()).await.expect("it is closed");
                drop(newcomer);
            };
            tokio::join!(serve_at(&seat, ours, || Trickle::new(0, MINUTE, b"")), client);
            assert_eq!(begun.elapsed().as_secs(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_closed_when_it_idles_after_its_last_body() {
        let (ours, mut theirs) = duplex(1_024);
        let kept = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        theirs.write_all(kept).await.expect("there is room");
        let (served, text) = tokio::join!(timeout(5 * MINUTE, serve(ours, || Trickle::new(2, MINUTE, b"x"))), async {
            let mut text = String::new();
            theirs.read_to_string(&mut text).await.expect("it ends");
            text
        });
        assert!(served.is_ok() && text.ends_with("0\r\n\r\n"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_reads_is_ended() {
        let (ours, mut theirs) = duplex(1_024);
        theirs.write_all(GET).await.expect("there is room");
        let endless = || Trickle::new(u32::MAX, Duration::from_secs(1), &[b'x'; 512]);
        let served = timeout(5 * MINUTE, serve(ours, endless)).await;
        assert!(served.is_ok(), "a body that nobody reads does not keep a connection open");
    }
}
