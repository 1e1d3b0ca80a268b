//! Health and metrics on a listener of their own, for kubelet and Prometheus. Other machines may reach it, so it serves
//! nothing else, and no reason and no label names a server.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use futures_util::future::try_join_all;
use safeconduct_listener::{self as listener, Begun, Limits, Owner, Places, Seats};

use super::course::Course;
use super::descriptors::Share;
use super::desk::State;
use super::funnel::Answers;
use super::gate::Pass;
use super::http::{self, Error};
use super::route;
use crate::caller::Caller;

/// For a kubelet and a few scrapers. Each connection is a stranger's: it has one request.
const PLACES: Places = Places { all: 64, user: 64, strangers: 64 };
const LIMITS: Limits = Limits { head: 8 * 1024, ..Limits::API };

/// The bound listeners: one, or the two of `localhost`.
pub(crate) struct Health(Vec<(SocketAddr, StdListener)>);

impl Health {
    /// Binds the configured addresses. `None` if there are none.
    pub(crate) fn open(configured: &[SocketAddr]) -> Result<Option<Self>, Error> {
        let bound = http::bind_each(configured.iter(), false)?;
        Ok((!bound.is_empty()).then_some(Self(bound)))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.first().map(|(address, _)| *address)
    }

    /// The descriptors that its connections can take.
    pub(crate) fn descriptors(&self) -> usize {
        self.0.len() * PLACES.descriptors(1)
    }

    /// Serves until the daemon stops.
    pub(crate) async fn serve(&self, state: Arc<State>, course: &Course, share: Share) -> io::Result<()> {
        let all = self.0.iter().map(|(_, listener)| Self::serve_one(listener, &state, course, share));
        try_join_all(all).await.map(drop)
    }

    async fn serve_one(bound: &StdListener, state: &Arc<State>, course: &Course, share: Share) -> io::Result<()> {
        let bound = http::into_tokio(bound)?;
        let accept = || http::accept(&bound);
        let seats = Seats::new(share.places(PLACES, 1));
        listener::accept_all(&course.stop, accept, |stream| {
            let (state, stop) = (Arc::clone(state), course.stop.clone());
            let Some(seat) = seats.take(Owner::Stranger) else { return };
            course.tasks.spawn(async move {
                let nobody = Caller::unproved();
                let answer = |request| route::answer(&Pass::Anyone, state.desk(), &nobody, request);
                let begun = Begun::new(Vec::new(), Box::new(stream));
                listener::connection(LIMITS, stop, begun, &seat, &Answers(answer)).await;
            });
        })
        .await
    }
}
