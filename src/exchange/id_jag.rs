//! `id-jag`: an identity assertion from the enterprise's identity provider, then the JWT bearer grant at the server.
//!
//! MCP enterprise-managed authorization (draft-ietf-oauth-identity-assertion-authz-grant). The workload's JWT goes to
//! the identity provider that `idp` names, which says by an ID-JAG that this client may have that resource; the
//! server's authorization server takes it as grant. The first leg is a [`link`](super::link), the second is here.

use async_trait::async_trait;

use super::answer::{self, Kind};
use super::{Descriptor, Error, Exchange, Issued, Request, Way, jwt_bearer};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor =
    Descriptor { name: "id-jag", grant: jwt_bearer::GRANT, sets: &["assertion"], exchange: &IdJag };

struct IdJag;

#[async_trait]
impl Exchange for IdJag {
    async fn exchange(
        &self,
        way: &Way<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let assertion = subject.map_or("", SubjectToken::expose);
        let answer = way.ask(jwt_bearer::GRANT, &[("assertion", assertion)], request).await?;
        answer::read(&way.server.issuer, &answer, Kind::of(request))
    }
}
