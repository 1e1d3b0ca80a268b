//! The trust policy that the other side needs: which claims of an identity it must pin, written in the format of the
//! product that checks it. Pure: claims in, policy out.
//!
//! A policy that is too wide lets strangers in. A policy on names alone lets in whoever takes over a name. So the policy
//! pins only claims that the platform sets, not the author of the workload. Where the platform has immutable ids besides
//! names, the policy pins the ids too. An identity that an outsider can obtain gets no policy at all, nor does one whose
//! subject does not name what tells it from an outsider's: most products compare the subject and little else.
//!
//! What a product can compare is in its row of the table of [`shapes`]. The report says what the document pins, and which
//! claims that product cannot compare.

use serde_json::{Map, Value, json};

use crate::platform::{Claims, Platform, at};

mod documents;
mod google;
mod quoting;
mod reach;
mod shapes;
mod templates;

pub(crate) use shapes::Shape;
#[cfg(test)]
pub(crate) use shapes::{Compares, PRODUCTS};

/// The conditions under which a token is this workload's. All of them must hold.
pub(crate) struct Policy {
    /// The platform's name in the table of sources.
    platform: &'static str,
    /// Empty if the token has none, which a JWT-SVID may lack.
    issuer: String,
    audience: String,
    subject: Subject,
    /// The claims to pin besides the subject.
    claims: Vec<Pinned>,
    warnings: Vec<String>,
    /// Does the token name the party that asked for it (`azp`)?
    has_azp: bool,
    /// Can the other side demand that each token is used once? For that each needs a `jti`, and each exchange a new token.
    once: bool,
    /// How many seconds each token is valid.
    life: i64,
}

/// The condition on `sub`.
enum Subject {
    /// `sub` is the same in every run.
    Exactly(String),
    /// The end of `sub` changes with every run.
    StartsWith(String),
}

/// A claim and its required value.
struct Pinned {
    /// The path to the claim, member by member.
    path: &'static [&'static str],
    value: Value,
    why: &'static str,
}

/// What is known of both sides besides the token. The rest is a word in capitals in what is printed.
#[derive(Default)]
pub(crate) struct Side<'a> {
    /// The name of the server in our configuration.
    pub(crate) name: &'a str,
    /// The URL of the MCP server.
    pub(crate) url: &'a str,
    /// The pinned issuer of the authorization server.
    pub(crate) issuer: Option<&'a str>,
    /// The role to assume.
    pub(crate) role_arn: Option<&'a str>,
    /// The audience that the product expects by default.
    pub(crate) audience: Option<&'a str>,
    /// Where the keys of the platform's issuer are.
    pub(crate) keys: Option<&'a str>,
}

/// A policy on its way into a document.
struct Writing<'a> {
    policy: &'a Policy,
    side: &'a Side<'a>,
    /// The claims that this product compares.
    pinned: Vec<&'a Pinned>,
}

/// Why there is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// An outsider can obtain such a token.
    #[error("a stranger can obtain this identity: {why}")]
    Stranger {
        /// How.
        why: String,
        /// Which identity to use instead.
        cure: &'static str,
    },
    /// Without this claim the policy would match more than this workload.
    #[error("the identity token has no {claim}, without which a policy would let others in")]
    Missing {
        /// The claim.
        claim: String,
    },
    /// The other side's policy format cannot express a required condition.
    #[error("{what}")]
    Inexpressible {
        /// The condition it cannot express.
        what: String,
        /// What to do instead.
        cure: &'static str,
    },
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Stranger { cure, .. } | Self::Inexpressible { cure, .. } => cure,
            Self::Missing { .. } => {
                "ask the platform's operator why its tokens lack it (`safeconduct whoami` shows what is there)"
            }
        }
    }

    fn missing(claim: &str) -> Self {
        Self::Missing { claim: format!("`{claim}`") }
    }
}

impl Policy {
    /// Derives the policy from the claims of a platform's token. `mints_anew`: each exchange presents a new token.
    pub(crate) fn of(platform: &'static Platform, claims: &Claims, mints_anew: bool) -> Result<Self, Error> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let sub = text("sub").ok_or_else(|| Error::missing("sub"))?;
        let issuer = match text("iss") {
            None if sub.starts_with("spiffe://") => String::new(),
            issuer => issuer.ok_or_else(|| Error::missing("iss"))?,
        };
        let audience = match claims.get("aud") {
            Some(Value::String(one)) => one.clone(),
            Some(Value::Array(list)) if list.len() == 1 => list[0].as_str().unwrap_or_default().to_owned(),
            _ => return Err(Error::Missing { claim: "single `aud`".to_owned() }),
        };
        if let Some(why) = (platform.stranger)(claims) {
            return Err(Error::Stranger { why, cure: platform.instead });
        }
        if let Some(named) = platform.named.iter().find(|named| !(named.is_in)(&sub)) {
            return Err(Error::Stranger { why: named.why.to_owned(), cure: named.cure });
        }
        let mut pinned = Vec::new();
        for pin in platform.pins {
            match (at(claims, pin.path), pin.required) {
                (Some(value), _) => pinned.push(Pinned { path: pin.path, value: value.clone(), why: pin.why }),
                (None, true) => return Err(Error::missing(&pin.path.join("."))),
                (None, false) => {}
            }
        }
        let subject = match (platform.stable_subject)(&sub) {
            None => return Err(Error::Missing { claim: "`sub` in the platform's form".to_owned() }),
            Some(stable) if stable.len() == sub.len() => Subject::Exactly(sub),
            Some(stable) => Subject::StartsWith(stable.to_owned()),
        };
        let number = |name: &str| claims.get(name).and_then(Value::as_i64).unwrap_or_default();
        Ok(Self {
            platform: platform.name,
            issuer,
            audience,
            subject,
            claims: pinned,
            warnings: platform.warnings.iter().filter_map(|warning| warning(claims)).collect(),
            has_azp: claims.contains_key("azp"),
            once: mints_anew && claims.contains_key("jti"),
            life: number("exp").saturating_sub(number("iat")),
        })
    }

    /// The report as JSON: the document to install, what it pins, what that product cannot compare, how the document is
    /// installed, and what to write on this side.
    pub(crate) fn for_shape(&self, shape: Shape, side: &Side<'_>) -> Result<Value, Error> {
        let written = shape.write(self, side)?;
        let why = |pinned: &[&Pinned]| {
            let mut why = Map::new();
            why.extend(pinned.iter().map(|pinned| (pinned.path.join("."), json!(pinned.why))));
            why
        };
        let subject = match &self.subject {
            Subject::Exactly(sub) => json!({ "equals": sub }),
            Subject::StartsWith(start) => json!({ "starts_with": start }),
        };
        let warnings: Vec<&String> = self.warnings.iter().chain(&written.warnings).collect();
        Ok(json!({
            "for": shape.as_str(), "platform": self.platform, "issuer": self.issuer, "audience": self.audience,
            "subject": subject, "claims": nested(&written.pinned), "why": why(&written.pinned),
            "not_compared": why(&written.left), "warnings": warnings, "policy": written.document,
            "install": written.install, "here": written.here,
        }))
    }
}

/// Pinned claims, nested as in the token.
fn nested(pinned: &[&Pinned]) -> Value {
    let mut all = json!({});
    for pinned in pinned {
        let place = pinned.path.iter().fold(&mut all, |value, name| &mut value[*name]);
        *place = pinned.value.clone();
    }
    all
}

#[cfg(test)]
mod tests;
