//! `credential_source` of an `external_account` file: where the subject token comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use super::document::{Document, FormatKeys, ID_TOKEN, SourceKeys, lacks};
use super::x509::{self, X509};
use super::{CAP, CREATE};
use crate::identity::program::Cures;
use crate::identity::{Ambient, Defect, IdentitySource, aws};
use crate::outbound::{self, NamedBy};
use crate::token::{self, expose};

const ALLOW: &str = "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES";

/// Where the subject token comes from.
pub(super) enum CredentialSource {
    File {
        path: PathBuf,
        format: Format,
    },
    Url {
        url: String,
        headers: Vec<(HeaderName, HeaderValue)>,
        named_by: NamedBy,
        format: Format,
    },
    Program(Executable),
    /// Requests signed by an AWS role.
    Aws(Arc<dyn IdentitySource>),
    Certificate(X509),
}

/// The format of the subject token at its source.
pub(super) enum Format {
    Text,
    /// A JSON object that has the token in this field.
    Json(String),
}

impl CredentialSource {
    /// Is `subject_type` the token type of this source?
    pub(super) fn is_called(&self, subject_type: &str) -> bool {
        match self {
            Self::Aws(_) => subject_type == token::AWS_REQUEST,
            Self::Certificate(_) => subject_type == x509::TYPE,
            Self::File { .. } | Self::Url { .. } | Self::Program(_) => [token::JWT, ID_TOKEN].contains(&subject_type),
        }
    }
}

pub(super) fn credential_source(
    source: SourceKeys,
    ambient: &Ambient,
    file: &Path,
    is_named: bool,
) -> Result<CredentialSource, Defect> {
    let format = match source.format {
        None => Format::Text,
        Some(FormatKeys { kind, subject_token_field_name }) => match (kind.as_deref(), subject_token_field_name) {
            (None | Some("text"), _) => Format::Text,
            (Some("json"), Some(field)) => Format::Json(field),
            _ => return Err(lacks("credential_source.format.subject_token_field_name")),
        },
    };
    let of_aws = source.environment_id.is_some();
    // A file for AWS has a `url` too, which is not used.
    let kinds = [
        source.file.is_some(),
        source.url.is_some() && !of_aws,
        source.executable.is_some(),
        source.certificate.is_some(),
        of_aws,
    ];
    if kinds.into_iter().filter(|is| *is).count() != 1 {
        return Err(Defect::new(
            "its `credential_source` is not exactly one of `file`, `url`, `executable`, `certificate` and AWS",
            CREATE,
        ));
    }
    if let Some(version) = &source.environment_id {
        return role_of(version, source.regional_cred_verification_url.as_deref(), ambient, is_named);
    }
    if let Some(keys) = source.certificate {
        return X509::read(keys, &ambient.env).map(CredentialSource::Certificate);
    }
    match (source.file, source.url, source.executable) {
        (Some(path), None, None) if path.is_absolute() => Ok(CredentialSource::File { path, format }),
        (Some(_), None, None) => Err(Defect::new(
            "its `credential_source.file` is a relative path, which would depend on where safeconduct was started",
            "name the file by its absolute path",
        )),
        (None, Some(url), None) => url_of(url, source.headers, format),
        (None, None, Some(_)) => program_of(ambient, file).map(CredentialSource::Program),
        _ => Err(lacks("credential_source")),
    }
}

/// Makes the AWS source. All AWS URLs are compiled in, and the file does not select the role. Of its URLs only
/// `regional_cred_verification_url` is read, and only compared with the known one.
fn role_of(version: &str, asks: Option<&str>, ambient: &Ambient, is_named: bool) -> Result<CredentialSource, Defect> {
    const ASKS: &str = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
    if version != "aws1" || asks.is_some_and(|asks| asks != ASKS) {
        return Err(Defect::new(
            "its `credential_source` is of another version than `aws1`, or asks AWS something else than who we are",
            CREATE,
        ));
    }
    aws::caller_identity(ambient, is_named).map(CredentialSource::Aws)
}

fn url_of(text: String, headers: BTreeMap<String, SecretString>, format: Format) -> Result<CredentialSource, Defect> {
    let url = Url::parse(&text).ok();
    let named_by = match &url {
        Some(url) if outbound::is_beside_us(url) => NamedBy::Platform,
        Some(url) if url.scheme() == "https" && url.username().is_empty() && url.password().is_none() => NamedBy::Them,
        _ => {
            return Err(Defect::new(
                "its `credential_source.url` is neither https nor an address of this machine or its link",
                "a metadata service is at a link-local or loopback address in plain http, anything else over https",
            ));
        }
    };
    let mut fields = Vec::new();
    for (name, value) in &headers {
        let name = HeaderName::try_from(name.as_str()).ok();
        let value = HeaderValue::from_str(expose(value)).ok();
        let (Some(name), Some(mut value)) = (name, value) else {
            return Err(Defect::new("its `credential_source.headers` has no header field's name or value", CREATE));
        };
        value.set_sensitive(true);
        fields.push((name, value));
    }
    Ok(CredentialSource::Url { url: text, headers: fields, named_by, format })
}

/// `executable` of a file (AIP-4117).
pub(super) struct Executable {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) limit: Duration,
}

pub(super) const CURES: Cures = Cures {
    not_started: "it must be there and executable for this user",
    failed: "run it by hand as this user, with GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE and its companions (AIP-4117) set, to see why; \
        what it says is not shown here",
    silent: "run it by hand as this user, without a terminal, to see what it waits for",
    no_jwt: "it must print one JSON object (AIP-4117) on standard output and nothing else",
};

fn program_of(ambient: &Ambient, file: &Path) -> Result<Executable, Defect> {
    if ambient.env.get(ALLOW) != Some("1") {
        return Err(Defect::new(
            format!("it wants to run a program, and {ALLOW} is not 1"),
            format!("set {ALLOW}=1 if the file is yours; it can run whatever it says as this user"),
        ));
    }
    // Read again, now as a file that nobody else can have written or put there. What it says now is what counts.
    let trusted = ambient.env.read_trusted(file, CAP).ok();
    let trusted = trusted.and_then(|content| serde_json::from_slice::<Document>(&content).ok());
    let keys = trusted.and_then(|document| document.credential_source?.executable).ok_or_else(|| {
        Defect::new(
            "it wants to run a program, and others than this user can write it",
            "the file and its directory must belong to this user or root, and have mode 0755 or less (`chmod go-w`)",
        )
    })?;
    let mut words = keys.command.split_whitespace().map(str::to_owned);
    let program = words.next().unwrap_or_default();
    if !program.starts_with('/') || keys.command.contains(['"', '\'', '\\', '$', '`']) {
        return Err(Defect::new(
            "its `executable.command` is no absolute path with plain words after it",
            "no shell is involved: put what needs one into a script and name that",
        ));
    }
    let limit = Duration::from_millis(keys.timeout_millis.unwrap_or(30_000));
    if !(Duration::from_secs(5)..=Duration::from_secs(120)).contains(&limit) {
        return Err(Defect::new(
            "its `executable.timeout_millis` is not between 5000 and 120000",
            "leave it out: 30 seconds are enough",
        ));
    }
    Ok(Executable { program, arguments: words.collect(), limit })
}

pub(super) fn field_of(text: &str, field: &str) -> Option<SecretString> {
    let mut fields: BTreeMap<String, Field> = serde_json::from_str(text).ok()?;
    match fields.remove(field)? {
        Field::Text(text) => Some(text),
        Field::Other(_) => None,
    }
}

/// A field of the JSON object. One of them is the token.
#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Text(SecretString),
    Other(IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_text_or_nothing() {
        let found = |text: &str| field_of(text, "token").map(|token| expose(&token).to_owned());
        assert_eq!(found(r#"{"token": "a", "other": 7}"#), Some("a".to_owned()));
        assert_eq!(found(r#"{"token": 7}"#), None);
        assert_eq!(found(r#"{"value": "a"}"#), None);
        assert_eq!(found("a"), None);
    }
}
