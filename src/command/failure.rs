//! Why a command failed, and how that is shown.

use super::fold::{WIDTH, hanging};
use crate::broker::Class;
use crate::door;
use crate::oauth::words::one_line;

/// Why a command failed: the message, the cure, and the exit code.
pub(crate) struct Failure {
    pub(super) exit: u8,
    /// Shown on one line: a line feed in it comes from a path, a variable or another party, and what follows would look like a
    /// line of ours.
    pub(super) message: String,
    /// What is shown in place of a message that has several lines.
    pub(super) lines: Box<[String]>,
    pub(super) hint: Option<String>,
    /// What was presented to the party that refused.
    pub(super) presented: Option<Box<str>>,
    /// For `--json`: printed to stderr instead of the text.
    pub(super) json: Option<Box<str>>,
    /// Lines to print before the text: the evidence that was found.
    pub(super) seen: Box<str>,
}

impl Failure {
    pub(super) fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            exit: class.exit_code(),
            message: message.into(),
            lines: Box::default(),
            hint: None,
            presented: None,
            json: None,
            seen: Box::default(),
        }
    }

    pub(super) fn asked(message: impl Into<String>) -> Self {
        Self::new(Class::BadRequest, message)
    }

    pub(super) fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Internal, message)
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn hint_maybe(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    pub(super) fn presented(self, presented: Option<String>) -> Self {
        Self { presented: presented.map(String::into_boxed_str), ..self }
    }

    /// Adds to "asked wrongly" that no daemon was found, if one was looked for.
    pub(super) fn without_daemon(self, absent: Option<&door::Error>) -> Self {
        match absent {
            Some(absent) if self.exit == Class::BadRequest.exit_code() || absent.has_passed_over() => {
                Self { message: format!("{}; {absent}", self.message), ..self }
            }
            _ => self,
        }
    }

    /// One line for the message and one for the hint, as programs read it.
    pub(super) fn as_text(&self) -> String {
        self.with(&|label, text| format!("{label}{}\n", one_line(text)))
    }

    /// The same for a terminal.
    pub(super) fn folded(&self) -> String {
        self.with(&|label, text| hanging(label, &one_line(text), WIDTH))
    }

    fn with(&self, line: &dyn Fn(&str, &str) -> String) -> String {
        let mut text = self.seen.to_string();
        let message = std::slice::from_ref(&self.message);
        let lines = if self.lines.is_empty() { message } else { &self.lines };
        for (at, one) in lines.iter().enumerate() {
            text.push_str(&line(if at == 0 { "safeconduct: error: " } else { "" }, one));
        }
        if let Some(presented) = &self.presented {
            text.push_str(&hanging("safeconduct: presented: ", &one_line(presented), WIDTH));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&line("safeconduct: hint: ", hint));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_the_same_words_in_lines_that_fit() {
        let failure = Failure::new(
            Class::Refused,
            "shop: exchange: the authorization server refuses with invalid_grant ".repeat(3),
        )
        .hint("compare what was presented with its trust policy, and both clocks; ".repeat(3));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let folded = failure.folded();
        assert_eq!(words(&folded), words(&failure.as_text()));
        assert!(folded.lines().count() > 4 && folded.lines().all(|line| line.len() <= WIDTH), "{folded}");
        assert_eq!(failure.as_text().lines().count(), 2);
    }
}
