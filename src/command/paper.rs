//! Text for people on a terminal: it folds at words, fits 80 columns, and has colour where the terminal shows it.

use std::io::IsTerminal;

use super::fold::{WIDTH, wrap};
use super::{Printable, colours};
use crate::env::Env;

const NARROWEST: usize = 40;
/// Longer lines are hard to read.
const WIDEST: usize = 100;

/// How a page looks.
pub(super) struct Paper {
    pub(super) colours: bool,
    pub(super) width: usize,
}

/// The colours that we use.
#[derive(Clone, Copy)]
pub(super) enum Colour {
    Green,
    Yellow,
    Red,
    Dim,
    Bold,
}

impl Paper {
    /// Uses colours only on a terminal that shows them, and without `NO_COLOR` (no-color.org).
    pub(super) fn new(env: &Env) -> Self {
        let colours = std::io::stdout().is_terminal() && colours(env);
        let columns = env.get("COLUMNS").and_then(|columns| columns.parse().ok());
        Self { colours, width: columns.unwrap_or(WIDTH).clamp(NARROWEST, WIDEST) }
    }

    pub(super) fn printable(&self, text: &str, env: &Env) -> Printable {
        if self.colours { Printable::coloured(text, env) } else { Printable::text(text, env) }
    }

    pub(super) fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Dim => "2",
            Colour::Bold => "1",
        };
        if self.colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A text with a label before its first line. The other lines hang below the text.
    pub(super) fn paragraph(&self, indent: usize, label: &str, text: &str) -> String {
        let room = self.width.saturating_sub(indent + label.chars().count());
        let mut out = String::new();
        for (at, line) in wrap(text, room).iter().enumerate().filter(|(_, line)| !line.is_empty()) {
            let label = if at == 0 { self.paint(Colour::Dim, label) } else { " ".repeat(label.chars().count()) };
            out.push_str(&format!("{}{label}{line}\n", " ".repeat(indent)));
        }
        out
    }
}

/// A time for people: `2 h 5 min`, `42 s`.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        (..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hang_below_their_label_and_stay_within_the_width() {
        let paper = Paper { colours: false, width: 40 };
        let text = paper.paragraph(2, "cure  ", &"word ".repeat(20));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.starts_with("  cure  word") && text.contains("\n        word"), "{text}");
        assert_eq!(paper.paragraph(0, "x ", ""), "");
        let long = "https://mcp.example.com/a/path/that/is/longer/than/forty/columns";
        assert!(paper.paragraph(2, "url ", &format!("at {long} now")).contains(long), "a word is never broken");
    }

    #[test]
    fn colours_are_ours_and_only_where_they_are_shown() {
        assert_eq!(Paper { colours: true, width: 80 }.paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paper { colours: false, width: 80 }.paint(Colour::Red, "x"), "x");
    }

    #[test]
    fn a_time_is_said_in_its_two_largest_units() {
        let said = [(5, "5 s"), (65, "1 min 5 s"), (7_500, "2 h 5 min"), (90_000, "1 d 1 h")];
        assert!(said.into_iter().all(|(seconds, text)| span(seconds) == text));
    }
}
