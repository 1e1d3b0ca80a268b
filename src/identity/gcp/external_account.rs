//! `external_account`: a file that describes how another platform's identity becomes a Google service account.
//!
//! `gcloud iam workload-identity-pools create-cred-config … --service-account=EMAIL` writes it. It holds no secret. The subject
//! token is a JWT from a file, a URL or a program, a request signed by an AWS role, or a certificate chain. Google's Security
//! Token Service exchanges it for a federated token (`google.rs`), with which the service account issues the identity token.
//! So `service_account_impersonation_url` is required: a federated token is opaque and no identity.
//!
//! The file decides where the token is sent, and Google warns of files from untrusted sources. So all hosts are checked. The
//! token goes only to Google's hosts. It comes from this machine, a link-local address, or a public host over https. Its
//! audience must be the pool's provider (with or without `https:`), or `subject_audience`, and no other. AWS credentials
//! follow the rules of `source = "aws"`; access keys in variables are ignored. A program runs only with
//! `GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1`, by its absolute path, without a shell, and only if nobody else can write the
//! file.
//!
//! Sources: Google Cloud, "Workload Identity Federation with other providers"; AIP-4117 (external accounts); "Validate
//! credential configurations from external sources".

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{CREDENTIALS_API, SOURCE, STS, failed, malformed};
use crate::google::{self, Account, Federation, Google, Hosts, IAM_SCOPE};
use crate::identity::program::Program;
use crate::identity::{Ambient, CLOCK_SKEW, Defect, Descriptor, Error, IdentitySource};
use crate::oauth::{Audience, quoted_words};
use crate::outbound::{Ask, Certificate, NamedBy};
use crate::token::{self, SubjectToken, expose};
use document::{Document, ID_TOKEN, for_people, lacks, of_kind, provider_of, subject_type_of};
use hosts::{impersonation, token_url};
use source::{CURES, CredentialSource, Executable, Format, credential_source, field_of};

mod document;
mod hosts;
mod source;
mod x509;

pub(super) use x509::VARIABLE as CERTIFICATES;

/// The variable with which Google's libraries find the file.
pub(super) const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Larger than any such file or identity token.
const CAP: u64 = 64 * 1024;

const CREATE: &str =
    "create it with `gcloud iam workload-identity-pools create-cred-config PROVIDER --service-account=EMAIL …`";

/// The file, read and checked.
pub(super) struct ExternalAccount {
    /// `//iam.googleapis.com/projects/…`.
    provider: String,
    subject_type: &'static str,
    /// The allowed audiences. The token must have exactly one of them.
    audiences: Vec<Audience>,
    from: CredentialSource,
    hosts: Hosts,
    email: String,
    ambient: Ambient,
}

/// The subject token, and the client certificate for mutual TLS.
struct Subject {
    text: SecretString,
    certificate: Option<Arc<Certificate>>,
}

impl ExternalAccount {
    /// Reads and checks the file, without network. `audience` is the configured audience of the token. `is_named` tells that
    /// the configuration names the source, so that it was not detected.
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
        let document: Document = serde_json::from_slice(&content)
            .map_err(|_| Defect::new(format!("{shown} is not the JSON of a credential configuration"), CREATE))?;
        of_kind(document.kind.as_deref().unwrap_or_default())?;
        if document.client_secret.is_some() || document.workforce_pool_user_project.is_some() {
            return Err(for_people());
        }
        if let Some(domain) = document.universe_domain.filter(|domain| domain != "googleapis.com") {
            return Err(Defect::new(
                format!("it is of another universe than googleapis.com ({:?})", quoted_words(&domain)),
                "only Google's public cloud is spoken to",
            ));
        }
        let provider = provider_of(document.audience.as_deref().unwrap_or_default())?;
        let subject_type = subject_type_of(document.subject_token_type.as_deref().unwrap_or_default())?;
        let sts = token_url(document.token_url.as_deref().unwrap_or_default())?;
        let (iam, email) = impersonation(document.service_account_impersonation_url.as_deref())?;
        let source = document.credential_source.ok_or_else(|| lacks("credential_source"))?;
        let from = credential_source(source, ambient, &path, is_named)?;
        if !from.is_called(subject_type) {
            return Err(Defect::new(
                format!("its `subject_token_type` ({subject_type}) is not that of its `credential_source`"),
                CREATE,
            ));
        }
        if let (CredentialSource::Aws(_) | CredentialSource::Certificate(_), Some(_)) = (&from, &audience) {
            return Err(Defect::new(
                "`subject_audience` is for a token, and the file leads to none",
                "leave it out: what is sent instead is for the provider alone",
            ));
        }
        if matches!(from, CredentialSource::Certificate(_)) && (sts == google::STS || iam == google::IAM) {
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

    /// The kind of the file, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.from {
            CredentialSource::File { .. } => "external_account, file",
            CredentialSource::Url { .. } => "external_account, url",
            CredentialSource::Program(_) => "external_account, executable",
            CredentialSource::Aws(_) => "external_account, aws",
            CredentialSource::Certificate(_) => "external_account, certificate",
        }
    }

    /// Gets the subject token and checks its audience and expiry.
    async fn subject(&self) -> Result<Subject, Error> {
        let token = match &self.from {
            CredentialSource::Certificate(files) => {
                let (certificate, chain) = files.load(&self.ambient).await?;
                return Ok(Subject { text: SecretString::from(chain), certificate: Some(certificate) });
            }
            CredentialSource::Aws(role) => role.subject_token(&Audience::from(self.provider.as_str())).await?,
            CredentialSource::File { path, format } => Self::parsed(&self.content(path).await?, format)?,
            CredentialSource::Url { url, headers, named_by, format } => {
                Self::parsed(&self.fetch(url, headers, *named_by).await?, format)?
            }
            CredentialSource::Program(program) => Self::parsed(&self.run(program).await?, &Format::Text)?,
        };
        self.fit(&token)?;
        Ok(Subject { text: SecretString::from(token.expose()), certificate: None })
    }

    async fn content(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
        let content = self.ambient.env.read_aside(path, CAP).await;
        content.map_err(|error| {
            Error::busy(SOURCE.name, path, &error).unwrap_or_else(|| {
                let what = format!("{} cannot be read: {error}", path.display());
                malformed(what, "the platform writes it: check `credential_source`")
            })
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
                    429 | 500.. => {
                        let retry_after = answer.retry_after();
                        Err(Error::Busy { source_name: SOURCE.name, what, hint: None, retry_after })
                    }
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

    /// Runs the program. It prints one JSON object (AIP-4117).
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
            env: &self.ambient.env,
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

    /// Checks that the token is only for the provider: otherwise other parties would accept it too.
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
