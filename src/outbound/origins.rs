//! The origins that the configuration names for one server.

use url::{Origin, Url};

use super::NamedBy;

/// What the configuration names for one server: its own URL, its authorization server, its token endpoint. These origins may
/// have private addresses, but only for requests on behalf of that server. Another server, which may be hostile, could
/// otherwise name them in its metadata and have us send requests to any path there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(Vec<Origin>);

impl Origins {
    /// The origins of these URLs. A text that is no URL names nothing.
    pub(crate) fn of<'a>(urls: impl IntoIterator<Item = &'a str>) -> Self {
        let origins = urls.into_iter().filter_map(|url| Url::parse(url).ok()).map(|url| url.origin());
        Self(origins.filter(Origin::is_tuple).collect())
    }

    /// The same, and that of one more URL.
    pub(crate) fn and(mut self, url: &str) -> Self {
        self.0.append(&mut Self::of([url]).0);
        self
    }

    /// Who named the host of this URL?
    pub(crate) fn who_named(&self, url: &str) -> NamedBy {
        let is_ours = Url::parse(url).is_ok_and(|url| self.0.contains(&url.origin()));
        if is_ours { NamedBy::Us } else { NamedBy::Them }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_named_by_scheme_host_and_port() {
        let origins =
            Origins::of(["https://as.corp/tenant", "https://mcp.corp:8443/mcp", "no URL"]).and("http://[::1]:1");
        for ours in ["https://as.corp/", "https://AS.corp:443/a/b?c", "https://mcp.corp:8443/", "http://[::1]:1/x"] {
            assert_eq!(origins.who_named(ours), NamedBy::Us, "{ours}");
        }
        for theirs in [
            "http://as.corp/tenant",
            "https://as.corp:8443/tenant",
            "https://mcp.corp/mcp",
            "https://b.as.corp/",
            "https://as.corp./tenant",
            "no URL",
            "data:x",
        ] {
            assert_eq!(origins.who_named(theirs), NamedBy::Them, "{theirs}");
        }
    }
}
