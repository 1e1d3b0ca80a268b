//! The URLs in an `external_account` file: each must name a host of Google's.

use url::Url;

use super::CREATE;
use super::document::lacks;
use crate::google;
use crate::identity::Defect;

/// Parses an https URL without userinfo, port, query and fragment. Returns it with its host.
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

/// Is it a host of this Google service: the usual one, for mutual TLS, regional, or for Private Service Connect?
fn is_host(host: &str, service: &str) -> bool {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let Some(rest) = host.strip_prefix(service) else { return false };
    let regional = || word(rest.strip_prefix('.')?.strip_suffix(".rep.googleapis.com")?).then_some(());
    let private = || word(rest.strip_prefix('-')?.strip_suffix(".p.googleapis.com")?).then_some(());
    [".googleapis.com", ".mtls.googleapis.com"].contains(&rest) || regional().or_else(private).is_some()
}

pub(super) fn token_url(text: &str) -> Result<String, Defect> {
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
pub(super) fn impersonation(text: Option<&str>) -> Result<(String, String), Defect> {
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
}
