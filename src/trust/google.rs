//! Google's names for a workload and for the provider that it comes from.

use super::quoting::{member, quoted};
use super::{Error, Pinned, Subject, Writing};

/// `google.subject`: the expression, and its value for this workload. Google takes 127 bytes, and names the workload by it, so it
/// must be the same in every run. The condition compares the whole claims; this is a name alone.
pub(super) struct Google {
    pub(super) mapping: String,
    pub(super) subject: String,
}

impl Google {
    const LONGEST: usize = 127;

    pub(super) fn of(writing: &Writing<'_>) -> Result<Self, Error> {
        let found = match &writing.policy.subject {
            Subject::Exactly(sub) if sub.len() <= Self::LONGEST => {
                Some(Self { mapping: "assertion.sub".to_owned(), subject: sub.clone() })
            }
            Subject::Exactly(sub) => Self::end_of(sub),
            Subject::StartsWith(_) => Self::from_claims(&writing.pinned),
        };
        found.ok_or_else(|| Error::Inexpressible {
            what: format!(
                "Google names a workload by at most {} bytes, and this identity has no such name",
                Self::LONGEST
            ),
            cure: "use an identity with a shorter `sub`",
        })
    }

    /// The end of a long subject.
    fn end_of(sub: &str) -> Option<Self> {
        let cut = (sub.len() - Self::LONGEST..sub.len()).find(|at| sub.is_char_boundary(*at))?;
        let (start, subject) = sub.split_at(cut);
        let template = quoted(&format!("{start}{{subject}}"));
        let mapping = format!("assertion.sub.extract({template})");
        // Braces in the template are Google's.
        (!start.contains(['{', '}'])).then(|| Self { mapping, subject: subject.to_owned() })
    }

    /// The pinned claims, as many as fit.
    fn from_claims(pinned: &[&Pinned]) -> Option<Self> {
        let (mut mapping, mut subject) = (Vec::new(), String::new());
        for one in pinned {
            let Some(value) = one.value.as_str() else { continue };
            if subject.len() + 1 + value.len() > Self::LONGEST {
                break;
            }
            subject.push_str(if mapping.is_empty() { "" } else { ":" });
            subject.push_str(value);
            mapping.push(member("assertion", one.path));
        }
        (!mapping.is_empty()).then(|| Self { mapping: mapping.join(" + \":\" + "), subject })
    }

    /// The value of the flag. A comma ends an entry there, unless another character is named for that.
    pub(super) fn flag(&self) -> String {
        let entry = format!("google.subject={}", self.mapping);
        match "~|;!".chars().find(|one| !entry.contains(*one)) {
            Some(end) if entry.contains(',') => format!("^{end}^{entry}"),
            _ => entry,
        }
    }
}

/// The parts of the audience of a provider of a workload identity pool.
pub(super) struct Pool<'a> {
    pub(super) project: &'a str,
    pub(super) pool: &'a str,
    pub(super) provider: &'a str,
}

impl<'a> Pool<'a> {
    pub(super) fn of(audience: &'a str) -> Self {
        let path = audience.trim_start_matches("https:").strip_prefix("//iam.googleapis.com/").unwrap_or_default();
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["projects", project, "locations", "global", "workloadIdentityPools", pool, "providers", provider] => {
                Self { project, pool, provider }
            }
            _ => Self { project: "NUMBER", pool: "POOL", provider: "PROVIDER" },
        }
    }
}
