//! `direct`: the workload's own JWT is the access token.
//!
//! For MCP servers that trust the platform's issuer themselves. Nothing is discovered and nobody is asked:
//! `subject_audience` says for whom the platform makes the token, which must be the MCP server and never an
//! authorization server, where the token could be presented as an identity.

use async_trait::async_trait;

use super::{Descriptor, Error, Exchange, Issued, Request, Way};
use crate::token::{AccessToken, SubjectToken};

pub(crate) const EXCHANGE: Descriptor =
    Descriptor { name: "direct", grant: "", discovers: false, sets: &[], exchange: &Direct };

struct Direct;

#[async_trait]
impl Exchange for Direct {
    async fn exchange(
        &self,
        way: &Way<'_>,
        subject: Option<&SubjectToken>,
        _request: &Request,
    ) -> Result<Issued, Error> {
        let text = subject.map_or("", SubjectToken::expose);
        let access_token = AccessToken::parse(text.to_owned()).map_err(|error| way.malformed(error.to_string()))?;
        Ok(Issued { access_token, expires_in: None, scopes: None, signed: None })
    }
}
