//! What a client since 2026-07-28 knows of its own `subscriptions/listen`, so that it does not notice when [`super::resubscribe`] opens
//! it again: the second acknowledgement is kept from it. Because nobody knows what has changed meanwhile, it is told that everything
//! may have.

use std::sync::atomic::{AtomicBool, Ordering};

use super::passing::is_ours_and_passes;
use crate::mcp::era::filter::Filter;
use crate::mcp::rpc::{Id, Message};

/// What the client knows of its subscription.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    is_acknowledged: AtomicBool,
}

impl Subscription {
    /// The lines for the client instead of a notification. `None`: it is passed on.
    pub(super) fn notified(&self, message: &Message<'_>, text: &[u8], id: &Id) -> Option<Vec<Vec<u8>>> {
        let is_acknowledgement = message.method.as_deref() == Some("notifications/subscriptions/acknowledged");
        if !is_acknowledgement || !self.is_acknowledged.swap(true, Ordering::Relaxed) {
            return None;
        }
        let filter = std::str::from_utf8(text).map(Filter::acknowledged).unwrap_or_default();
        Some(filter.changes(Some(id.as_str())).into_iter().map(String::into_bytes).collect())
    }

    /// Is this the last word of the relay to a stream that broke?
    pub(super) fn is_break(&self, message: &Message<'_>, text: &[u8]) -> bool {
        message.error_code.is_some() && is_ours_and_passes(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_64_the_second_acknowledgement_is_kept_from_the_client() {
        let subscription = Subscription::default();
        let id = Id::of_text("s");
        let text = br#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true}}}"#;
        let changed = br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        let notified = |text: &[u8]| subscription.notified(&Message::read(text), text, &id);
        assert_eq!((notified(text), notified(changed)), (None, None), "the first one passes");
        let changes = notified(text).expect("the second does not");
        let expected = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"s"}}}"#;
        assert_eq!(changes, [expected.as_bytes()]);
    }
}
