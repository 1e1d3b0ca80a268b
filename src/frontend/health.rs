//! Health and metrics on a listener of their own, for kubelet and Prometheus: other machines may reach it, so it
//! serves nothing else and names no server, in reasons and labels too.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request};

use super::api::{self, Answer, Failure, State};
use super::gate;
use super::http::{self, Error};
use super::serve::{self, Course, Limits};

/// A kubelet and a few scrapers; heads and patience as short as theirs.
const LIMITS: Limits = Limits { connections: 64, quiet: Duration::from_secs(10), head: 8 * 1024 };

/// The bound listener.
pub(crate) struct Health {
    listener: StdListener,
    address: SocketAddr,
}

impl Health {
    /// Binds it.
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Error> {
        http::bind(address).map(|(address, listener)| Self { listener, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the course ends.
    pub(crate) async fn serve(&self, state: Arc<State>, course: &Course) -> io::Result<()> {
        let listener = http::into_tokio(&self.listener)?;
        let accept = || http::accept(&listener);
        serve::accept_all(LIMITS, &course.stop, accept, |stream, place| {
            let (state, stop) = (Arc::clone(&state), course.stop.clone());
            course.tasks.spawn(async move {
                let answer = async |request| answer(&state, &request);
                serve::connection(LIMITS, stop, stream, place, answer).await;
            });
        })
        .await;
        Ok(())
    }
}

fn answer(state: &State, request: &Request<Incoming>) -> Answer {
    let outcome = match gate::admit_from_anywhere(request.uri(), request.headers()) {
        Ok(()) => respond(state, request),
        Err(refusal) => Err(refusal.into()),
    };
    outcome.unwrap_or_else(|failure| api::failure(&failure))
}

fn respond(state: &State, request: &Request<Incoming>) -> Result<Answer, Failure> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => Ok(api::alive()),
        (&Method::GET, "/readyz") => Ok(api::readiness(&state.broker.now().not_ready_in_numbers())),
        (&Method::GET, "/metrics") => api::metrics(state.metrics.nameless_text()),
        (_, "/healthz" | "/readyz" | "/metrics") => Err(Failure::method()),
        _ => Err(Failure::nothing_here()),
    }
}
