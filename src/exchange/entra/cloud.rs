//! Microsoft's clouds: their hosts, issuers and audiences.

/// A Microsoft cloud. Each has its own hosts and directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// The public cloud.
    #[default]
    Public,
    /// Azure Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
}

impl Cloud {
    /// As written in `cloud = "…"`.
    pub const ALL: [(&str, Self); 3] =
        [("public", Self::Public), ("us-government", Self::UsGovernment), ("china", Self::China)];

    /// Finds the cloud with this name in the configuration.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, cloud)| *cloud)
    }

    /// The base URL of its token endpoints.
    pub(super) fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGovernment => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// The base URLs of its issuers, for tokens of version 1 and 2.
    pub(super) fn issuers(self) -> &'static [&'static str] {
        match self {
            Self::Public => &["https://sts.windows.net", "https://login.microsoftonline.com"],
            Self::UsGovernment => &["https://sts.windows.net", "https://login.microsoftonline.us"],
            Self::China => &[
                "https://sts.chinacloudapi.cn",
                "https://login.chinacloudapi.cn",
                "https://login.partner.microsoftonline.cn",
            ],
        }
    }

    /// Is this an issuer of any of the clouds?
    pub(crate) fn is_issuer(issuer: &str) -> bool {
        let of_base =
            |base: &&str| issuer.strip_prefix(*base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        Self::ALL.iter().any(|(_, cloud)| cloud.issuers().iter().any(of_base))
    }

    /// The audience of a subject token for a federated credential.
    pub(crate) fn audience(self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::UsGovernment => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }
}
