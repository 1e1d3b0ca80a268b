//! `external_account`: a file that says how an identity of elsewhere becomes a Google service account.
//!
//! `gcloud iam workload-identity-pools create-cred-config … --service-account=EMAIL` writes it. It holds no secret: a JWT
//! comes from a file, a URL or a program, a role of AWS signs a request, or a certificate proves the workload. The Security
//! Token Service changes it (`google.rs`), and the service account at the end gives the identity token. So
//! `service_account_impersonation_url` is needed: a federated token is no identity.
//!
//! The file says where a token is sent, and Google warns of files from strangers. So all hosts are checked: the token goes
//! to Google's own, and comes from this machine, its link, or over https from a public host. It must be made for the pool's
//! provider alone (with or without `https:`), or for `subject_audience`. The keys of AWS are those of the role that is here
//! by the rules of `source = "aws"`, never what lies about in variables. A program runs only under
//! `GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1`, by its absolute path, without a shell, and only if nobody else can write the file.
//!
//! Sources: Google Cloud, "Workload Identity Federation with other providers"; AIP-4117 (external accounts); "Validate
//! credential configurations from external sources".

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;
use zeroize::Zeroizing;

use super::{CREDENTIALS_API, SOURCE, STS, failed, malformed};
use crate::google::{self, Account, Federation, Google, Hosts, IAM_SCOPE};
use crate::identity::aws;
use crate::identity::program::{Cures, Program};
use crate::identity::{Ambient, CLOCK_SKEW, Defect, Descriptor, Error, IdentitySource};
use crate::oauth::{Audience, quoted_words};
use crate::outbound::{self, Ask, Certificate, NamedBy};
use crate::token::{self, SubjectToken, expose};
use x509::X509;

mod x509;

pub(super) use x509::VARIABLE as CERTIFICATES;

/// Where Google's libraries find the file.
pub(super) const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const ALLOW: &str = "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES";
/// Larger than any such file or identity token.
const CAP: u64 = 64 * 1024;

const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

const CREATE: &str =
    "create it with `gcloud iam workload-identity-pools create-cred-config PROVIDER --service-account=EMAIL …`";

/// The file, read and checked.
pub(super) struct ExternalAccount {
    /// `//iam.googleapis.com/projects/…`.
    provider: String,
    subject_type: &'static str,
    /// The audiences that the token may have, one of them.
    audiences: Vec<Audience>,
    from: From,
    hosts: Hosts,
    email: String,
    ambient: Ambient,
}

/// Where what is changed comes from.
enum From {
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
    /// Requests that a role signs.
    Aws(Arc<dyn IdentitySource>),
    Certificate(X509),
}

/// What is changed: a text, and what proves us in the handshake.
struct Subject {
    text: SecretString,
    certificate: Option<Arc<Certificate>>,
}

/// How it is written there.
enum Format {
    Text,
    /// In this field of a JSON object.
    Json(String),
}

/// The file. It may hold a secret that we then refuse, so it has no `Debug`.
#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "type")]
    kind: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    service_account_impersonation_url: Option<String>,
    credential_source: Option<WireSource>,
    universe_domain: Option<String>,
    client_secret: Option<IgnoredAny>,
    workforce_pool_user_project: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, SecretString>,
    executable: Option<WireProgram>,
    environment_id: Option<String>,
    regional_cred_verification_url: Option<String>,
    certificate: Option<x509::Wire>,
    format: Option<WireFormat>,
}

#[derive(Deserialize)]
struct WireProgram {
    command: String,
    timeout_millis: Option<u64>,
}

#[derive(Deserialize)]
struct WireFormat {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

impl ExternalAccount {
    /// Reads and checks the file; nothing is dialled. `audience` is the configured audience of the token. Was it named by
    /// the configuration, or found?
    pub(super) fn read(
        ambient: &Ambient,
        path: PathBuf,
        audience: Option<String>,
        is_named: bool,
    ) -> Result<Self, Defect> {
        let shown = path.display();
        let content = ambient.env.read(&path, CAP).map_err(|error| {
            Defect::new(
                format!("{shown} cannot be read: {error}"),
                format!("it must be a file that uid {} can read", ambient.env.uid()),
            )
        })?;
        let wire: Wire = serde_json::from_slice(&content)
            .map_err(|_| Defect::new(format!("{shown} is not the JSON of a credential configuration"), CREATE))?;
        of_kind(wire.kind.as_deref().unwrap_or_default())?;
        if wire.client_secret.is_some() || wire.workforce_pool_user_project.is_some() {
            return Err(for_people());
        }
        if let Some(domain) = wire.universe_domain.filter(|domain| domain != "googleapis.com") {
            return Err(Defect::new(
                format!("it is of another universe than googleapis.com ({:?})", quoted_words(&domain)),
                "only Google's public cloud is spoken to",
            ));
        }
        let provider = provider_of(wire.audience.as_deref().unwrap_or_default())?;
        let subject_type = subject_type_of(wire.subject_token_type.as_deref().unwrap_or_default())?;
        let sts = token_url(wire.token_url.as_deref().unwrap_or_default())?;
        let (iam, email) = impersonation(wire.service_account_impersonation_url.as_deref())?;
        let source = wire.credential_source.ok_or_else(|| lacks("credential_source"))?;
        let from = from_of(source, ambient, &path, is_named)?;
        if !from.is_called(subject_type) {
            return Err(Defect::new(
                format!("its `subject_token_type` ({subject_type}) is not that of its `credential_source`"),
                CREATE,
            ));
        }
        if let (From::Aws(_) | From::Certificate(_), Some(_)) = (&from, &audience) {
            return Err(Defect::new(
                "`subject_audience` is for a token, and the file leads to none",
                "leave it out: what is sent instead is for the provider alone",
            ));
        }
        if matches!(from, From::Certificate(_)) && (sts == google::STS || iam == google::IAM) {
            return Err(Defect::new(
                "it proves itself with a certificate, and names hosts that ask for none",
                "both must be Google's for that: sts.mtls.googleapis.com and iamcredentials.mtls.googleapis.com",
            ));
        }
        let audiences = match audience {
            Some(one) => vec![Audience::from(one.as_str())],
            None => vec![Audience::from(format!("https:{provider}").as_str()), Audience::from(provider.as_str())],
        };
        let hosts = Hosts { sts, iam };
        Ok(Self { provider, subject_type, audiences, from, hosts, email, ambient: ambient.clone() })
    }

    /// What the token comes from, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.from {
            From::File { .. } => "external_account, file",
            From::Url { .. } => "external_account, url",
            From::Program(_) => "external_account, executable",
            From::Aws(_) => "external_account, aws",
            From::Certificate(_) => "external_account, certificate",
        }
    }

    /// What is changed, fit to leave.
    async fn subject(&self) -> Result<Subject, Error> {
        let token = match &self.from {
            From::Certificate(files) => {
                let (certificate, chain) = files.load(&self.ambient)?;
                return Ok(Subject { text: SecretString::from(chain), certificate: Some(certificate) });
            }
            From::Aws(role) => role.subject_token(&Audience::from(self.provider.as_str())).await?,
            From::File { path, format } => Self::parsed(&self.content(path)?, format)?,
            From::Url { url, headers, named_by, format } => {
                Self::parsed(&self.fetch(url, headers, *named_by).await?, format)?
            }
            From::Program(program) => Self::parsed(&self.run(program).await?, &Format::Text)?,
        };
        self.fit(&token)?;
        Ok(Subject { text: SecretString::from(token.expose()), certificate: None })
    }

    fn content(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
        let content = self.ambient.env.read(path, CAP);
        content.map_err(|error| {
            let what = format!("{} cannot be read: {error}", path.display());
            malformed(what, "the platform writes it: check `credential_source`")
        })
    }

    fn parsed(text: &[u8], format: &Format) -> Result<SubjectToken, Error> {
        let text = std::str::from_utf8(text).unwrap_or_default().trim();
        let token = match format {
            Format::Text => Some(SecretString::from(text.to_owned())),
            Format::Json(field) => field_of(text, field),
        };
        let what = "what `credential_source` leads to";
        let token = token.ok_or_else(|| malformed(format!("{what} has no field of that name"), FORMAT))?;
        SubjectToken::parse(token).map_err(|error| malformed(format!("{what} is {error}"), FORMAT))
    }

    async fn fetch(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        named_by: NamedBy,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut ask = Ask::get(url, named_by);
        ask.headers.extend_from_slice(headers);
        let who = "the URL of `credential_source`:";
        match self.ambient.outbound.send(ask).await {
            Ok(answer) if answer.status == 200 => Ok(answer.body),
            Ok(answer) => {
                let what = format!("{who} it answers status {}", answer.status);
                match answer.status {
                    429 | 500.. => Err(Error::Unreachable { source_name: SOURCE.name, what, hint: None }),
                    _ => Err(Error::Rejected {
                        source_name: SOURCE.name,
                        what,
                        hint: "the platform behind it says no: its own documentation says which permission is missing"
                            .to_owned(),
                    }),
                }
            }
            Err(error) if error.is_temporary() => {
                Err(Error::Unreachable { source_name: SOURCE.name, what: format!("{who} {error}"), hint: error.hint() })
            }
            Err(error) => Err(malformed(format!("{who} {error}"), &error.hint().unwrap_or_else(|| FORMAT.to_owned()))),
        }
    }

    /// AIP-4117: one JSON object, which says whether it worked.
    async fn run(&self, executable: &Executable) -> Result<Zeroizing<Vec<u8>>, Error> {
        #[derive(Deserialize)]
        struct Printed {
            version: u64,
            success: bool,
            token_type: Option<String>,
            id_token: Option<SecretString>,
            code: Option<String>,
        }
        let told = [
            ("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", self.provider.as_str()),
            ("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE", self.subject_type),
            ("GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE", "0"),
            ("GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL", self.email.as_str()),
        ];
        let program = Program {
            row: SOURCE.name,
            program: OsStr::new(&executable.program),
            arguments: &executable.arguments,
            variables: &told,
            limit: executable.limit,
            cures: CURES,
        };
        let text = program.run().await?;
        let printed: Printed =
            serde_json::from_slice(&text).map_err(|_| program.malformed("what is not the JSON of AIP-4117"))?;
        match printed {
            Printed { version: 1, success: true, token_type: Some(kind), id_token: Some(token), .. }
                if kind == token::JWT || kind == ID_TOKEN =>
            {
                Ok(Zeroizing::new(expose(&token).as_bytes().to_vec()))
            }
            Printed { success: false, code, .. } => Err(Error::Rejected {
                source_name: SOURCE.name,
                what: format!(
                    "{} says that it has no token (code {:?})",
                    program.shown(),
                    quoted_words(&code.unwrap_or_default())
                ),
                hint: "run it by hand as this user to see why; what it says is not shown here".to_owned(),
            }),
            _ => Err(program.malformed("no JWT in `id_token`, or another version than 1")),
        }
    }

    /// Made for the provider alone, or it would be good for others as well.
    fn fit(&self, token: &SubjectToken) -> Result<(), Error> {
        let now = self.ambient.clock.unix();
        let mut found = Ok(());
        for audience in &self.audiences {
            found = token.fit_for(audience, now, CLOCK_SKEW);
            if found.is_ok() {
                return Ok(());
            }
        }
        found.map_err(|unfit| Error::Malformed {
            source_name: SOURCE.name,
            what: format!("`credential_source`: {unfit}"),
            hint: "have the platform make the token for the provider (`audience` of the file, with `https:`), or set \
                `subject_audience` to one of the provider's allowed audiences"
                .to_owned(),
        })
    }
}

const FORMAT: &str = "it must be one JWT, or a JSON object with it in the field that `format` names";

#[async_trait]
impl IdentitySource for ExternalAccount {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let subject = self.subject().await?;
        let google =
            Google { outbound: &self.ambient.outbound, hosts: &self.hosts, certificate: subject.certificate.as_ref() };
        let federation = Federation {
            provider: &self.provider,
            subject: expose(&subject.text),
            subject_type: self.subject_type,
            scope: IAM_SCOPE,
            extra: &[],
        };
        let federated = google.federate(&federation).await.map_err(|failure| failed(STS, failure))?;
        let account = Account { email: &self.email, delegates: &[] };
        let token = google.id_token(&federated.token, &account, audience.as_str()).await;
        token.map_err(|failure| failed(CREDENTIALS_API, failure))
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}

/// Only a file without a secret of anybody.
fn of_kind(kind: &str) -> Result<(), Defect> {
    let (what, cure) = match kind {
        "external_account" => return Ok(()),
        "service_account" => (
            "it is a key of a service account, a stored secret that does not end",
            "unset GOOGLE_APPLICATION_CREDENTIALS where the platform has an identity of its own; elsewhere use workload \
                identity federation (an `external_account` file), and delete the key",
        ),
        "authorized_user" | "external_account_authorized_user" | "gdch_service_account" => (
            "it is a person's login or a stored credential, and a workload never acts as a person",
            "unset GOOGLE_APPLICATION_CREDENTIALS; on a laptop give a JWT with `--identity-file FILE`",
        ),
        "impersonated_service_account" => (
            "it has a person's login or a key act as a service account",
            "use an `external_account` file, or on Google Cloud `service_account` with `impersonate = true`",
        ),
        _ => ("it is no credential configuration that is known", CREATE),
    };
    Err(Defect::new(what, cure))
}

fn for_people() -> Defect {
    Defect::new(
        "it is of a workforce pool, which is for people",
        "use a workload identity pool: `gcloud iam workload-identity-pools create-cred-config …`",
    )
}

fn lacks(key: &str) -> Defect {
    Defect::new(format!("it lacks `{key}`"), CREATE)
}

fn provider_of(text: &str) -> Result<String, Defect> {
    if text.contains("/workforcePools/") {
        return Err(for_people());
    }
    let parts: Vec<&str> = text.strip_prefix("//iam.googleapis.com/").unwrap_or_default().split('/').collect();
    let named = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match parts.as_slice() {
        ["projects", project, "locations", location, "workloadIdentityPools", pool, "providers", provider]
            if [project, location, pool, provider].into_iter().all(named) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(Defect::new("its `audience` is no workload identity provider's full name", CREATE)),
    }
}

fn subject_type_of(text: &str) -> Result<&'static str, Defect> {
    let known = [token::JWT, ID_TOKEN, token::AWS_REQUEST, x509::TYPE];
    known.into_iter().find(|known| *known == text).ok_or_else(|| {
        Defect::new(
            format!("its `subject_token_type` is not known ({:?})", quoted_words(text)),
            "use a provider of OpenID Connect, AWS or X.509 in the pool; SAML is not spoken",
        )
    })
}

impl From {
    /// Is that the type of what comes from there?
    fn is_called(&self, subject_type: &str) -> bool {
        match self {
            Self::Aws(_) => subject_type == token::AWS_REQUEST,
            Self::Certificate(_) => subject_type == x509::TYPE,
            Self::File { .. } | Self::Url { .. } | Self::Program(_) => [token::JWT, ID_TOKEN].contains(&subject_type),
        }
    }
}

/// An https URL of that host, with nothing in it that could lead elsewhere.
fn plain_https(text: &str) -> Option<(Url, String)> {
    let url = Url::parse(text).ok()?;
    let host = url.host_str()?.to_owned();
    let plain = url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && url.port().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then_some((url, host))
}

/// Is it that service of Google's: at its usual host, with a certificate, in a region, or behind Private Service Connect?
fn is_host(host: &str, service: &str) -> bool {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let Some(rest) = host.strip_prefix(service) else { return false };
    let regional = || word(rest.strip_prefix('.')?.strip_suffix(".rep.googleapis.com")?).then_some(());
    let private = || word(rest.strip_prefix('-')?.strip_suffix(".p.googleapis.com")?).then_some(());
    [".googleapis.com", ".mtls.googleapis.com"].contains(&rest) || regional().or_else(private).is_some()
}

fn token_url(text: &str) -> Result<String, Defect> {
    match plain_https(text) {
        Some((url, host)) if is_host(&host, "sts") && url.path() == "/v1/token" => Ok(url.to_string()),
        _ => Err(Defect::new(
            "its `token_url` is not Google's Security Token Service: a file that is not from Google could send the identity \
                to anybody",
            "it must be https://sts.googleapis.com/v1/token, or the same in a region (sts.REGION.rep.googleapis.com) or \
                behind Private Service Connect (sts-NAME.p.googleapis.com)",
        )),
    }
}

/// The API's base and the account's email.
fn impersonation(text: Option<&str>) -> Result<(String, String), Defect> {
    let Some(text) = text else {
        return Err(Defect::new(
            "it lacks `service_account_impersonation_url`: a federated token is no identity that others could read",
            format!("{CREATE}; or name the JWT itself as the identity and set `exchange = \"gcp\"` where it is used"),
        ));
    };
    let email = |url: &Url| {
        let email = url.path().strip_prefix("/v1/projects/-/serviceAccounts/")?.strip_suffix(":generateAccessToken")?;
        google::is_account(email).then(|| email.to_owned())
    };
    match plain_https(text) {
        Some((url, host)) if is_host(&host, "iamcredentials") => {
            let email = email(&url).ok_or_else(|| lacks("service_account_impersonation_url"))?;
            Ok((format!("https://{host}"), email))
        }
        _ => Err(Defect::new(
            "its `service_account_impersonation_url` is not Google's Service Account Credentials API",
            "its host must be iamcredentials.googleapis.com, or that of a region or of Private Service Connect",
        )),
    }
}

fn from_of(source: WireSource, ambient: &Ambient, file: &Path, is_named: bool) -> Result<From, Defect> {
    let format = match source.format {
        None => Format::Text,
        Some(WireFormat { kind, subject_token_field_name }) => match (kind.as_deref(), subject_token_field_name) {
            (None | Some("text"), _) => Format::Text,
            (Some("json"), Some(field)) => Format::Json(field),
            _ => return Err(lacks("credential_source.format.subject_token_field_name")),
        },
    };
    let of_aws = source.environment_id.is_some();
    // A file of AWS has a URL too, which is not dialled.
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
    if let Some(wire) = source.certificate {
        return X509::read(wire, &ambient.env).map(From::Certificate);
    }
    match (source.file, source.url, source.executable) {
        (Some(path), None, None) if path.is_absolute() => Ok(From::File { path, format }),
        (Some(_), None, None) => Err(Defect::new(
            "its `credential_source.file` is a relative path, which would depend on where safeconduct was started",
            "name the file by its absolute path",
        )),
        (None, Some(url), None) => url_of(url, source.headers, format),
        (None, None, Some(program)) => program_of(&program, ambient, file).map(From::Program),
        _ => Err(lacks("credential_source")),
    }
}

/// What is asked is compiled in, and whose role it is does not come from the file: of its URLs only that is read which says
/// what Google will ask AWS.
fn role_of(version: &str, asks: Option<&str>, ambient: &Ambient, is_named: bool) -> Result<From, Defect> {
    const ASKS: &str = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
    if version != "aws1" || asks.is_some_and(|asks| asks != ASKS) {
        return Err(Defect::new(
            "its `credential_source` is of another version than `aws1`, or asks AWS something else than who we are",
            CREATE,
        ));
    }
    aws::caller_identity(ambient, is_named).map(From::Aws)
}

fn url_of(text: String, headers: BTreeMap<String, SecretString>, format: Format) -> Result<From, Defect> {
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
    Ok(From::Url { url: text, headers: fields, named_by, format })
}

/// `executable` of a file (AIP-4117).
struct Executable {
    program: String,
    arguments: Vec<String>,
    limit: Duration,
}

const CURES: Cures = Cures {
    not_started: "it must be there and executable for this user",
    failed: "run it by hand as this user, with GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE and its companions (AIP-4117) set, to see why; \
        what it says is not shown here",
    silent: "run it by hand as this user, without a terminal, to see what it waits for",
    no_jwt: "it must print one JSON object (AIP-4117) on standard output and nothing else",
};

fn program_of(wire: &WireProgram, ambient: &Ambient, file: &Path) -> Result<Executable, Defect> {
    if ambient.env.get(ALLOW) != Some("1") {
        return Err(Defect::new(
            format!("it wants to run a program, and {ALLOW} is not 1"),
            format!("set {ALLOW}=1 if the file is yours; it can run whatever it says as this user"),
        ));
    }
    let metadata = ambient.env.metadata(file).ok();
    let ours = metadata.is_some_and(|file| [0, ambient.env.uid()].contains(&file.uid()) && file.mode() & 0o022 == 0);
    if !ours {
        return Err(Defect::new(
            "it wants to run a program, and others than this user can write it",
            format!("`chmod go-w {}`, owned by this user or root", file.display()),
        ));
    }
    let mut words = wire.command.split_whitespace().map(str::to_owned);
    let program = words.next().unwrap_or_default();
    if !program.starts_with('/') || wire.command.contains(['"', '\'', '\\', '$', '`']) {
        return Err(Defect::new(
            "its `executable.command` is no absolute path with plain words after it",
            "no shell is involved: put what needs one into a script and name that",
        ));
    }
    let limit = Duration::from_millis(wire.timeout_millis.unwrap_or(30_000));
    if !(Duration::from_secs(5)..=Duration::from_secs(120)).contains(&limit) {
        return Err(Defect::new(
            "its `executable.timeout_millis` is not between 5000 and 120000",
            "leave it out: 30 seconds are enough",
        ));
    }
    Ok(Executable { program, arguments: words.collect(), limit })
}

fn field_of(text: &str, field: &str) -> Option<SecretString> {
    let mut fields: BTreeMap<String, Field> = serde_json::from_str(text).ok()?;
    match fields.remove(field)? {
        Field::Text(text) => Some(text),
        Field::Other(_) => None,
    }
}

/// A field of an answer of which one is the token.
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
    fn a_token_goes_to_googles_hosts_alone() {
        for good in [
            "https://sts.googleapis.com/v1/token",
            "https://sts.mtls.googleapis.com/v1/token",
            "https://sts.europe-west3.rep.googleapis.com/v1/token",
            "https://sts-agents.p.googleapis.com/v1/token",
        ] {
            assert_eq!(token_url(good).ok().as_deref(), Some(good));
        }
        for bad in [
            "",
            "http://sts.googleapis.com/v1/token",
            "https://sts.googleapis.com.evil.example/v1/token",
            "https://evil.example/v1/token",
            "https://evil-sts.googleapis.com/v1/token",
            "https://sts.evil.googleapis.com/v1/token",
            "https://sts-a.b.p.googleapis.com/v1/token",
            "https://sts.googleapis.com:8443/v1/token",
            "https://sts.googleapis.com@evil.example/v1/token",
            "https://u@sts.googleapis.com/v1/token",
            "https://sts.googleapis.com/v1/token?a=b",
            "https://sts.googleapis.com/v1/../x",
            "https://iamcredentials.googleapis.com/v1/token",
        ] {
            assert!(token_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_account_is_read_from_the_impersonation_url() {
        let url = |host: &str, rest: &str| format!("https://{host}/v1/projects/-/serviceAccounts/{rest}");
        let read = impersonation(Some(&url(
            "iamcredentials.googleapis.com",
            "a@p.iam.gserviceaccount.com:generateAccessToken",
        )));
        let expected = ("https://iamcredentials.googleapis.com".to_owned(), "a@p.iam.gserviceaccount.com".to_owned());
        assert_eq!(read.ok(), Some(expected));
        for bad in [
            url("iamcredentials.googleapis.com", "a/b:generateAccessToken"),
            url("iamcredentials.googleapis.com", "a@p:generateIdToken"),
            url("evil.example", "a@p:generateAccessToken"),
            url("iamcredentials.googleapis.com.evil.example", "a@p:generateAccessToken"),
        ] {
            assert!(impersonation(Some(&bad)).is_err(), "{bad}");
        }
        assert!(impersonation(None).is_err_and(|defect| defect.what.contains("no identity")));
    }

    #[test]
    fn a_field_is_a_text_or_nothing() {
        let found = |text: &str| field_of(text, "token").map(|token| expose(&token).to_owned());
        assert_eq!(found(r#"{"token": "a", "other": 7}"#), Some("a".to_owned()));
        assert_eq!(found(r#"{"token": 7}"#), None);
        assert_eq!(found(r#"{"value": "a"}"#), None);
        assert_eq!(found("a"), None);
    }
}
