//! `env`: a JWT in an environment variable.
//!
//! For platforms that pass a token in a variable and have no source of their own here. Never detected, only configured:
//!
//! ```toml
//! [identity]
//! source    = "env"
//! token_env = "MY_ID_TOKEN"
//! ```
//!
//! A process does not see later changes of its environment, so the token is the one at our start; the identity ends when it
//! expires. The issuer of the token fixes its audience: it must be exactly the authorization server's issuer, or the value of
//! `subject_audience`.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::oauth::Audience;
use crate::platform::Platform;
use crate::token::{Claims, SubjectToken, expose};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "env",
    tier: Tier::Named,
    about: "a JWT in an environment variable",
    evidence: "configuration: `token_env`",
    token: "fixed audience, fixed at start",
    settings: &[TOKEN_ENV],
    // The configured keys say where the token is.
    variables: &[],
    trust: &Platform::PLAIN,
    detect: |_| Finding::Absent { looked_for: "`source = \"env\"`" },
    from_config,
    probe: None,
};

const TOKEN_ENV: Setting =
    Setting::required("token_env", Kind::Text, "Name of the environment variable that holds the JWT.")
        .checked(variable_name);

/// A variable that holds a JWT, read for one source.
pub(super) struct Variable {
    row: &'static Descriptor,
    name: String,
    token: SecretString,
    /// The platform's cure for an unusable token.
    cure: &'static str,
}

impl Variable {
    /// The variable of that name. `None` if it is unset or empty.
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

/// Checks the name of a variable that holds a JWT. An operator may give the token instead of the name by mistake, so the
/// error does not repeat the text.
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
