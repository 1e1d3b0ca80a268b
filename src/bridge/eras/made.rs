//! A request that is made here, while it waits for its answer.

use std::sync::OnceLock;

use tokio::sync::watch;

use crate::jitter::request_id;
use crate::mcp::era::filter::Filter;
use crate::mcp::rpc::Id;

/// A request that is made here.
pub(in crate::bridge) struct Made {
    id: Id,
    answer: OnceLock<Vec<u8>>,
    /// Who waits for the acknowledgement of a subscription.
    listens: Option<watch::Sender<State>>,
}

/// What became of a subscription.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// What the server sends of what was asked for.
    pub(super) honored: Option<Filter>,
    pub(super) ended: Option<End>,
}

/// How a subscription has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It broke, or the server ended it.
    Broken,
    /// The server does not have it.
    Refused,
}

/// A new id. No two requests of a server that are open have the same.
pub(super) fn new_id() -> Id {
    Id::of_text(&format!("safeconduct-{}", request_id()))
}

impl Made {
    pub(super) fn new(id: Id) -> Self {
        Self { id, answer: OnceLock::new(), listens: None }
    }

    pub(super) fn listening(id: Id, state: watch::Sender<State>) -> Self {
        Self { listens: Some(state), ..Self::new(id) }
    }

    /// The server begins to send what passes this filter.
    pub(in crate::bridge) fn acknowledge(&self, filter: Filter) {
        if let Some(state) = &self.listens {
            state.send_modify(|state| state.honored = Some(filter));
        }
    }

    /// A response came: is it the answer? An error without an id is meant for this request, because it came in answer to it.
    pub(in crate::bridge) fn is_answered(&self, id: Option<&Id>, is_error: bool, text: &[u8]) -> bool {
        let is_own = id.is_some_and(|id| id.answers(&self.id));
        let is_own = is_own || (is_error && id.is_none_or(Id::is_null));
        if is_own {
            // A second answer is none.
            drop(self.answer.set(text.to_vec()));
        }
        is_own
    }

    pub(super) fn into_answer(self) -> Option<String> {
        String::from_utf8(self.answer.into_inner()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_counts_and_an_error_without_an_id_is_one() {
        let made = Made::new(new_id());
        let (own, other) = (made.id.clone(), new_id());
        assert!(!made.is_answered(Some(&other), false, b"no") && !made.is_answered(None, false, b"no"));
        assert!(made.is_answered(Some(&own), false, b"yes") && made.is_answered(None, true, b"late"));
        assert_eq!(made.into_answer().as_deref(), Some("yes"));
        let made = Made::new(own);
        assert!(made.is_answered(None, true, b"error"));
        assert_eq!(made.into_answer().as_deref(), Some("error"));
    }
}
