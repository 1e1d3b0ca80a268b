//! Sets of scopes (RFC 6749 section 3.3).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A set of scope tokens, sorted, so that order and repetition never make a difference.
/// Cheap to clone: ceilings pass through every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(Arc<BTreeSet<String>>);

impl Scopes {
    /// Reads a space-delimited list (RFC 6749 section 3.3). Fails on a character that no scope may have.
    pub fn parse(text: &str) -> Result<Self, BadScope> {
        text.split(' ').filter(|scope| !scope.is_empty()).map(one_scope).collect::<Result<_, _>>().map(Self::of)
    }

    /// Reads a list of single scopes.
    pub fn from_list<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Self, BadScope> {
        list.into_iter().map(one_scope).collect::<Result<_, _>>().map(Self::of)
    }

    /// Takes what another party granted. A word with characters that no scope may have is not left out, because it may
    /// mean something there: those characters become `?`.
    pub(crate) fn granted<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let allowed = |character: char| u8::try_from(character).is_ok_and(is_allowed);
        let clean = |word: &str| word.chars().map(|one| if allowed(one) { one } else { '?' }).collect();
        Self::of(words.filter(|word| !word.is_empty()).map(clean).collect())
    }

    fn of(set: BTreeSet<String>) -> Self {
        Self(Arc::new(set))
    }

    /// Do both share one allocation? Quicker than a comparison; equal sets may still return false.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// No scope at all?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is it in the set?
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// In sorted order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The scopes in both sets.
    pub fn within(&self, ceiling: &Self) -> Self {
        Self::of(self.0.intersection(&ceiling.0).cloned().collect())
    }

    /// The scopes in either set.
    pub fn union(&self, other: &Self) -> Self {
        Self::of(self.0.union(&other.0).cloned().collect())
    }

    /// The scopes that `other` lacks.
    pub fn minus(&self, other: &Self) -> BTreeSet<String> {
        self.0.difference(&other.0).cloned().collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

/// A scope with a character that RFC 6749 section 3.3 does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope may hold only visible ASCII without \" and \\, and no blanks")]
pub struct BadScope;

fn one_scope(scope: &str) -> Result<String, BadScope> {
    if !scope.is_empty() && scope.bytes().all(is_allowed) { Ok(scope.to_owned()) } else { Err(BadScope) }
}

fn is_allowed(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}
