//! The trust policy that the other side needs: which claims of an identity it must pin, written in the format of the
//! product that checks it. Pure: claims in, policy out.
//!
//! A policy that is too wide lets strangers in. A policy on names alone lets in whoever takes over a name. So the policy
//! pins only claims that the platform sets, not the author of the workload. Where the platform has immutable ids besides
//! names, the policy pins the ids too. An identity that an outsider can obtain gets no policy at all.

use serde_json::{Map, Value, json};

mod platforms;
mod shapes;

pub(crate) use platforms::{Pin, Platform, is_below, text, up_to};
pub(crate) use shapes::Shape;

/// All claims of a token.
pub(crate) type Claims = Map<String, Value>;

/// The conditions under which a token is this workload's. All of them must hold.
pub(crate) struct Policy {
    /// The platform's name in the table of sources.
    platform: &'static str,
    issuer: String,
    audience: String,
    subject: Subject,
    /// The claims to pin besides the subject.
    claims: Vec<Pinned>,
    warnings: Vec<String>,
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
}

impl Policy {
    /// Derives the policy from the claims of a platform's token.
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
            match (at(claims, pin.path), pin.required) {
                (Some(value), _) => pinned.push(Pinned { path: pin.path, value: value.clone(), why: pin.why }),
                (None, true) => return Err(missing(&pin.path.join("."))),
                (None, false) => {}
            }
        }
        let subject = match (platform.stable_subject)(&sub) {
            None => return Err(missing("`sub` in the platform's form")),
            Some(stable) if stable.len() == sub.len() => Subject::Exactly(sub),
            Some(stable) => Subject::StartsWith(stable.to_owned()),
        };
        let warnings = platform.warnings.iter().filter_map(|warning| warning(claims)).collect();
        Ok(Self { platform: platform.name, issuer, audience, subject, claims: pinned, warnings })
    }

    /// The report as JSON. Only `policy`, the text to install, depends on the shape.
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

    /// The pinned claims, nested as in the token.
    fn claims(&self) -> Value {
        let mut all = json!({});
        for pinned in &self.claims {
            let place = pinned.path.iter().fold(&mut all, |value, name| &mut value[*name]);
            *place = pinned.value.clone();
        }
        all
    }
}

/// The claim at this path.
pub(crate) fn at<'a>(claims: &'a Claims, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let found = rest.iter().try_fold(claims.get(*first)?, |value, name| value.get(name))?;
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests;
