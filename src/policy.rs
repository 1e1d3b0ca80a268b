//! Which caller may have which scopes: allow rules and ceilings. Pure: no I/O, no time, no token.

use crate::caller::{Caller, Needs};
use crate::oauth::Scopes;

mod rule;

pub(crate) use rule::{Rule, WantedUnit};

/// The rules of one server.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A caller that matches any of them may use the server.
    pub allow: Vec<Rule>,
    /// The most that any caller may have; `None` is no limit.
    pub ceiling: Option<Scopes>,
    /// Scopes beyond the ceiling that do not make a token be refused if they come unasked.
    pub tolerate: Scopes,
    /// What is asked for where a caller names no scopes; `None` leaves it to challenge and metadata.
    pub usual: Option<Scopes>,
}

/// Scopes about a login, not about the resource. No ceiling needs to name them.
const ALWAYS_TOLERATED: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// What a caller may have of a server: the proof that policy was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// What to ask the authorization server for; `None` leaves it to challenge and metadata.
    pub ask: Option<Scopes>,
    ceiling: Option<Scopes>,
    tolerate: Scopes,
}

/// Why a caller gets no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No rule names this caller.
    #[error("{caller} is not allowed to use this server")]
    Caller {
        /// Who asked.
        caller: String,
        /// Its user, for the hint.
        uid: u32,
        /// Why the entries with its user and group do not match.
        misses: Vec<String>,
    },
    /// A rule may name this caller, but what it asks for could not be told now.
    #[error("{caller}: it cannot be told yet whether a rule lets it in")]
    Undecided {
        /// Who asked.
        caller: String,
        /// What could not be told.
        misses: Vec<String>,
    },
    /// Every scope asked for lies beyond the ceiling.
    #[error("scope {asked:?} is beyond the ceiling {ceiling:?}")]
    AskedTooMuch {
        /// What was asked for.
        asked: String,
        /// The most that the caller may have.
        ceiling: String,
    },
    /// The authorization server granted more than this caller may have.
    #[error("the authorization server granted {beyond:?}, which is beyond this caller's ceiling")]
    GrantedTooMuch {
        /// The scopes beyond.
        beyond: String,
    },
}

impl Denied {
    /// What to change.
    pub fn hint(&self) -> String {
        match self {
            Self::Undecided { misses, .. } => misses.join("; "),
            Self::Caller { misses, .. } if !misses.is_empty() => {
                format!("an `allow` entry at the server would let it in, but {}", misses.join("; "))
            }
            Self::Caller { uid, .. } => format!(
                "let it in with `allow = [{{ uid = {uid} }}]` at the server, or run as a user that is named there"
            ),
            Self::AskedTooMuch { .. } => {
                "ask for less, or raise `scopes` at the server or in the caller's `allow` entry".to_owned()
            }
            Self::GrantedTooMuch { beyond } => {
                format!("have the authorization server grant less, or name {beyond:?} in `scopes` or `tolerate_scopes`")
            }
        }
    }
}

impl Policy {
    /// May this caller use the server at all?
    pub fn knows(&self, caller: &Caller) -> bool {
        self.allow.iter().any(|rule| rule.matches(caller))
    }

    /// Could this caller use the server, if it were the right process of its user?
    pub fn may_know(&self, caller: &Caller) -> bool {
        self.allow.iter().any(|rule| rule.may_match(caller))
    }

    /// Is there a rule whose scopes are all beyond the ceiling, so that who matches it gets nothing?
    pub(crate) fn has_empty_rule(&self) -> bool {
        let Some(ceiling) = self.ceiling.as_ref().filter(|ceiling| !ceiling.is_empty()) else { return false };
        self.allow.iter().filter_map(|rule| rule.scopes.as_ref()).any(|scopes| scopes.within(ceiling).is_empty())
    }

    /// Decides what a caller may have. `asked` is what it named itself, if anything; it is cut to the ceiling.
    pub fn permit(&self, caller: &Caller, asked: Option<&Scopes>) -> Result<Permit, Denied> {
        let mut matching = self.allow.iter().filter(|rule| rule.matches(caller));
        let first = matching.next().ok_or_else(|| self.stranger(caller))?;
        let ceiling = self.ceiling_of(first, matching);
        // A request without scopes leaves them to challenge and metadata; it never asks for the server's default.
        let asked = asked.filter(|asked| !asked.is_empty());
        let ask = self.ask(asked, ceiling.as_ref())?;
        Ok(Permit { ask, ceiling, tolerate: self.tolerate.clone() })
    }

    /// What to ask for: what the caller named, else the usual, cut to the ceiling.
    fn ask(&self, asked: Option<&Scopes>, ceiling: Option<&Scopes>) -> Result<Option<Scopes>, Denied> {
        let Some(asked) = asked.or(self.usual.as_ref()) else { return Ok(None) };
        let Some(ceiling) = ceiling else { return Ok(Some(asked.clone())) };
        let cut = asked.within(ceiling);
        if cut.is_empty() {
            return Err(Denied::AskedTooMuch { asked: asked.to_string(), ceiling: ceiling.to_string() });
        }
        Ok(Some(cut))
    }

    /// Narrows what any caller may have to these scopes, and asks for them where a caller names none. Fails if all of them are
    /// beyond the ceiling.
    pub(crate) fn narrow_to(&mut self, scopes: &Scopes) -> Result<(), Denied> {
        let narrowed = self.ask(Some(scopes), self.ceiling.as_ref())?;
        (self.ceiling, self.usual) = (narrowed.clone(), narrowed);
        Ok(())
    }

    fn stranger(&self, caller: &Caller) -> Denied {
        let mut misses: Vec<String> = Vec::new();
        for miss in self.allow.iter().flat_map(|rule| rule.misses(caller)) {
            let text = miss.to_string();
            // Entries differ in what they want, but most of them fail for the same few reasons.
            if !misses.contains(&text) {
                misses.push(text);
            }
        }
        let is_undecided = self.allow.iter().any(|rule| rule.may_match_later(caller));
        let (uid, caller) = (caller.uid, caller.to_string());
        if is_undecided { Denied::Undecided { caller, misses } } else { Denied::Caller { caller, uid, misses } }
    }

    /// Does a rule need facts beyond the peer credentials? Then they are read before the decision.
    pub fn needs_process_facts(&self) -> bool {
        self.allow.iter().any(Rule::needs_process_facts)
    }

    /// Adds the facts that a decision about this caller needs.
    pub fn need(&self, caller: &Caller, needs: &mut Needs) {
        self.allow.iter().for_each(|rule| rule.need(caller, needs));
    }

    /// The permit of the daemon itself: the most that any caller may have.
    pub fn permit_for_all(&self) -> Permit {
        let mut all = self.allow.iter();
        let ceiling = match all.next() {
            Some(first) => self.ceiling_of(first, all),
            None => Some(Scopes::default()),
        };
        let ask = self.ask(None, ceiling.as_ref()).unwrap_or_default();
        Permit { ask, ceiling, tolerate: self.tolerate.clone() }
    }

    /// The union of the matching entries' ceilings, within the server's.
    fn ceiling_of<'a>(&self, first: &Rule, mut others: impl Iterator<Item = &'a Rule>) -> Option<Scopes> {
        let more = |first| others.try_fold(first, |all: Scopes, rule| Some(all.union(rule.scopes.as_ref()?)));
        let union = first.scopes.clone().and_then(more);
        match (&self.ceiling, union) {
            (None, union) => union,
            (Some(server), None) => Some(server.clone()),
            (Some(server), Some(union)) => Some(union.within(server)),
        }
    }
}

impl Permit {
    /// Whatever the other side wants to give, within this ceiling.
    pub(crate) fn within(ceiling: Option<Scopes>) -> Self {
        Self { ask: None, ceiling, tolerate: Scopes::default() }
    }

    /// The ceiling of this caller at this server.
    pub fn ceiling(&self) -> Option<&Scopes> {
        self.ceiling.as_ref()
    }

    /// Checks the granted scopes: each must be within the ceiling or tolerated.
    pub fn admit(&self, granted: &Scopes) -> Result<(), Denied> {
        let Some(ceiling) = &self.ceiling else { return Ok(()) };
        let fine =
            |scope: &&str| ceiling.contains(scope) || self.tolerate.contains(scope) || ALWAYS_TOLERATED.contains(scope);
        let beyond: Vec<&str> = granted.iter().filter(|scope| !fine(scope)).collect();
        if beyond.is_empty() { Ok(()) } else { Err(Denied::GrantedTooMuch { beyond: beyond.join(" ") }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text).expect("good scopes")
    }

    fn caller(uid: u32, gid: u32) -> Caller {
        Caller::on_socket(uid, gid, Some(7))
    }

    fn rule(uid: Option<u32>, gid: Option<u32>, ceiling: Option<&str>) -> Rule {
        Rule { uid, gid, scopes: ceiling.map(scopes), ..Rule::default() }
    }

    fn policy(allow: Vec<Rule>, ceiling: Option<&str>) -> Policy {
        Policy { allow, ceiling: ceiling.map(scopes), tolerate: scopes("extra"), usual: None }
    }

    #[test]
    fn a_caller_that_no_rule_names_gets_nothing_root_included() {
        let policy = policy(vec![rule(Some(1000), None, None)], None);
        assert!(policy.permit(&caller(1000, 5), None).is_ok());
        assert!(matches!(policy.permit(&caller(0, 0), None), Err(Denied::Caller { uid: 0, .. })));
    }

    #[test]
    fn a_policy_that_is_narrowed_asks_for_no_more_whoever_asks() {
        let mut policy = policy(vec![rule(Some(1000), None, Some("a b c"))], Some("a b"));
        assert!(matches!(policy.narrow_to(&scopes("c d")), Err(Denied::AskedTooMuch { .. })));
        policy.narrow_to(&scopes("b d")).expect("one of them is allowed");
        let permit = policy.permit(&caller(1000, 5), None).expect("allowed");
        assert_eq!(permit, policy.permit_for_all(), "the daemon renews what its callers ask for");
        assert_eq!((permit.ask, permit.ceiling), (Some(scopes("b")), Some(scopes("b"))));
        assert!(policy.permit(&caller(1000, 5), Some(&scopes("a"))).is_err());
    }

    #[test]
    fn all_keys_of_an_entry_must_match() {
        let policy = policy(vec![rule(Some(1000), Some(2000), None)], None);
        assert!(policy.permit(&caller(1000, 2000), None).is_ok());
        assert!(policy.permit(&caller(1000, 2001), None).is_err());
    }

    #[test]
    fn a_stranger_is_told_what_keeps_it_out_once() {
        let exe = |uid| Rule { uid: Some(uid), exe: Some("/usr/bin/agent".into()), ..Rule::default() };
        let policy = policy(vec![exe(1), exe(1), exe(2)], None);
        let hint = |uid| policy.permit(&caller(uid, 5), None).expect_err("no rule matches").hint();
        assert_eq!(hint(1).matches("`exe` cannot be told").count(), 1, "{}", hint(1));
        assert!(!hint(1).contains("agent"), "a stranger is not told which program would do");
        assert!(hint(3).contains("uid = 3"), "{}", hint(3));
    }

    #[test]
    fn a_caller_that_cannot_be_judged_yet_is_not_denied() {
        let exe = |uid| Rule { uid: Some(uid), exe: Some("/usr/bin/agent".into()), ..Rule::default() };
        let policy = policy(vec![exe(1)], None);
        let outcome = |uid, why: crate::caller::Why| {
            let facts = crate::caller::Facts::unknown(&why);
            policy.permit(&caller(uid, 5).with(facts), None).expect_err("no rule matches")
        };
        use crate::caller::Why::{Busy, Changed, Gone};
        assert!(matches!(outcome(1, Busy), Denied::Undecided { .. }));
        assert!(matches!(outcome(1, Changed), Denied::Undecided { .. }));
        assert!(matches!(outcome(1, Gone), Denied::Caller { .. }));
        assert!(matches!(outcome(2, Busy), Denied::Caller { .. }), "no rule names this user");
    }

    #[test]
    fn a_ceiling_is_the_union_of_the_matching_entries_within_the_servers() {
        let allow = vec![rule(None, Some(5), Some("a b")), rule(Some(1), None, Some("c")), rule(Some(2), None, None)];
        let policy = policy(allow, Some("a c d"));
        let ceiling =
            |caller: &Caller| policy.permit(caller, None).expect("allowed").ceiling().expect("has one").to_string();
        assert_eq!(ceiling(&caller(9, 5)), "a");
        assert_eq!(ceiling(&caller(1, 5)), "a c");
        assert_eq!(ceiling(&caller(2, 5)), "a c d");
    }

    #[test]
    fn what_is_asked_for_is_cut_to_the_ceiling_and_refused_when_nothing_is_left() {
        let policy = policy(vec![rule(None, None, None)], Some("a b"));
        let permit = policy.permit(&caller(1, 1), Some(&scopes("b z"))).expect("cut");
        assert_eq!(permit.ask, Some(scopes("b")));
        assert!(matches!(policy.permit(&caller(1, 1), Some(&scopes("z"))), Err(Denied::AskedTooMuch { .. })));
    }

    #[test]
    fn a_tolerated_scope_cannot_be_asked_for() {
        let policy = policy(vec![rule(None, None, None)], Some("a"));
        assert!(matches!(policy.permit(&caller(1, 1), Some(&scopes("extra"))), Err(Denied::AskedTooMuch { .. })));
        let permit = policy.permit(&caller(1, 1), Some(&scopes("a extra"))).expect("cut");
        assert_eq!(permit.ask, Some(scopes("a")));
        assert_eq!(permit.admit(&scopes("a extra")), Ok(()), "it comes unasked");
    }

    #[test]
    fn to_name_no_scope_is_not_to_ask_for_whatever_the_server_gives() {
        let policy = policy(vec![rule(None, None, None)], Some("a"));
        let permit = policy.permit(&caller(1, 1), Some(&scopes(""))).expect("allowed");
        assert_eq!(permit.ask, None);
    }

    #[test]
    fn the_daemon_asks_for_no_more_than_it_may_hand_out() {
        let narrow = policy(vec![rule(None, Some(5), Some("a")), rule(Some(1), None, Some("b"))], None);
        assert_eq!(narrow.permit_for_all().ceiling(), Some(&scopes("a b")));
        let open = policy(vec![rule(None, Some(5), Some("a")), rule(Some(1), None, None)], None);
        assert_eq!(open.permit_for_all().ceiling(), None);
    }

    #[test]
    fn a_grant_beyond_the_ceiling_is_refused_unless_tolerated() {
        let permit = policy(vec![rule(None, None, None)], Some("a")).permit(&caller(1, 1), None).expect("allowed");
        assert_eq!(permit.admit(&scopes("a openid extra")), Ok(()));
        assert_eq!(permit.admit(&scopes("a admin")), Err(Denied::GrantedTooMuch { beyond: "admin".to_owned() }));
        let open = policy(vec![rule(None, None, None)], None).permit(&caller(1, 1), None).expect("allowed");
        assert_eq!(open.admit(&scopes("anything")), Ok(()));
    }
}
