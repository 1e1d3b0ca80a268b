//! Step outputs, as the text that is written for the runner.

use zeroize::Zeroizing;

use super::Outputs;

/// One output of a step.
pub(crate) struct Output {
    /// Lower-case letters, digits and `_`.
    pub(crate) name: String,
    pub(crate) value: Zeroizing<String>,
    pub(crate) is_secret: bool,
}

impl Outputs {
    /// What is written for all of them. `random` makes up delimiters, which no value may guess.
    pub(crate) fn text(self, outputs: &[Output], random: u128) -> Zeroizing<String> {
        let one = |output: &Output| match self {
            Self::Heredoc(_) => heredoc(output, &format!("safeconduct-{random:032x}")),
            Self::Shell(_) | Self::OwnFile => shell(output),
            Self::Commands => command(output),
        };
        let texts: Vec<_> = outputs.iter().map(one).collect();
        // Allocated once, because growth would leave copies of the tokens in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(texts.iter().map(|text| text.len()).sum()));
        texts.iter().for_each(|one| text.push_str(one));
        text
    }
}

fn joined(pieces: &[&str]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
    pieces.iter().for_each(|piece| text.push_str(piece));
    text
}

fn heredoc(Output { name, value, .. }: &Output, delimiter: &str) -> Zeroizing<String> {
    joined(&[name, "<<", delimiter, "\n", value, "\n", delimiter, "\n"])
}

fn shell(Output { name, value, .. }: &Output) -> Zeroizing<String> {
    let quoted = Zeroizing::new(value.replace('\'', "'\\''"));
    joined(&["export ", name, "='", &quoted, "'\n"])
}

/// For Azure Pipelines, whose agent decodes these escapes. A secret variable is no environment variable of later steps unless they
/// map it.
fn command(Output { name, value, is_secret }: &Output) -> Zeroizing<String> {
    let value = Zeroizing::new(value.replace('%', "%AZP25"));
    let value = Zeroizing::new(value.replace('\r', "%0D"));
    let value = Zeroizing::new(value.replace('\n', "%0A"));
    let secret = if *is_secret { ";issecret=true" } else { "" };
    joined(&["##vso[task.setvariable variable=", name, ";isoutput=true", secret, "]", &value, "\n"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, value: &str, is_secret: bool) -> Output {
        Output { name: name.to_owned(), value: Zeroizing::new(value.to_owned()), is_secret }
    }

    const HOSTILE: &str = "v\nEOF\nx<<EOF\na=b\r\n##vso[task.setvariable variable=p]q%0A::add-path::/e'; id #";

    #[test]
    fn a_value_adds_no_key_to_an_output_file() {
        let text = Outputs::Heredoc("F").text(&[output("socket", HOSTILE, false)], 7);
        let delimiter = format!("safeconduct-{:032x}", 7);
        let inside = text.strip_prefix(&format!("socket<<{delimiter}\n")).expect("it begins so");
        assert_eq!(inside.strip_suffix(&format!("\n{delimiter}\n")), Some(HOSTILE));
    }

    #[test]
    fn a_value_is_no_command_of_an_agent() {
        let text = Outputs::Commands.text(&[output("token_a", HOSTILE, true)], 0);
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with("##vso[task.setvariable variable=token_a;isoutput=true;issecret=true]v%0AEOF%0A"));
        assert!(text.contains("%AZP250A::add-path"), "an escape in the value is none of ours: {}", *text);
        assert_eq!(
            *Outputs::Commands.text(&[output("a", "b", false)], 0),
            "##vso[task.setvariable variable=a;isoutput=true]b\n"
        );
    }

    #[test]
    fn a_shell_reads_the_value_as_it_is() {
        let text = Outputs::OwnFile.text(&[output("a", HOSTILE, true), output("b", "$(id) `id` \\", false)], 0);
        let script = format!("{}printf %s \"$a|$b\"", *text);
        let shell = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().expect("there is a shell");
        assert_eq!(String::from_utf8_lossy(&shell.stdout), format!("{HOSTILE}|$(id) `id` \\"));
    }
}
