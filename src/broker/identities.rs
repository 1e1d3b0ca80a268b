//! A named identity: the source of the platform's token, and the exchanges (links) that follow.

use std::sync::Arc;

use crate::exchange::Link;
use crate::identity::IdentitySource;

/// One identity of this workload.
#[derive(Clone)]
pub struct Identity {
    /// Gives the platform's token.
    pub(crate) source: Arc<dyn IdentitySource>,
    /// How the platform was recognised.
    pub evidence: String,
    /// The exchanges from the platform's token to the one that is presented, in order.
    pub links: Vec<Link>,
}

/// The name of the identity that needs no configuration.
pub const DEFAULT: &str = "default";
