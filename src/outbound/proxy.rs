//! The forward proxy: which requests go through it.
//!
//! Its address is `[egress] proxy`, else `https_proxy`, `HTTPS_PROXY`, `all_proxy` or `ALL_PROXY`, in this order, as curl reads
//! them. Loopback, link-local addresses (metadata services) and the hosts in `no_proxy`, else `NO_PROXY`, are dialled directly.
//! The address may hold a user and password, so only its host and port are ever shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::Error;
use super::rules::literal;
use crate::address::{self, Kind, Network};
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

/// The variables that name the proxy for https, the first one first. `all_proxy` is for every scheme.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables that name the hosts without proxy, the first one first.
const EXCEPT_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// One entry of `NO_PROXY`: which hosts it names, on any port or on this one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Except {
    hosts: Hosts,
    port: Option<u16>,
}

/// The hosts of an entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// The name itself and every name below it.
    Domain(String),
    Network(Network),
}

impl Proxy {
    /// The proxy with this address. Fails if the address is no http or https URL.
    pub(crate) fn new(url: &SecretString, no_proxy: Option<&str>) -> Result<Self, &'static str> {
        let parsed = parse(expose(url)).ok_or("not an absolute URL")?;
        let (true, Some(host)) = (matches!(parsed.scheme(), "http" | "https"), parsed.host_str()) else {
            return Err("not an http or https URL");
        };
        let (host, port) = (host.to_owned(), parsed.port_or_known_default().unwrap_or_default());
        let (speaks_tls, authorization) = (parsed.scheme() == "https", basic(&parsed));
        let between = |c: char| c == ',' || c.is_whitespace();
        let except = no_proxy.unwrap_or_default().split(between).filter(|entry| !entry.is_empty());
        Ok(Self { host, port, speaks_tls, authorization, except: except.map(Except::parse).collect() })
    }

    /// The proxy that the environment names. A broken address is an error, which names the variable: if it counted as no
    /// proxy, requests would be sent directly.
    pub(crate) fn from_env(env: &Env) -> Result<Option<Self>, String> {
        let no_proxy = Self::no_proxy(env)?;
        let Some((name, url)) = first(env, &PROXY_VARIABLES)? else { return Ok(None) };
        Self::new(&url.to_owned().into(), no_proxy).map(Some).map_err(|why| format!("{name} is {why}"))
    }

    /// The hosts that are dialled directly, according to the environment. A value that is no text is an error.
    pub(crate) fn no_proxy(env: &Env) -> Result<Option<&str>, String> {
        Ok(first(env, &EXCEPT_VARIABLES)?.map(|(_, hosts)| hosts))
    }

    /// Does a request to this URL go through it?
    pub(super) fn carries(&self, url: &Url) -> bool {
        let host = host_of(url);
        let address = literal(url);
        let local = |address| matches!(address::kind(address), Kind::Loopback | Kind::LinkLocal | Kind::Unusable);
        if host == "localhost" || address.is_some_and(local) {
            return false;
        }
        let of_this = |except: &Except| except.port.is_none() || except.port == url.port_or_known_default();
        !self.except.iter().filter(|except| of_this(except)).any(|except| match &except.hosts {
            Hosts::All => true,
            Hosts::Domain(domain) => {
                let below = host.strip_suffix(domain.as_str());
                below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Hosts::Network(network) => address.is_some_and(|address| network.contains(address)),
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
        if let Some(hosts) = Hosts::parse(entry) {
            return Self { hosts, port: None };
        }
        match entry.rsplit_once(':').map(|(hosts, port)| (Hosts::parse(hosts), port.parse())) {
            Some((Some(hosts), Ok(port))) => Self { hosts, port: Some(port) },
            // It names no host that a URL can have, so it exempts none.
            _ => Self { hosts: Hosts::Domain(entry.to_ascii_lowercase()), port: None },
        }
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Some(network) = Network::parse(text) {
            return Some(Self::Network(network));
        }
        // A dot before a name means every name below it, a dot after it the root. curl and Go ignore both.
        let name = text.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
        // Written as the host of a URL is: in lower case.
        match Host::parse(name).ok()? {
            Host::Domain(name) => Some(Self::Domain(name)),
            Host::Ipv4(address) => Network::parse(&address.to_string()).map(Self::Network),
            Host::Ipv6(address) => Network::parse(&address.to_string()).map(Self::Network),
        }
    }
}

/// The URL of a proxy. `HOST:PORT` is one in plain http, as curl and Go read it.
fn parse(text: &str) -> Option<Url> {
    if text.contains("://") {
        return Url::parse(text).ok();
    }
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let text = Zeroizing::new(format!("http://{text}"));
    if has_port { Url::parse(&text).ok() } else { None }
}

/// The first of these variables that is set. Fails if it is not UTF-8.
fn first<'e>(env: &'e Env, names: &[&'static str]) -> Result<Option<(&'static str, &'e str)>, String> {
    for name in names {
        if env.is_unreadable(name) {
            return Err(format!("{name} is not UTF-8"));
        }
        if let Some(value) = env.get(name) {
            return Ok(Some((name, value)));
        }
    }
    Ok(None)
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
            ("example.com.", "https://example.com/", false),
            (".example.com.", "https://login.example.com/", false),
            ("example.com.:8443", "https://example.com:8443/", false),
            ("other.example example.com", "https://example.com/", false),
            ("10.0.0.0/8:8443", "https://10.1.2.3:8443/", false),
            ("10.0.0.0/8:8443", "https://10.1.2.3/", true),
            ("10.1.2.3:8443", "https://10.1.2.3/", true),
            ("3.2.1", "https://10.3.2.1/", true),
            ("2606:4700::1111", "https://[2606:4700::1111]/", false),
            ("[2606:4700::1111]", "https://[2606:4700::1111]/", false),
            ("[2606:4700::1111]:8443", "https://[2606:4700::1111]:8443/", false),
            ("[2606:4700::1111]:8443", "https://[2606:4700::1111]/", true),
            ("2606:4700::/32", "https://[2606:4700::9]/", false),
            ("*:8443", "https://example.com:8443/", false),
            ("*:8443", "https://example.com/", true),
            (".", "https://example.com/", true),
        ] {
            assert_eq!(carries(no_proxy, url), wanted, "{no_proxy:?} {url}");
        }
    }

    #[test]
    fn a_broken_address_is_an_error_and_is_not_shown() {
        for text in ["", "proxy", "proxy:", "socks5://proxy.example", "http://"] {
            assert!(Proxy::new(&text.to_owned().into(), None).is_err(), "{text}");
        }
        assert!(!format!("{:?}", proxy("")).contains("SECRET"));
        for name in PROXY_VARIABLES {
            let env = Env::from_vars([(name.to_owned(), "nonsense".to_owned())]);
            let why = Proxy::from_env(&env).expect_err("no URL");
            assert!(why.starts_with(name) && !why.contains("nonsense"), "{why}");
        }
        let unset = Env::from_vars([("HTTPS_PROXY".to_owned(), String::new())]);
        assert!(Proxy::from_env(&unset).expect("nothing is set").is_none());
    }

    fn of_env(vars: &[(&str, &str)]) -> Option<Proxy> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Proxy::from_env(&Env::from_vars(vars)).expect("sound addresses")
    }

    #[test]
    fn the_variables_count_as_they_do_for_curl() {
        let place = |vars: &[(&str, &str)]| of_env(vars).map(|proxy| proxy.place());
        let [https, https_upper, all, all_upper] =
            PROXY_VARIABLES.map(|name| (name, format!("http://{name}.example:1")));
        let all_four = [&all_upper, &all, &https_upper, &https].map(|(name, value)| (*name, value.as_str()));
        assert_eq!(place(&all_four).as_deref(), Some("https_proxy.example:1"));
        assert_eq!(place(&all_four[..3]).as_deref(), Some("https_proxy.example:1"), "the one in capitals");
        assert_eq!(place(&all_four[..2]).as_deref(), Some("all_proxy.example:1"));
        assert_eq!(place(&all_four[..1]).as_deref(), Some("all_proxy.example:1"), "the one in capitals");
        assert_eq!(place(&[("HTTP_PROXY", "http://p.example:1")]), None, "it is for plain http");
        assert_eq!(place(&[("ALL_PROXY", "p.example:3128")]).as_deref(), Some("p.example:3128"));
        let url = Url::parse("https://example.com/").expect("a URL");
        let exempts = |vars: &[(&str, &str)]| {
            let proxy = [("ALL_PROXY", "http://p.example:1")];
            !of_env(&[&proxy[..], vars].concat()).expect("a proxy").carries(&url)
        };
        assert!(exempts(&[("no_proxy", "example.com"), ("NO_PROXY", "other.example")]));
        assert!(!exempts(&[("no_proxy", "other.example"), ("NO_PROXY", "example.com")]));
    }

    #[test]
    fn a_variable_that_is_not_utf_8_is_an_error_and_never_no_proxy() {
        for name in PROXY_VARIABLES.into_iter().chain(EXCEPT_VARIABLES) {
            let env = Env::from_vars([]).with_unreadable(name);
            assert_eq!(Proxy::from_env(&env).expect_err("no text"), format!("{name} is not UTF-8"));
        }
    }
}
