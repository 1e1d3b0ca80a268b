//! The summary for people: what was asked for and until when, or why there is nothing. In Markdown, where others chose the words:
//! none of them becomes markup.

/// A target whose token is in hand.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) issuer: String,
    pub(crate) scope: String,
    pub(crate) expires_at: String,
}

/// What a summary tells.
pub(crate) enum Report<'a> {
    /// Tokens for these, with this identity.
    Served { identity: &'a str, targets: &'a [Served] },
    /// No token: what went wrong with which target, the cure, and documents for whoever must act, each with its title.
    Refused { target: &'a str, message: &'a str, hint: Option<&'a str>, documents: &'a [(&'a str, String)] },
}

impl Report<'_> {
    /// In Markdown.
    pub(crate) fn markdown(&self) -> String {
        match self {
            Self::Served { identity, targets } => {
                let mut text = String::from(
                    "### safeconduct\n\n| server | URL | authorization server | scope | first token until |\n|---|---|---|---|---|\n",
                );
                for Served { name, url, issuer, scope, expires_at } in *targets {
                    let row = [name, url, issuer, scope, expires_at].map(|cell| code(cell)).join(" | ");
                    text.push_str(&format!("| {row} |\n"));
                }
                text.push_str(&format!(
                    "\nObtained with the identity {}. A daemon renews the tokens until the job ends.\n\n",
                    code(identity)
                ));
                text
            }
            Self::Refused { target, message, hint, documents } => {
                let mut text = format!("### safeconduct\n\nNo token for {}: {}\n\n", code(target), code(message));
                if let Some(hint) = hint {
                    text.push_str(&format!("What to do: {}\n\n", code(hint)));
                }
                for (title, document) in *documents {
                    text.push_str(&format!("{title}:\n\n<pre>{}</pre>\n\n", lines(document)));
                }
                text
            }
        }
    }
}

/// The text as code on one line. Empty text is a dash.
fn code(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    format!("<code>{}</code>", escaped(text, false))
}

/// The text as lines of code. A blank line would end the HTML block in which nothing is markup.
fn lines(text: &str) -> String {
    escaped(text.trim_end(), true)
}

/// Everything but letters, digits and blanks as a character reference, which never is markup: neither Markdown nor HTML, no link,
/// no mention.
fn escaped(text: &str, keeps_lines: bool) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for one in text.chars() {
        match one {
            '\n' if keeps_lines => out.push_str("<br>"),
            ' ' => out.push(' '),
            one if one.is_alphanumeric() => out.push(one),
            one if one.is_control() => out.push(' '),
            one => out.push_str(&format!("&#{};", u32::from(one))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "a](https://evil.example) <img src=x> `b` | c\n\n# d\n- [ ] @octocat #1 ![x](y) www.evil.example &lt;";

    fn is_harmless(markdown: &str, ours: usize) {
        let foreign: String = markdown.lines().skip(ours).collect();
        let inside = foreign.split("<code>").skip(1).filter_map(|part| part.split("</code>").next());
        let mut seen = 0;
        for text in inside {
            seen += 1;
            let left = text.replace("&#", "").replace(';', "");
            assert!(left.chars().all(|one| one.is_alphanumeric() || one == ' '), "{left}");
        }
        assert!(seen > 0, "{markdown}");
    }

    #[test]
    fn no_word_of_another_is_markup() {
        let targets = [Served {
            name: "deploy".to_owned(),
            url: HOSTILE.to_owned(),
            issuer: HOSTILE.to_owned(),
            scope: HOSTILE.to_owned(),
            expires_at: "2026-11-29T12:00:00Z".to_owned(),
        }];
        let served = Report::Served { identity: HOSTILE, targets: &targets }.markdown();
        is_harmless(&served, 4);
        assert_eq!(served.lines().count(), 8, "no line more: {served}");
        assert!(!served.contains("evil.example"), "not even a link that is made of a bare host name");

        let documents = [("Policy", format!("{{\n  \"sub\": \"{}\"\n}}", HOSTILE.replace('\n', "\\n")))];
        let refused =
            Report::Refused { target: "deploy", message: HOSTILE, hint: Some(HOSTILE), documents: &documents }
                .markdown();
        is_harmless(&refused, 2);
        assert!(!refused.contains("<img") && !refused.contains("](") && !refused.contains("\n# d"), "{refused}");
        assert!(refused.contains("<pre>&#123;<br>  &#34;sub&#34;"), "{refused}");
    }
}
