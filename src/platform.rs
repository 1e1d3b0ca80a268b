//! Which claims of a platform's tokens a policy pins, and which tokens an outsider can obtain. Each source describes its own
//! platform.

use serde_json::{Map, Value};

/// All claims of a token.
pub(crate) type Claims = Map<String, Value>;

/// A platform that issues identity tokens.
pub(crate) struct Platform {
    /// Its name in the table of sources.
    pub(crate) name: &'static str,
    /// Its note in the documentation's table: which part of `sub` is stable, and which tokens are refused.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is written by a test"))]
    pub(crate) note: &'static str,
    /// Does this issuer belong to the platform, whichever source fetched the token? For issuers that all customers share.
    pub(crate) issues: fn(&str) -> bool,
    /// The claims to pin besides issuer, audience and subject.
    pub(crate) pins: &'static [Pin],
    /// The part of `sub` that is the same in every run. `None` if `sub` does not have the platform's form.
    pub(crate) stable_subject: for<'a> fn(&'a str) -> Option<&'a str>,
    /// Why an outsider could obtain this token, if one could.
    pub(crate) stranger: fn(&Claims) -> Option<String>,
    /// Which identity to use instead.
    pub(crate) instead: &'static str,
    /// What `sub` must name, because most products compare `sub` alone: whose workload it is, and what `stranger` looks at.
    pub(crate) named: &'static [Named],
    /// Warnings for the operator.
    pub(crate) warnings: &'static [fn(&Claims) -> Option<String>],
}

/// What `sub` must name. A custom template of a platform may leave it out.
pub(crate) struct Named {
    /// Does `sub` name it?
    pub(crate) is_in: fn(&str) -> bool,
    /// Who else has this `sub`.
    pub(crate) why: &'static str,
    /// How the platform is told to name it.
    pub(crate) cure: &'static str,
}

/// One claim to pin.
pub(crate) struct Pin {
    /// The path to the claim, member by member.
    pub(crate) path: &'static [&'static str],
    /// If true, a token without the claim gets no policy. If false, the claim is pinned only if present.
    pub(crate) required: bool,
    /// Why it is pinned.
    pub(crate) why: &'static str,
}

impl Pin {
    /// A claim that every token must have.
    pub(crate) const fn required(path: &'static [&'static str], why: &'static str) -> Self {
        Self { path, required: true, why }
    }

    /// A claim that is pinned if the token has it.
    pub(crate) const fn optional(path: &'static [&'static str], why: &'static str) -> Self {
        Self { path, required: false, why }
    }
}

impl Platform {
    /// A platform about which only `sub` is known.
    pub(crate) const PLAIN: Self = Self {
        name: "other",
        note: "",
        issues: |_| false,
        pins: &[],
        stable_subject: |sub| Some(sub),
        stranger: |_| None,
        instead: "",
        named: &[],
        warnings: &[|_| {
            Some(
                "the platform is not one that is known: read in its documentation who can obtain this `sub`".to_owned(),
            )
        }],
    };
}

/// Is `issuer` equal to `base`, or a path below it?
pub(crate) fn is_below(issuer: &str, base: &str) -> bool {
    issuer.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The claim at this path.
pub(crate) fn at<'a>(claims: &'a Claims, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let found = rest.iter().try_fold(claims.get(*first)?, |value, name| value.get(name))?;
    (!found.is_null()).then_some(found)
}

/// The text of a claim, or an empty string.
pub(crate) fn text<'a>(claims: &'a Claims, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The value of `name` in a subject that is made of names and values, all with `:` between them.
pub(crate) fn segment<'a>(sub: &'a str, name: &str) -> Option<&'a str> {
    let mut segments = sub.split(':');
    while let (Some(one), value) = (segments.next(), segments.next()) {
        if one == name {
            return value.filter(|value| !value.is_empty());
        }
    }
    None
}

/// The subject up to and including `mark`.
pub(crate) fn up_to<'a>(sub: &'a str, mark: &str) -> Option<&'a str> {
    sub.find(mark).map(|at| &sub[..at + mark.len()])
}
