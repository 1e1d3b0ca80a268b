//! `docs/install.md`: its sections, their commands, and what these print.

use std::fs;
use std::path::Path;

use crate::process::ROOT;

/// One section of the page.
pub(crate) struct Section {
    /// The block in TOML, if there is one.
    pub(crate) configuration: Option<String>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Default)]
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) prints: String,
}

impl Section {
    pub(crate) fn of_page(title: &str) -> Self {
        let page = fs::read_to_string(Path::new(ROOT).join("docs/install.md")).expect("the page exists");
        let text = page.split("\n## ").find_map(|section| section.strip_prefix(&format!("{title}\n")));
        let text = text.unwrap_or_else(|| panic!("docs/install.md has no section {title}"));
        let section =
            Self { configuration: blocks(text, "toml").into_iter().next(), steps: steps(&blocks(text, "console")) };
        assert!(section.steps.len() > 2, "the section {title} has too few commands");
        section
    }

    /// The same configuration with other commands, written as on the page.
    pub(crate) fn with_steps(self, text: &str) -> Self {
        Self { steps: steps(&[text.to_owned()]), ..self }
    }
}

fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

fn steps(blocks: &[String]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks.iter().flat_map(|block| block.lines()) {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push(Step { command: command.to_owned(), prints: String::new() }),
            None => {
                let step = steps.last_mut().expect("a block begins with a command");
                step.prints.push_str(line);
                step.prints.push('\n');
            }
        }
    }
    steps
}

/// Whether a command printed what the page says: `...` is any number of lines, `[..]` any text within one.
pub(crate) fn fits(page: &str, printed: &str) -> bool {
    let (page, printed): (Vec<_>, Vec<_>) = (page.lines().collect(), printed.lines().collect());
    lines_fit(&page, &printed)
}

fn lines_fit(page: &[&str], printed: &[&str]) -> bool {
    match page.split_first() {
        None => printed.is_empty(),
        Some((&"...", rest)) => (0..=printed.len()).any(|skipped| lines_fit(rest, &printed[skipped..])),
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, others)| line_fits(line, first) && lines_fit(rest, others))
        }
    }
}

fn line_fits(page: &str, printed: &str) -> bool {
    let mut parts = page.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn a_line_of_the_page_stands_for_what_it_says_and_no_more() {
    assert!(
        fits("a\n...\nb[..]d\n", "a\n1\n2\nbcd\n")
            && fits("...\n", "")
            && fits("", "")
            && fits("{[..]x[..]}\n", "{1x2}\n")
    );
    assert!(
        !fits("a\n", "a\nb\n")
            && !fits("", "a\n")
            && !fits("b[..]d\n", "bc\n")
            && !fits("a[..]a\n", "b\n")
            && !fits("a\n", "")
    );
}
