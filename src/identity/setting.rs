//! The checks of a source's table, and the values of its keys.

use super::defect::Defect;
use super::{Descriptor, Error};
use crate::setting::{self, Given, Missing, Problem};

/// All problems with the table of a source.
pub(crate) fn problems(row: &Descriptor, table: &toml::Table) -> Vec<Problem> {
    let foreign = setting::foreign(row.settings, table);
    let foreign = foreign.map(|key| Problem::new(key, format!("belongs to another source than {:?}", row.name)));
    foreign.chain(setting::problems(row.settings, table)).collect()
}

/// The values of a source's own keys. Fails if the table has a problem. The error does not repeat a value, which may be
/// a secret in the wrong place.
pub(super) fn given<'a>(row: &Descriptor, table: &'a toml::Table) -> Result<Given<'a>, Error> {
    let wrong = |what: String| {
        let cure = format!(
            "set it right in [identity], beside `source = {:?}`; `safeconduct config schema` lists the keys",
            row.name
        );
        Defect::new(what, cure).of(row.name)
    };
    if let Some(Problem { key, what }) = problems(row, table).into_iter().next() {
        return Err(wrong(format!("{key}: {what}")));
    }
    Given::of(row.settings, table).map_err(|_| wrong("its keys are not as they must be".to_owned()))
}

impl From<Missing> for Defect {
    fn from(missing: Missing) -> Self {
        Self::new(format!("{}: missing", missing.name), missing.doc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::{Kind, Setting};

    const SETTINGS: [Setting; 2] =
        [Setting::required("words", Kind::Texts, "Words."), Setting::optional("name", Kind::Text, "A name.")];

    #[test]
    fn an_undeclared_key_is_refused_and_no_value_is_repeated() {
        let row = Descriptor { name: "row", settings: &SETTINGS, ..super::super::file::SOURCE };
        for (bad, says) in [
            ("words = ['a']\nother = 'SECRET'", "row: other: belongs to another source"),
            ("words = 'SECRET'", "row: words: must be a list of texts"),
            ("name = 'x'", "row: words: missing: Words."),
        ] {
            let error = given(&row, &bad.parse().expect("a table")).map(drop).expect_err(bad);
            assert!(error.to_string().starts_with(says) && !format!("{error:?}").contains("SECRET"), "{error:?}");
        }
    }
}
