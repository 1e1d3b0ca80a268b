//! Nobody: an identity that was not found, where the reason is told at the step that needs one and no earlier.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Chosen, Error, IdentitySource};
use crate::oauth::Audience;
use crate::token::SubjectToken;

/// No row of the table has this name.
const NAME: &str = "nobody";

struct Nobody(Error);

#[async_trait]
impl IdentitySource for Nobody {
    async fn subject_token(&self, _audience: &Audience) -> Result<SubjectToken, Error> {
        Err(self.0.clone())
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn mints_anew(&self) -> bool {
        false
    }
}

impl Chosen {
    /// Stands for the identity that is missing, and says why to whoever asks.
    pub(crate) fn nobody(why: Error) -> Self {
        Self { source: Arc::new(Nobody(why)), evidence: "nothing".to_owned() }
    }

    /// Is there no identity at all?
    pub(crate) fn is_nobody(&self) -> bool {
        self.source.name() == NAME
    }
}
