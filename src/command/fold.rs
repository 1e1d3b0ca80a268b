//! Folds text for people at words.

/// The default width. `COLUMNS` may set another for a page.
pub(super) const WIDTH: usize = 80;

/// The lines of a text. A word that is longer than a line has one of its own: what is pasted must stay whole.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        let longer = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if longer <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A text behind its label, with what follows below the first word.
pub(super) fn hanging(label: &str, text: &str, width: usize) -> String {
    let indent = label.chars().count();
    let lines = wrap(text, width.saturating_sub(indent));
    format!("{label}{}\n", lines.join(&format!("\n{:1$}", "", indent)))
}
