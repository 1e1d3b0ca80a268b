//! Why a command failed, and how that is shown.

use super::fold::{WIDTH, wrap};
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

    pub(super) fn as_text(&self) -> String {
        let message = std::slice::from_ref(&self.message);
        let lines = if self.lines.is_empty() { message } else { &self.lines };
        let mut text = format!("{}safeconduct: error: ", self.seen);
        for line in lines {
            text.push_str(&format!("{}\n", one_line(line)));
        }
        if let Some(presented) = &self.presented {
            const LABEL: &str = "safeconduct: presented: ";
            let lines = wrap(&one_line(presented), WIDTH - LABEL.len());
            text.push_str(&format!("{LABEL}{}\n", lines.join(&format!("\n{:1$}", "", LABEL.len()))));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("safeconduct: hint: {}\n", one_line(hint)));
        }
        text
    }
}
