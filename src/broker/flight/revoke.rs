//! Revokes a token where it was issued (RFC 7009), as the client that it was issued to.

use std::sync::Arc;

use super::super::refused::Presented;
use super::super::{Class, Error};
use super::chain::{Leg, expected_audience};
use super::route::Route;
use super::{Minter, TokenRequest, plain_request};
use crate::exchange::{ClientAuth, Gives, IssuerOrigin, revocation};
use crate::oauth::{AuthorizationServer, Issuer, Scopes};
use crate::token::{AccessToken, SubjectToken, Token};

impl Minter {
    /// Revokes a token. Fails if no authorization server issued it, if that server does not offer revocation or
    /// refuses, or if our client cannot authenticate there.
    pub(in crate::broker) async fn revoke(&self, want: &TokenRequest, token: &Token) -> Result<(), revocation::Error> {
        let Some(secret) = token.credential.token() else { return Err(revocation::Error::NotOffered) };
        self.give_back(want, &token.issuer, secret).await?;
        self.to_give_back.forget(&token.digest);
        Ok(())
    }

    /// The same for the text of a token and who issued it.
    pub(in crate::broker) async fn give_back(
        &self,
        want: &TokenRequest,
        issuer: &Issuer,
        token: &AccessToken,
    ) -> Result<(), revocation::Error> {
        let order = &*want.order;
        let traits = order.expected().traits();
        if traits.gives != Gives::Token {
            return Err(revocation::Error::NotOffered);
        }
        let origins = self.origins(&want.server, issuer);
        let prepare = async {
            let metadata = self.metadata(issuer, order.token_endpoint(), &origins).await?;
            let subject = self.proof_of_client(want, &metadata).await?;
            let (name, subject) = (Arc::clone(&order.name), subject.as_ref());
            let (identity, client) = (&*order.identity, &order.client);
            let leg = Leg { name, identity, client, party: &metadata, origins: &origins, grant: traits.grant, subject };
            let client = self.identify(&leg).await?;
            Ok::<_, Error>((Arc::clone(&metadata), client))
        };
        let (metadata, client) = prepare.await.map_err(|error| revocation::Error::Client {
            why: error.to_string(),
            is_temporary: error.class() == Class::Temporary,
        })?;
        revocation::revoke(&self.endpoint(&metadata, &origins), &client, token).await
    }

    /// The identity token that authenticates the client at the revocation endpoint; `None` if it authenticates
    /// otherwise. The checks are those of a token request: each token is sent only to the party that it is made for,
    /// and never to one that refused it.
    async fn proof_of_client(
        &self,
        want: &TokenRequest,
        metadata: &Arc<AuthorizationServer>,
    ) -> Result<Option<SubjectToken>, Error> {
        let order = &*want.order;
        if order.client.auth != ClientAuth::Workload {
            return Ok(None);
        }
        let chain = self.chain(order)?;
        let parties = self.parties(&chain).await?;
        let subject = self.subject(order, &chain, metadata).await?;
        let (protection, metadata) = (Arc::default(), Arc::clone(metadata));
        let assertions = Vec::new();
        let route =
            Route { protection, server: metadata, subject, issuer_is: IssuerOrigin::Pinned, parties, assertions };
        let issuer = &route.server.issuer;
        let audience = expected_audience(order, &route.server);
        let subject = self.identity_for_server(want, &route, &audience, &plain_request(order)).await?.subject;
        let presented = subject
            .as_ref()
            .map(|one| Presented::of((order, &want.permit), one, issuer, (&order.way(), &[]), &Scopes::default()));
        presented.as_ref().map_or(Ok(()), |presented| self.refused.check(presented))?;
        Ok(subject)
    }
}
