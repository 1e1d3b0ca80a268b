//! `env`: a JWT in an environment variable, put there by whoever starts us.
//!
//! For every platform that hands its workload a token in a variable and has no row of its own. Never detected,
//! only named:
//!
//! ```toml
//! [identity]
//! source    = "env"
//! token_env = "MY_ID_TOKEN"
//! ```
//!
//! A process cannot see changes to its own environment, so the token is the one we were started with: when it
//! expires, so does the identity. Its audience is fixed by whoever made it: it must be exactly the authorization
//! server's issuer, or what `subject_audience` says.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::oauth::Audience;
use crate::token::{Claims, SubjectToken, expose};
use crate::trust::Platform;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "env",
    tier: Tier::Named,
    about: "a JWT in an environment variable",
    evidence: "configuration: `token_env`",
    token: "fixed audience, fixed at start",
    settings: &[TOKEN_ENV],
    // Its keys say where the token is.
    variables: &[],
    trust: &Platform::PLAIN,
    detect: |_| Finding::Absent { looked_for: "`source = \"env\"`" },
    from_config,
    probe: None,
};

const TOKEN_ENV: Setting =
    Setting::required("token_env", Kind::Text, "Name of the environment variable that holds the JWT.")
        .checked(variable_name);

/// A variable that holds a JWT, on behalf of one row.
pub(super) struct Variable {
    row: &'static Descriptor,
    name: String,
    token: SecretString,
    /// What to do on this platform when the token is no good.
    cure: &'static str,
}

impl Variable {
    /// The variable of that name; `None` when it is unset or empty.
    pub(super) fn find(
        row: &'static Descriptor,
        name: &str,
        cure: &'static str,
        ambient: &Ambient,
    ) -> Option<Arc<Self>> {
        let token = ambient.env.secret(name)?;
        Some(Arc::new(Self { row, name: name.to_owned(), token, cure }))
    }
}

#[async_trait]
impl IdentitySource for Variable {
    async fn subject_token(&self, _audience: &Audience) -> Result<SubjectToken, Error> {
        let text = expose(&self.token).trim();
        SubjectToken::parse(SecretString::from(text.to_owned())).map_err(|error| Error::Malformed {
            source_name: self.row.name,
            what: format!("{} is {error}", self.name),
            hint: self.cure.to_owned(),
        })
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(self.row)
    }

    fn mints_anew(&self) -> bool {
        false
    }
}

/// Can this be the name of a variable that holds a JWT? Who gives the token in the place of its variable's name must not
/// find it in a log.
pub(super) fn variable_name(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if Claims::read(text).is_ok() {
        Err("holds a JWT itself, not the name of a variable".to_owned())
    } else if text.is_empty() || text.len() > 256 || !text.bytes().all(fits) {
        Err("is no name of a variable".to_owned())
    } else {
        Ok(())
    }
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    const CURE: &str = "the variable must hold one JWT and nothing else";
    let name = given.required(&TOKEN_ENV)?;
    match Variable::find(&SOURCE, name, CURE, ambient) {
        Some(variable) => Ok(variable),
        None => Err(Defect::new(
            format!("{name} is not set"),
            format!("start safeconduct with {name} in its environment; a helper's client may have dropped it"),
        )),
    }
}
