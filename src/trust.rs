//! The trust that the other side has to have in us: which claims of an identity a policy must pin, and the policy in the
//! words of whoever will check it. Pure: claims in, policy out.
//!
//! A policy that is too wide lets a stranger in, and one on names alone lets in whoever takes a name over. So every claim
//! that is pinned is one that the platform, and not the workload's author, decides; where the platform has numbers beside
//! its names, the numbers are pinned too; and an identity that somebody outside can obtain gets no policy at all.

use serde_json::{Map, Value, json};

mod platforms;
mod shapes;

pub(crate) use platforms::{Pin, Platform, is_below, text, up_to};
pub(crate) use shapes::Shape;

/// A token's claims, whole.
pub(crate) type Claims = Map<String, Value>;

/// Whom to trust, and what a token must say to be us. Every entry must hold.
pub(crate) struct Policy {
    /// The platform, as the table of sources calls it.
    platform: &'static str,
    issuer: String,
    audience: String,
    subject: Subject,
    /// Beside the subject.
    claims: Vec<Pinned>,
    warnings: Vec<String>,
}

/// What `sub` must be.
enum Subject {
    /// Always the same.
    Exactly(String),
    /// Its end changes with every run.
    StartsWith(String),
}

/// A claim with the value that it must have.
struct Pinned {
    /// The way to it, member by member.
    path: &'static [&'static str],
    value: Value,
    why: &'static str,
}

/// Why there is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody whom nobody vouches for can obtain such a token.
    #[error("a stranger can obtain this identity: {why}")]
    Stranger {
        /// How.
        why: String,
        /// Which identity to use instead.
        cure: &'static str,
    },
    /// Without it the policy would be wider than the workload.
    #[error("the identity token has no {claim}, without which a policy would let others in")]
    Missing {
        /// The claim.
        claim: String,
    },
    /// The other side has no words for what must be pinned.
    #[error("{what}")]
    NoWords {
        /// What it cannot say.
        what: String,
        /// What to do instead.
        cure: &'static str,
    },
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Stranger { cure, .. } | Self::NoWords { cure, .. } => cure,
            Self::Missing { .. } => {
                "ask the platform's operator why its tokens lack it (`safeconduct whoami` shows what is there)"
            }
        }
    }
}

impl Policy {
    /// The policy for the identity of a platform that these claims describe.
    pub(crate) fn of(platform: &'static Platform, claims: &Claims) -> Result<Self, Error> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let missing = |claim: &str| Error::Missing { claim: format!("`{claim}`") };
        let issuer = text("iss").ok_or_else(|| missing("iss"))?;
        let sub = text("sub").ok_or_else(|| missing("sub"))?;
        let audience = match claims.get("aud") {
            Some(Value::String(one)) => one.clone(),
            Some(Value::Array(list)) if list.len() == 1 => list[0].as_str().unwrap_or_default().to_owned(),
            _ => return Err(missing("single `aud`")),
        };
        if let Some(why) = (platform.stranger)(claims) {
            return Err(Error::Stranger { why, cure: platform.instead });
        }
        let mut pinned = Vec::new();
        for pin in platform.pins {
            match (at(claims, pin.path), pin.needed) {
                (Some(value), _) => pinned.push(Pinned { path: pin.path, value: value.clone(), why: pin.why }),
                (None, true) => return Err(missing(&pin.path.join("."))),
                (None, false) => {}
            }
        }
        let subject = match (platform.steady)(&sub) {
            None => return Err(missing("`sub` in the platform's form")),
            Some(steady) if steady.len() == sub.len() => Subject::Exactly(sub),
            Some(steady) => Subject::StartsWith(steady.to_owned()),
        };
        let warnings = platform.warnings.iter().filter_map(|warning| warning(claims)).collect();
        Ok(Self { platform: platform.name, issuer, audience, subject, claims: pinned, warnings })
    }

    /// The policy as data: the same for every shape, with what to install there under `policy`.
    pub(crate) fn for_shape(&self, shape: Shape, account: Option<&str>) -> Result<Value, Error> {
        let (policy, install) = shape.write(self, account)?;
        let why: Map<String, Value> =
            self.claims.iter().map(|pinned| (pinned.path.join("."), json!(pinned.why))).collect();
        let subject = match &self.subject {
            Subject::Exactly(sub) => json!({ "equals": sub }),
            Subject::StartsWith(start) => json!({ "starts_with": start }),
        };
        Ok(json!({
            "for": shape.as_str(), "platform": self.platform, "issuer": self.issuer, "audience": self.audience,
            "subject": subject, "claims": self.claims(), "why": why, "warnings": self.warnings,
            "policy": policy, "install": install,
        }))
    }

    /// The pinned claims as they stand in the token, objects in objects.
    fn claims(&self) -> Value {
        let mut all = json!({});
        for pinned in &self.claims {
            let place = pinned.path.iter().fold(&mut all, |value, name| &mut value[*name]);
            *place = pinned.value.clone();
        }
        all
    }
}

/// The claim at the end of this way.
pub(crate) fn at<'a>(claims: &'a Claims, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let found = rest.iter().try_fold(claims.get(*first)?, |value, name| value.get(name))?;
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests;
