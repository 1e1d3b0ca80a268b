//! The keys for our OAuth client: the same for a server, an `idp` and a link of an identity.

use std::path::{Path, PathBuf};

use super::reader::{Reader, Section};
use crate::broker::{AssertionAudience, AssertionType, Client, ClientAuth, SecretFrom, SecretPlace};
use crate::oauth::suggestion;

/// Reads the client. Reports missing keys and keys without effect.
pub(super) fn client_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Client {
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    let auth = auth_named(section);
    let client = Client {
        id: text("client_id"),
        metadata: text("client_metadata"),
        register: section.flag("register"),
        auth: auth.unwrap_or_default(),
        secret: secret_of(reader, section),
        secret_place: place_of(reader, section),
        key_file: path_of(reader, section, "client_key_file"),
        key_id: text("client_key_id"),
        certificate_file: path_of(reader, section, "client_cert_file"),
        assertion_audience: assertion_audience_of(reader, section),
        assertion_type: assertion_type_of(reader, section),
    };
    match auth {
        Some(auth) => about_auth(reader, section, auth),
        None => unknown_auth(reader, section),
    }
    identifiers(reader, section, &client);
    client
}

/// How the client proves itself; `None` if that is written wrongly.
pub(super) fn auth_named(section: &Section<'_>) -> Option<ClientAuth> {
    match section.text("client_auth") {
        Some((name, _)) => ClientAuth::parse(name),
        None => (!section.has("client_auth")).then_some(ClientAuth::None),
    }
}

fn unknown_auth(reader: &mut Reader<'_>, section: &Section<'_>) {
    if let Some((name, line)) = section.text("client_auth") {
        let known: Vec<&str> = ClientAuth::ALL.iter().map(|(name, _)| *name).collect();
        let near = suggestion(name, known.iter().copied());
        let what = format!("{name:?} is not known; there are: {}{near}", known.join(", "));
        reader.problem(line, &section.key("client_auth"), what);
    }
}

fn secret_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<SecretFrom> {
    let file = path_of(reader, section, "client_secret_file").map(SecretFrom::File);
    let variable = section.text("client_secret_env").map(|(name, _)| SecretFrom::Variable(name.to_owned()));
    if file.is_some() && variable.is_some() {
        let what = "is given beside `client_secret_file`; one of them is the secret";
        reader.problem(section.line_of("client_secret_env"), &section.key("client_secret_env"), what);
    }
    file.or(variable)
}

fn place_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<SecretPlace> {
    match section.text("client_secret_method")? {
        ("basic", _) => Some(SecretPlace::Basic),
        ("post", _) => Some(SecretPlace::Post),
        (other, line) => {
            let what = format!("{other:?} is neither \"basic\" nor \"post\"");
            reader.problem(line, &section.key("client_secret_method"), what);
            None
        }
    }
}

fn assertion_audience_of(reader: &mut Reader<'_>, section: &Section<'_>) -> AssertionAudience {
    let Some((text, line)) = section.text("assertion_audience") else { return AssertionAudience::default() };
    let audience = AssertionAudience::parse(text);
    if matches!(&audience, AssertionAudience::Fixed(text) if url::Url::parse(text).is_err()) {
        let what = format!("{text:?} is neither \"issuer\" nor \"token_endpoint\" nor a URL");
        reader.problem(line, &section.key("assertion_audience"), what);
    }
    audience
}

fn assertion_type_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<AssertionType> {
    let (text, line) = section.text("assertion_type")?;
    let kind = AssertionType::parse(text);
    if kind.is_none() {
        let known: Vec<&str> = AssertionType::ALL.iter().map(|(name, _)| *name).collect();
        let what = format!("{text:?} is not known; there are: {}", known.join(", "));
        reader.problem(line, &section.key("assertion_type"), what);
    }
    kind
}

fn path_of(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<PathBuf> {
    let (text, line) = section.text(key)?;
    if !Path::new(text).is_absolute() {
        reader.problem(line, &section.key(key), "must be an absolute path");
    }
    Some(PathBuf::from(text))
}

/// Reports what the client authentication method needs and the table lacks, and keys that another method would need.
fn about_auth(reader: &mut Reader<'_>, section: &Section<'_>, auth: ClientAuth) {
    let has = |key: &str| section.has(key);
    // A key with a wrong value is there: what it says is unknown, and reported elsewhere.
    let registers = has("register") && section.maybe_flag("register") != Some(false);
    let is_named = has("client_id") || has("client_metadata") || registers;
    let by_key = matches!(auth, ClientAuth::PrivateKeyJwt | ClientAuth::MutualTls);
    let (by_secret, by_certificate) = (auth == ClientAuth::Secret, auth == ClientAuth::MutualTls);
    let has_secret = has("client_secret_file") || has("client_secret_env");
    let needs = [
        (by_secret && !registers && !has_secret, "\"secret\" needs `client_secret_file` or `client_secret_env`"),
        (
            auth == ClientAuth::PrivateKeyJwt && !registers && !has("client_key_file"),
            "\"private-key-jwt\" needs `client_key_file`",
        ),
        (
            by_certificate && has("client_cert_file") != has("client_key_file"),
            "\"mtls\" needs `client_cert_file` and `client_key_file` together, or neither with a SPIFFE identity",
        ),
        (
            (by_certificate || auth == ClientAuth::Workload) && section.flag("register"),
            "cannot be registered by ourselves: have the server's operator do it, and set `client_id`",
        ),
        ((by_key || by_secret) && !is_named, "needs `client_id`: a proof is a proof of somebody"),
    ];
    for (_, what) in needs.iter().filter(|(is_so, _)| *is_so) {
        reader.problem(section.line_of("client_auth"), &section.key("client_auth"), *what);
    }
    let uses = [
        ("client_secret_file", by_secret, "\"secret\""),
        ("client_secret_env", by_secret, "\"secret\""),
        ("client_secret_method", by_secret, "\"secret\""),
        ("client_key_file", by_key, "\"private-key-jwt\" or \"mtls\""),
        ("client_key_id", auth == ClientAuth::PrivateKeyJwt, "\"private-key-jwt\""),
        ("client_cert_file", by_certificate, "\"mtls\""),
        ("assertion_audience", auth == ClientAuth::PrivateKeyJwt, "\"private-key-jwt\""),
        ("assertion_type", auth == ClientAuth::Workload, "\"workload\""),
    ];
    for (key, _, auth) in uses.iter().filter(|(key, is_used, _)| !is_used && section.has(key)) {
        let what = format!("has no effect without `client_auth = {auth}`");
        reader.problem(section.line_of(key), &section.key(key), what);
    }
}

/// Reports identifiers that contradict each other: the operator who wrote them expects an effect.
fn identifiers(reader: &mut Reader<'_>, section: &Section<'_>, client: &Client) {
    if let (Some(url), Some((_, line))) = (&client.metadata, section.text("client_metadata")) {
        let fine = url::Url::parse(url).is_ok_and(|url| url.scheme() == "https" && url.path() != "/");
        if !fine {
            reader.problem(line, &section.key("client_metadata"), "must be an https URL with a path");
        }
    }
    if section.has("client_metadata") && section.has("client_id") {
        let what = "is given beside `client_id`; one of them is the identifier";
        reader.problem(section.line_of("client_metadata"), &section.key("client_metadata"), what);
    }
    if client.register && section.has("client_id") {
        let what = "has no effect beside `client_id`";
        reader.problem(section.line_of("register"), &section.key("register"), what);
    }
}
