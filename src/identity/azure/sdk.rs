//! App Service and the metadata service, with Microsoft's own crate on our transport.
//!
//! The crate makes the request and reads the answer. The rest is ours. The crate is used only for the two endpoints that it
//! supports. Its request goes through `outbound` (no proxy, no redirect, 64 KiB). Time limits and retries are decided here,
//! because the crate has no limit for one try and overrides the options it is given. Its errors contain whole answers, so
//! they are never passed on. The crate reads the process's variables itself, so its URL is checked against the endpoint that
//! we found.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, ClientOptions, HttpClient, Request, StatusCode, Transport};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;
use url::Url;
use zeroize::Zeroizing;

use super::asking::{self, SOMETHING_ELSE};
use super::{AssignedIdentity, Azure, AzureHost, Error, malformed};
use crate::outbound::Answer;
use crate::token::expose;

/// The URL that the crate uses for the metadata service.
const ITS_IMDS: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
/// The headers that the endpoint needs. The crate's telemetry headers are not sent.
const CARRIED: [&str; 2] = ["metadata", "x-identity-header"];

impl Azure {
    pub(super) async fn by_sdk(&self, resource: &str) -> Result<SecretString, Error> {
        let carrier = Arc::new(Carrier { azure: self.clone(), failed: Mutex::default() });
        let transport = Transport::new(Arc::clone(&carrier) as Arc<dyn HttpClient>);
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: self.which.to_sdk(),
            client_options: ClientOptions { transport: Some(transport), ..ClientOptions::default() },
        };
        let lost = |what: &str| malformed(format!("{}: {what}", self.host.who()), SOMETHING_ELSE);
        // A new credential each time, because it caches the token, and caching is the broker's task.
        let credential = ManagedIdentityCredential::new(Some(options));
        let credential =
            credential.map_err(|_| lost("the process's environment is another than the one that was found"))?;
        let scope = format!("{resource}/.default");
        let token = credential.get_token(&[&scope], None).await;
        let failed = carrier.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (token, failed) {
            (_, Some(error)) => Err(error),
            (Ok(token), None) => Ok(SecretString::from(token.token.secret().to_owned())),
            (Err(_), None) => Err(lost("the answer is not the JSON object with a token that it should be")),
        }
    }

    /// Sends the crate's request through `outbound`.
    async fn carry(&self, request: &Request) -> Result<Answer, Error> {
        let url = self.where_to(request.url())?;
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for name in CARRIED {
            let name = HeaderName::from_static(name);
            let mut values = request.headers().iter().filter(|(its, _)| its.as_str() == name.as_str());
            let Some((_, value)) = values.next() else { continue };
            let value = HeaderValue::from_str(value.as_str());
            let mut value =
                value.map_err(|_| malformed(format!("{name} cannot be a header value"), super::NOT_YOURS))?;
            value.set_sensitive(name != asking::METADATA.0);
            headers.push((name, value));
        }
        let answer = self.answered(&self.ambient.outbound, || asking::get(&url, &[], &headers)).await?;
        Ok(answer)
    }

    /// The answer in the form that the crate wants: hosts write the other members as numbers, texts, or fractions, and the token
    /// itself says them all.
    fn in_its_form(&self, answer: &Answer) -> Result<Zeroizing<Vec<u8>>, Error> {
        let token = asking::token(answer, self.host.who())?;
        let token = Zeroizing::new(serde_json::to_string(expose(&token)).unwrap_or_default());
        let body = format!(
            "{{\"access_token\":{},\"expires_on\":\"4102444800\",\"resource\":\"\",\"token_type\":\"Bearer\"}}",
            *token
        );
        Ok(Zeroizing::new(body.into_bytes()))
    }

    /// The URL for the crate's request. Fails unless it is the endpoint that was detected.
    fn where_to(&self, asked: &Url) -> Result<Url, Error> {
        let mut plain = asked.clone();
        plain.set_query(None);
        let found = match &self.host {
            AzureHost::AppService { endpoint, .. } => (plain == *endpoint).then(|| endpoint.clone()),
            AzureHost::VirtualMachine if plain.as_str() == ITS_IMDS => {
                let mut url =
                    asking::metadata_service(&self.ambient.env).map_err(|defect| defect.of(super::SOURCE.name))?;
                url.set_path(asked.path());
                Some(url)
            }
            _ => None,
        };
        let mut url = found.ok_or_else(|| Error::Misconfigured {
            what: "azure: the process's environment is another than the one that was found".to_owned(),
            hint: "IDENTITY_ENDPOINT and IDENTITY_HEADER must be those that the process was started with".to_owned(),
        })?;
        url.set_query(asked.query());
        Ok(url)
    }
}

impl AssignedIdentity {
    fn to_sdk(&self) -> Option<UserAssignedId> {
        match self {
            Self::SystemAssigned => None,
            Self::Client(id) => Some(UserAssignedId::ClientId(id.clone())),
            Self::Object(id) => Some(UserAssignedId::ObjectId(id.clone())),
            Self::Resource(id) => Some(UserAssignedId::ResourceId(id.clone())),
        }
    }
}

/// The crate's HTTP client. It stores our own error, because the crate's error contains whole answers.
struct Carrier {
    azure: Azure,
    failed: Mutex<Option<Error>>,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier(..)")
    }
}

#[async_trait]
impl HttpClient for Carrier {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let body = match self.azure.carry(request).await {
            Ok(answer) => self.azure.in_its_form(&answer),
            Err(error) => Err(error),
        };
        match body {
            Ok(body) => Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body.to_vec())),
            Err(error) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // The crate does not retry errors of this kind. `outbound` has already retried.
                Err(azure_core::Error::with_message(ErrorKind::Other, "see what was kept"))
            }
        }
    }
}
