//! The forward proxy: which requests go through it.
//!
//! Its address is `[egress] proxy`, else `HTTPS_PROXY`. Loopback, link-local addresses (metadata services) and the hosts in
//! `NO_PROXY` are dialled directly. The address may hold a user and password, so only its host and port are ever shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;
use zeroize::Zeroizing;

use super::Error;
use super::address::{self, Kind, Network};
use super::rules::literal;
use crate::env::Env;
use crate::oauth::host_of;
use crate::token::expose;

/// A forward proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    host: String,
    port: u16,
    /// Its URL is https: TLS is spoken with the proxy itself.
    speaks_tls: bool,
    /// What `Proxy-Authorization` says.
    authorization: Option<SecretString>,
    except: Vec<Except>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Except {
    All,
    /// The name itself and every name below it, on any port or on this one.
    Domain(String, Option<u16>),
    Network(Network),
}

impl Proxy {
    /// The proxy with this address. Fails if the address is no http or https URL.
    pub(crate) fn new(url: &SecretString, no_proxy: Option<&str>) -> Result<Self, &'static str> {
        let parsed = Url::parse(expose(url)).map_err(|_| "not an absolute URL")?;
        let (true, Some(host)) = (matches!(parsed.scheme(), "http" | "https"), parsed.host_str()) else {
            return Err("not an http or https URL");
        };
        let (host, port) = (host.to_owned(), parsed.port_or_known_default().unwrap_or_default());
        let (speaks_tls, authorization) = (parsed.scheme() == "https", basic(&parsed));
        let except = no_proxy.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Self { host, port, speaks_tls, authorization, except: except.map(Except::parse).collect() })
    }

    /// The proxy that the environment names. A broken address is an error, which names the variable: if it counted as no
    /// proxy, requests would be sent directly.
    pub(crate) fn from_env(env: &Env) -> Result<Option<Self>, String> {
        let set = |name: &'static str| env.secret(name).map(|url| (name, url));
        let Some((name, url)) = set("HTTPS_PROXY").or_else(|| set("https_proxy")) else { return Ok(None) };
        Self::new(&url, Self::no_proxy(env)).map(Some).map_err(|why| format!("{name} is {why}"))
    }

    /// The hosts that are dialled directly, according to the environment.
    pub(crate) fn no_proxy(env: &Env) -> Option<&str> {
        env.get("NO_PROXY").or_else(|| env.get("no_proxy"))
    }

    /// Does a request to this URL go through it?
    pub(super) fn carries(&self, url: &Url) -> bool {
        let host = host_of(url);
        let address = literal(url);
        let local = |address| matches!(address::kind(address), Kind::Loopback | Kind::LinkLocal | Kind::Unusable);
        if host == "localhost" || address.is_some_and(local) {
            return false;
        }
        !self.except.iter().any(|except| match except {
            Except::All => true,
            Except::Domain(domain, port) => {
                let below = host.strip_suffix(domain.as_str());
                below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                    && (port.is_none() || *port == url.port_or_known_default())
            }
            Except::Network(network) => address.is_some_and(|address| network.contains(address)),
        })
    }

    /// Names the proxy in a failure that the proxy may have caused.
    pub(super) fn explain(&self, error: Error) -> Error {
        let through = |host, what| Error::ThroughProxy { host, proxy: self.place(), what };
        match error {
            Error::Unreachable { host, what } => through(host, what),
            Error::Timeout { host, limit } => through(host, format!("no answer within {:.1} s", limit.as_secs_f32())),
            other => other,
        }
    }

    /// Its name or address, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.speaks_tls
    }

    pub(super) fn authorization(&self) -> Option<&SecretString> {
        self.authorization.as_ref()
    }

    /// Host and port: the part of the address that may be shown.
    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The user and password of a URL, as `Proxy-Authorization` has them (RFC 7617).
fn basic(url: &Url) -> Option<SecretString> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text: &str| Zeroizing::new(percent_decode_str(text).collect::<Vec<u8>>());
    let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    let pair = Zeroizing::new([&user[..], b":", &password[..]].concat());
    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
    Some(format!("Basic {}", encoded.as_str()).into())
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("place", &self.place()).field("except", &self.except).finish_non_exhaustive()
    }
}

impl Except {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        if let Some(network) = Network::parse(entry) {
            return Self::Network(network);
        }
        let (domain, port) = match entry.rsplit_once(':').map(|(domain, port)| (domain, port.parse())) {
            Some((domain, Ok(port))) => (domain, Some(port)),
            _ => (entry, None),
        };
        Self::Domain(domain.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase(), port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(no_proxy: &str) -> Proxy {
        Proxy::new(&"http://user:SECRET@proxy.example:3128".to_owned().into(), Some(no_proxy)).expect("a proxy")
    }

    fn carries(no_proxy: &str, url: &str) -> bool {
        proxy(no_proxy).carries(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn what_is_local_never_goes_through_it() {
        for url in ["http://localhost:1/", "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest"] {
            assert!(!carries("", url), "{url}");
        }
        assert!(carries("", "https://login.example.com/"));
        assert!(carries("", "https://10.0.0.1/"));
    }

    #[test]
    fn exceptions_name_domains_networks_or_all() {
        for (no_proxy, url, wanted) in [
            ("example.com", "https://example.com/", false),
            (".example.com", "https://login.example.com/", false),
            ("*.example.com", "https://login.example.com/", false),
            ("example.com", "https://badexample.com/", true),
            ("EXAMPLE.com, other.example", "https://example.com/", false),
            ("10.0.0.0/8", "https://10.1.2.3/", false),
            ("10.0.0.0/8", "https://11.1.2.3/", true),
            ("example.com:8443", "https://example.com:8443/", false),
            ("example.com:443", "https://login.example.com/", false),
            ("example.com:8443", "https://example.com/", true),
            ("10.1.2.3:8443", "https://10.1.2.3:8443/", false),
            ("*", "https://example.com/", false),
            (" , ", "https://example.com/", true),
        ] {
            assert_eq!(carries(no_proxy, url), wanted, "{no_proxy:?} {url}");
        }
    }

    #[test]
    fn a_broken_address_is_an_error_and_is_not_shown() {
        for text in ["", "proxy:3128", "socks5://proxy.example", "http://"] {
            assert!(Proxy::new(&text.to_owned().into(), None).is_err(), "{text}");
        }
        assert!(!format!("{:?}", proxy("")).contains("SECRET"));
        for name in ["HTTPS_PROXY", "https_proxy"] {
            let env = Env::from_vars([(name.to_owned(), "nonsense".to_owned())]);
            let why = Proxy::from_env(&env).expect_err("no URL");
            assert!(why.starts_with(name) && !why.contains("nonsense"), "{why}");
        }
        let unset = Env::from_vars([("HTTPS_PROXY".to_owned(), String::new())]);
        assert!(Proxy::from_env(&unset).expect("nothing is set").is_none());
    }
}
