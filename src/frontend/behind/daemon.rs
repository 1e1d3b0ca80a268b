//! The daemon behind an endpoint: one connection for each request.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::broker::Class;
use crate::frontend::answer::Failure;
use crate::relay::{self, Streamed};

/// So long a daemon that went away is waited for, and the pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(100);

/// The daemon behind this endpoint: the function gives a connection to it. `ConnectionRefused` means that it may come back.
pub(crate) struct Behind(pub(crate) Box<dyn Fn() -> io::Result<StdStream> + Send + Sync>);

impl Behind {
    /// Sends a request, and gives the answer as it comes.
    pub(in crate::frontend) async fn send(&self, request: Request<Streamed>) -> Result<Response<Streamed>, Failure> {
        let away = |error: &dyn std::fmt::Display| {
            let message = format!("the daemon that this endpoint asks gives no answer: {error}");
            Failure::new(Class::Temporary, "daemon_away", message)
        };
        let stream = self.connected().await.map_err(|error| away(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
        let mut connection: Connection = Box::pin(connection);
        let mut has_ended = false;
        let mut sent = pin!(sender.send_request(request));
        let answer = tokio::select! {
            biased;
            answer = &mut sent => answer,
            _ = &mut connection => {
                has_ended = true;
                sent.await
            }
        };
        let (mut head, incoming) = answer.map_err(|error| away(&error))?.into_parts();
        head.headers = relay::fields_to_client(head.headers);
        let connection = (!has_ended).then_some(connection);
        Ok(Response::from_parts(head, Box::pin(Passing { connection, incoming }) as Streamed))
    }

    async fn connected(&self) -> io::Result<UnixStream> {
        let until = Instant::now() + PATIENCE;
        loop {
            match (self.0)() {
                Ok(stream) => {
                    stream.set_nonblocking(true)?;
                    return UnixStream::from_std(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() + PAUSE <= until => {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An answer together with the connection that it comes from, which has to be driven.
struct Passing {
    connection: Option<Connection>,
    incoming: Incoming,
}

impl Body for Passing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let ended = self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(context).is_ready());
        if ended {
            self.connection = None;
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
