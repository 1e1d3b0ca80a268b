//! The spellings of a secret that a runner has to hide.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use super::Masks;

/// The spellings in which a token can come into a log: as it is, in a URL or a form, and in JSON. None is there twice.
pub(crate) fn spellings(token: &str) -> Vec<Zeroizing<String>> {
    // What RFC 3986 calls unreserved stays as it is.
    const IN_A_URL: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let in_url = Zeroizing::new(utf8_percent_encode(token, IN_A_URL).to_string());
    let in_json = Zeroizing::new(token.replace('\\', "\\\\").replace('"', "\\\""));
    let mut spellings = vec![Zeroizing::new(token.to_owned())];
    for spelling in [in_url, in_json] {
        if !spellings.contains(&spelling) {
            spellings.push(spelling);
        }
    }
    spellings
}

impl Masks {
    /// The lines of output that hide all spellings of a token. Empty if no output hides anything.
    pub(crate) fn lines(self, token: &str) -> Zeroizing<String> {
        let mut lines = Zeroizing::new(String::new());
        if let Self::Command { before, percent } = self {
            // Each line of a text would have to be hidden by itself; a token has one.
            for spelling in spellings(token) {
                // Runners decode percent escapes in commands, and the exact text is to be hidden.
                let escaped = Zeroizing::new(spelling.replace('%', percent));
                lines.push_str(before);
                lines.push_str(&escaped);
                lines.push('\n');
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(masks: Masks, token: &str) -> Vec<String> {
        masks.lines(token).lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_spelling_is_hidden_and_each_once() {
        let github = Masks::Command { before: "::add-mask::", percent: "%25" };
        assert_eq!(lines(github, "a.b-c_d~e"), ["::add-mask::a.b-c_d~e"]);
        assert_eq!(lines(github, "a+b/=="), ["::add-mask::a+b/==", "::add-mask::a%252Bb%252F%253D%253D"]);
        let azure = Masks::Command { before: "##vso[task.setsecret]", percent: "%AZP25" };
        assert_eq!(
            lines(azure, "a%\"\\"),
            [
                "##vso[task.setsecret]a%AZP25\"\\",
                "##vso[task.setsecret]a%AZP2525%AZP2522%AZP255C",
                "##vso[task.setsecret]a%AZP25\\\"\\\\"
            ]
        );
        assert!(lines(Masks::None, "a").is_empty() && lines(Masks::Program(&["x"]), "a").is_empty());
    }
}
