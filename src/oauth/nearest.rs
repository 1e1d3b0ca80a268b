//! "Did you mean …?" for names that people type: keys, values, servers, flags.

/// Only so much of a text is compared.
const COMPARED: usize = 64;
/// A text is taken for the beginning of a name only if it is at least this long.
const BEGINNING: usize = 3;

/// The known name that was probably meant, if one is near: two slips of the finger at most, or the rest left out.
pub(crate) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (mut near, mut begun): (Option<(usize, &str)>, Vec<&str>) = (None, Vec::new());
    for name in known {
        let distance = distance(text, name);
        if distance <= 2 && distance < name.len() / 2 && near.is_none_or(|near| (distance, name) < near) {
            near = Some((distance, name));
        }
        if text.len() >= BEGINNING && name.starts_with(text) && !begun.contains(&name) {
            begun.push(name);
        }
    }
    let only = if let [only] = begun.as_slice() { Some(*only) } else { None };
    near.map(|(_, name)| name).or(only)
}

/// `; did you mean …?` if a known name is near, else nothing.
pub(crate) fn suggestion<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(text, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// The edit distance, in which two neighbours that changed places are one slip. Only the first characters of `one` are compared.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(COMPARED).collect();
    let other: Vec<char> = other.chars().collect();
    let (mut before, mut row) = (Vec::new(), (0..=other.len()).collect::<Vec<_>>());
    for i in 1..=one.len() {
        let mut next = vec![i];
        for j in 1..=other.len() {
            let replaced = row[j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_beginnings_find_the_name_that_was_meant() {
        let known = ["github-actions", "gitlab-ci", "jwt-bearer", "token-exchange", "aws", "azure", "azure-pipelines"];
        for (text, meant) in [
            ("github", Some("github-actions")),
            ("github-action", Some("github-actions")),
            ("gitlab", Some("gitlab-ci")),
            ("jwt_bearer", Some("jwt-bearer")),
            ("azur", Some("azure")),
            ("wsa", None),
            ("asw", None),
            ("azuer", Some("azure")),
            ("token_exchange", Some("token-exchange")),
            ("nonsense", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, known.into_iter()), meant, "{text}");
        }
        assert_eq!(nearest("dmeo", ["demo"].into_iter()), Some("demo"), "two neighbours changed places");
        assert_eq!(suggestion("scope", ["scopes"].into_iter()), "; did you mean `scopes`?");
    }
}
