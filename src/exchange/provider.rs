//! What the exchanges of a provider need beyond OAuth: who is asked is compiled in or configured, and nothing is
//! discovered. Each is an exchange of a server, a link of a chain, or both.

use super::aws_role::{self, Aws};
use super::entra::{self, Entra};
use super::gcp::{self, Gcp};
use super::link::Destination;
use super::{Error, Identified, Way};
use crate::digest::Fields;
use crate::oauth::{Audience, Issuer};
use crate::token::SubjectToken;

/// Whose own way an exchange goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Microsoft Entra.
    Entra(Entra),
    /// Google's security token service and service accounts.
    Gcp(Gcp),
    /// A role of AWS.
    Aws(Aws),
}

impl Provider {
    /// The exchange that it belongs to, which is also the name of the hop in a chain.
    pub(crate) fn exchange(&self) -> &'static str {
        match self {
            Self::Entra(_) => entra::NAME,
            Self::Gcp(_) => gcp::EXCHANGE.name,
            Self::Aws(aws) => aws.exchange(),
        }
    }

    /// Who is asked, under the name by which errors and the audit call it.
    pub(crate) fn issuer(&self) -> Issuer {
        match self {
            Self::Entra(entra) => entra.issuer(),
            Self::Gcp(gcp) => gcp.issuer(),
            Self::Aws(aws) => aws.issuer(),
        }
    }

    /// Does it sign requests with the workload's own role, so that no identity is presented to anybody?
    pub(crate) fn signs_as_itself(&self) -> bool {
        matches!(self, Self::Aws(aws) if aws.service.is_some() && aws.role_arn.is_none())
    }

    /// Where it is asked.
    pub(crate) fn token_endpoint(&self) -> String {
        match self {
            Self::Entra(entra) => entra.token_endpoint(),
            Self::Gcp(gcp) => gcp.token_endpoint(),
            Self::Aws(aws) => aws.endpoint(),
        }
    }

    /// The conventional audience of the subject token. It names no server, so the token goes to these hosts alone.
    pub(crate) fn subject_audience(&self) -> Audience {
        match self {
            Self::Entra(entra) => entra.subject_audience(),
            Self::Gcp(gcp) => gcp.subject_audience(),
            Self::Aws(aws) => aws.subject_audience(),
        }
    }

    /// Everything of it that reaches the wire, for the cache key.
    pub(crate) fn fields(&self) -> Fields {
        match self {
            Self::Entra(entra) => Fields::default().text("entra").group(&entra.fields()),
            Self::Gcp(gcp) => Fields::default().text("gcp").group(&gcp.fields()),
            Self::Aws(aws) => Fields::default().text("aws").group(&aws.fields()),
        }
    }

    /// Changes a subject token into one for the next party. One attempt, no retry.
    pub(super) async fn change(
        &self,
        way: &Way<'_>,
        subject: &SubjectToken,
        client: Identified,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        match self {
            Self::Entra(entra) => entra::change(way, entra, client, destination).await,
            Self::Gcp(gcp) => gcp::change(way, gcp, subject, destination).await,
            Self::Aws(aws) => aws_role::change(way, aws, subject, destination).await,
        }
    }
}
