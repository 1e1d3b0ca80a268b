//! A token request as it was sent, so that `doctor` can send the same identity token again.

use super::route::Route;
use super::{Error, Minter, TokenRequest};
use crate::exchange::{self, Issued};
use crate::oauth::Issuer;
use crate::token::SubjectToken;

/// What was sent, to whom, and when.
pub(in crate::broker) struct Sent {
    pub(super) route: Route,
    pub(in crate::broker) request: exchange::Request,
    /// The identity token that the authorization server got.
    pub(in crate::broker) subject: Option<SubjectToken>,
    /// In seconds since 1970.
    pub(in crate::broker) unix: i64,
}

impl Sent {
    /// The authorization server.
    pub(in crate::broker) fn issuer(&self) -> &Issuer {
        &self.route.server.issuer
    }
}

impl Minter {
    /// Sends the same request once more, with the same identity token. Only an examination does that: it finds out whether the
    /// server takes a token twice.
    pub(in crate::broker) async fn again(&self, want: &TokenRequest, sent: &Sent) -> Result<Issued, Error> {
        let server = &sent.route.server;
        let exchange = sent.route.exchange(&want.order)?;
        let place = self.pace.enter(&server.issuer, &want.urgency).await?;
        let origins = self.origins(&want.server, &server.issuer);
        let issued = exchange.exchange(&self.endpoint(server, &origins), sent.subject.as_ref(), &sent.request).await;
        drop(place);
        Ok(issued?)
    }
}
