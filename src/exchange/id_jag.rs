//! `id-jag`: an identity assertion from the enterprise's identity provider, then the JWT bearer grant at the server.
//!
//! MCP enterprise-managed authorization (draft-ietf-oauth-identity-assertion-authz-grant). The workload's JWT goes to
//! the identity provider that `idp` names, which says by an ID-JAG that this client may have that resource; the
//! server's authorization server takes it as grant. The first leg is a [`link`](super::link); what is left of the
//! second is the grant that all assertions share.

use super::{Descriptor, jwt_bearer};

pub(super) const EXCHANGE: Descriptor = Descriptor { name: "id-jag", ..jwt_bearer::EXCHANGE };
