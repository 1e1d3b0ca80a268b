//! Identities by name: each has a platform's source at its root, and may have links behind it.

use std::sync::Arc;

use crate::exchange::Link;
use crate::identity::IdentitySource;

/// One identity, ready to be asked.
#[derive(Clone)]
pub struct Identity {
    /// The platform.
    pub(crate) source: Arc<dyn IdentitySource>,
    /// What proved that we are there.
    pub evidence: String,
    /// The links from the platform's token to the one that is presented, in order.
    pub links: Vec<Link>,
}

/// The name of the identity that needs no configuration.
pub const DEFAULT: &str = "default";
