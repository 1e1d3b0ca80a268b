//! The keys for our OAuth client: the same for a server, an `idp` and a link of an identity.

use std::path::{Path, PathBuf};

use super::reader::{Reader, Section};
use crate::broker::{Client, ClientAuth, SecretFrom, SecretPlace};

/// Reads the client. Reports missing keys and keys without effect.
pub(super) fn client_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Client {
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    let client = Client {
        id: text("client_id"),
        metadata: text("client_metadata"),
        register: section.flag("register"),
        auth: auth_of(reader, section),
        secret: secret_of(reader, section),
        secret_place: place_of(reader, section),
        key_file: path_of(reader, section, "client_key_file"),
        key_id: text("client_key_id"),
        certificate_file: path_of(reader, section, "client_cert_file"),
    };
    missing(reader, section, &client);
    unused(reader, section, &client);
    client
}

fn auth_of(reader: &mut Reader<'_>, section: &Section<'_>) -> ClientAuth {
    let Some((name, line)) = section.text("client_auth") else { return ClientAuth::None };
    ClientAuth::parse(name).unwrap_or_else(|| {
        let known: Vec<&str> = ClientAuth::ALL.iter().map(|(name, _)| *name).collect();
        let what = format!("{name:?} is not known; there are: {}", known.join(", "));
        reader.problem(line, &section.key("client_auth"), what);
        ClientAuth::None
    })
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

fn path_of(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<PathBuf> {
    let (text, line) = section.text(key)?;
    if !Path::new(text).is_absolute() {
        reader.problem(line, &section.key(key), "must be an absolute path");
    }
    Some(PathBuf::from(text))
}

/// Reports what the client authentication method needs and the table lacks.
fn missing(reader: &mut Reader<'_>, section: &Section<'_>, client: &Client) {
    let named = client.id.is_some() || client.metadata.is_some() || client.register;
    let what = match client.auth {
        ClientAuth::Secret if !client.register && client.secret.is_none() => {
            "\"secret\" needs `client_secret_file` or `client_secret_env`"
        }
        ClientAuth::PrivateKeyJwt if !client.register && client.key_file.is_none() => {
            "\"private-key-jwt\" needs `client_key_file`"
        }
        ClientAuth::MutualTls if client.certificate_file.is_some() != client.key_file.is_some() => {
            "\"mtls\" needs `client_cert_file` and `client_key_file` together, or neither with a SPIFFE identity"
        }
        ClientAuth::MutualTls | ClientAuth::Workload if client.register => {
            "cannot be registered by ourselves: have the server's operator do it, and set `client_id`"
        }
        ClientAuth::PrivateKeyJwt | ClientAuth::Secret | ClientAuth::MutualTls if !named => {
            "needs `client_id`: a proof is a proof of somebody"
        }
        _ => return,
    };
    reader.problem(section.line_of("client_auth"), &section.key("client_auth"), what);
}

/// Reports keys that would have no effect: the operator who wrote them expects one.
fn unused(reader: &mut Reader<'_>, section: &Section<'_>, client: &Client) {
    let by_secret = client.auth == ClientAuth::Secret;
    let by_key = matches!(client.auth, ClientAuth::PrivateKeyJwt | ClientAuth::MutualTls);
    let keys = [
        ("client_secret_file", by_secret, "\"secret\""),
        ("client_secret_env", by_secret, "\"secret\""),
        ("client_secret_method", by_secret, "\"secret\""),
        ("client_key_file", by_key, "\"private-key-jwt\" or \"mtls\""),
        ("client_key_id", client.auth == ClientAuth::PrivateKeyJwt, "\"private-key-jwt\""),
        ("client_cert_file", client.auth == ClientAuth::MutualTls, "\"mtls\""),
    ];
    for (key, _, auth) in keys.iter().filter(|(key, used, _)| !used && section.has(key)) {
        let what = format!("has no effect without `client_auth = {auth}`");
        reader.problem(section.line_of(key), &section.key(key), what);
    }
    if let (Some(url), Some((_, line))) = (&client.metadata, section.text("client_metadata")) {
        let fine = url::Url::parse(url).is_ok_and(|url| url.scheme() == "https" && url.path() != "/");
        if !fine {
            reader.problem(line, &section.key("client_metadata"), "must be an https URL with a path");
        }
        if client.id.is_some() {
            let what = "is given beside `client_id`; one of them is the identifier";
            reader.problem(line, &section.key("client_metadata"), what);
        }
    }
    if client.register && client.id.is_some() {
        let what = "has no effect beside `client_id`";
        reader.problem(section.line_of("register"), &section.key("register"), what);
    }
}
