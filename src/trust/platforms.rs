//! What of a platform's tokens a policy pins, and which of them a stranger can obtain. Each source says it of its own platform.

use serde_json::Value;

use super::Claims;

/// One platform.
pub(crate) struct Platform {
    /// As the table of sources calls it.
    pub(crate) name: &'static str,
    /// What the table in the documentation says of it: what of `sub` stays the same, what is refused.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is written by a test"))]
    pub(crate) note: &'static str,
    /// Is this issuer the platform's, whoever fetched the token? For issuers that everybody shares.
    pub(crate) issues: fn(&str) -> bool,
    /// Beside issuer, audience and subject.
    pub(crate) pins: &'static [Pin],
    /// The part of `sub` that is the same in every run; `None` where it is not in the platform's form.
    pub(crate) steady: for<'a> fn(&'a str) -> Option<&'a str>,
    /// Why a stranger could have this token.
    pub(crate) stranger: fn(&Claims) -> Option<String>,
    /// Which identity to use instead.
    pub(crate) instead: &'static str,
    /// What the operator should know.
    pub(crate) warnings: &'static [fn(&Claims) -> Option<String>],
}

/// One claim to pin.
pub(crate) struct Pin {
    /// The way to it, member by member.
    pub(crate) path: &'static [&'static str],
    /// Without it there is no policy; else it is pinned where it is there.
    pub(crate) needed: bool,
    /// Why it is pinned.
    pub(crate) why: &'static str,
}

impl Pin {
    /// A claim without which there is no policy.
    pub(crate) const fn needed(path: &'static [&'static str], why: &'static str) -> Self {
        Self { path, needed: true, why }
    }

    /// A claim that is pinned where it is there.
    pub(crate) const fn if_there(path: &'static [&'static str], why: &'static str) -> Self {
        Self { path, needed: false, why }
    }
}

impl Platform {
    /// A platform whose `sub` says everything, and of which nothing else is known.
    pub(crate) const PLAIN: Self = Self {
        name: "other",
        note: "",
        issues: |_| false,
        pins: &[],
        steady: |sub| Some(sub),
        stranger: |_| None,
        instead: "",
        warnings: &[|_| {
            Some(
                "the platform is not one that is known: read in its documentation who can obtain this `sub`".to_owned(),
            )
        }],
    };
}

/// Is it that issuer, or one with a path below it?
pub(crate) fn is_below(issuer: &str, base: &str) -> bool {
    issuer.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The text of a claim; empty where there is none.
pub(crate) fn text<'a>(claims: &'a Claims, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The subject to the end of the mark.
pub(crate) fn up_to<'a>(sub: &'a str, mark: &str) -> Option<&'a str> {
    sub.find(mark).map(|at| &sub[..at + mark.len()])
}
