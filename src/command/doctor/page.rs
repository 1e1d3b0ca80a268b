//! The report as text: one line for a stage that passed, all details for one that did not.

use super::count;
use crate::broker::{Check, State};
use crate::command::Printable;
use crate::command::fold::wrap;
use crate::command::paper::{Colour, Paper};
use crate::env::Env;

/// Where the text of a detail begins.
const INDENT: usize = 4;

/// How the page looks.
pub(super) struct Page {
    paper: Paper,
    verbose: bool,
}

impl Page {
    pub(super) fn new(env: &Env, verbose: bool) -> Self {
        Self { paper: Paper::new(env), verbose }
    }

    pub(super) fn printable(&self, title: &str, checks: &[Check], sent: &[(&str, usize)], env: &Env) -> Printable {
        self.paper.printable(&format!("{}{}", self.text(title, checks), self.sent(sent)), env)
    }

    /// How many requests were sent.
    fn sent(&self, sent: &[(&str, usize)]) -> String {
        let parts = sent.iter().filter(|(_, count)| *count > 0);
        let parts: Vec<String> = parts.map(|(to, count)| format!("{count} to {}", to.replace('_', " "))).collect();
        self.paper.paragraph(0, "requests sent: ", &parts.join(", "))
    }

    fn text(&self, title: &str, checks: &[Check]) -> String {
        let mut out = format!("safeconduct doctor: {title}\n\n");
        let mut stages: Vec<&str> = Vec::new();
        for check in checks {
            if !stages.contains(&check.stage) {
                stages.push(check.stage);
            }
        }
        let name = stages.iter().map(|stage| stage.len()).max().unwrap_or(0);
        for stage in stages {
            let of_stage: Vec<&Check> = checks.iter().filter(|check| check.stage == stage).collect();
            out.push_str(&self.stage(stage, name, &of_stage));
        }
        out.push_str(&self.sum(checks));
        out
    }

    fn stage(&self, stage: &str, width: usize, checks: &[&Check]) -> String {
        let worst = [State::Fail, State::Warn, State::Pass, State::Note, State::Skip];
        let worst = worst.into_iter().find(|state| checks.iter().any(|check| check.state == *state));
        let owned: Vec<Check> = checks.iter().map(|check| (*check).clone()).collect();
        let mut out = format!("{} {stage:width$}  {}\n", self.mark(worst.unwrap_or(State::Skip)), counts(&owned));
        let shown = |state| self.verbose || state != State::Pass;
        for check in checks.iter().filter(|check| check.state != State::Skip && shown(check.state)) {
            out.push_str(&self.check(check));
        }
        out.push_str(&self.not_tried(checks));
        out
    }

    /// Groups the skipped checks by their reason.
    fn not_tried(&self, checks: &[&Check]) -> String {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for check in checks.iter().filter(|check| check.state == State::Skip) {
            match reasons.iter_mut().find(|(reason, _)| *reason == check.what) {
                Some((_, codes)) => codes.push(check.code),
                None => reasons.push((&check.what, vec![check.code])),
            }
        }
        let paragraph = |(reason, codes): (&str, Vec<&str>)| {
            let text = format!("{}: {reason}", codes.join(", "));
            let lines =
                wrap(&text, self.paper.width.saturating_sub(INDENT + 2)).join(&format!("\n{}", " ".repeat(INDENT + 2)));
            format!("{}{} {lines}\n", " ".repeat(INDENT), self.mark(State::Skip))
        };
        reasons.into_iter().map(paragraph).collect()
    }

    fn check(&self, check: &Check) -> String {
        let head = format!("{}{} {}", " ".repeat(INDENT), self.mark(check.state), check.code);
        let mut out = format!("{head}\n{}", self.paragraph("", &check.what));
        if matches!(check.state, State::Warn | State::Fail) {
            out.push_str(&self.paragraph("who    ", check.party.as_str()));
            out.push_str(&self.paragraph("where  ", check.section));
            out.push_str(&self.paragraph("cure   ", check.cure.as_deref().unwrap_or_default()));
        }
        out
    }

    fn paragraph(&self, label: &str, text: &str) -> String {
        self.paper.paragraph(INDENT + 2, label, text)
    }

    fn sum(&self, checks: &[Check]) -> String {
        let more = if self.verbose { "" } else { "; `--verbose` shows every check" };
        format!("\n{}{more}\n", counts(checks))
    }

    fn mark(&self, state: State) -> String {
        let (mark, colour) = match state {
            State::Pass => ("✓", Colour::Green),
            State::Warn => ("!", Colour::Yellow),
            State::Fail => ("✗", Colour::Red),
            State::Note => ("·", Colour::Dim),
            State::Skip => ("–", Colour::Dim),
        };
        self.paper.paint(colour, mark)
    }
}

/// `12 passed, 1 warning`: leaves out zero counts.
fn counts(checks: &[Check]) -> String {
    let of = |state| count(checks, state);
    let plural = |count: usize, one: &str| if count == 1 { one.to_owned() } else { format!("{one}s") };
    let parts = [
        (of(State::Fail), "failed".to_owned()),
        (of(State::Warn), plural(of(State::Warn), "warning")),
        (of(State::Pass), "passed".to_owned()),
        (of(State::Note), plural(of(State::Note), "note")),
        (of(State::Skip), "not tried".to_owned()),
    ];
    let parts: Vec<String> =
        parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Party, Rule};

    const RULE: Rule = Rule::new("a stage", "a-code", Party::McpServer, "RFC 9728 section 3.3");

    fn page(verbose: bool) -> Page {
        Page { paper: Paper { colours: false, width: 60 }, verbose }
    }

    #[test]
    fn what_is_well_takes_one_line_and_what_is_not_says_who_where_and_how() {
        let checks = [RULE.pass("fine"), RULE.pass("fine too")];
        assert_eq!(page(false).text("x", &checks).lines().nth(2), Some("✓ a stage  2 passed"));
        assert!(page(true).text("x", &checks).contains("fine too"));
        let failed = page(false).text("x", &[RULE.fail("it is broken", "fix it"), RULE.pass("fine")]);
        for words in
            ["✗ a stage  1 failed, 1 passed", "it is broken", "operator of the MCP server", "RFC 9728", "fix it"]
        {
            assert!(failed.contains(words), "{words:?} in {failed}");
        }
    }

    #[test]
    fn long_texts_hang_below_their_label_and_stay_within_the_width() {
        let text = page(false).text("x", &[RULE.warn("word ".repeat(40), "cure ".repeat(40))]);
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }
}
