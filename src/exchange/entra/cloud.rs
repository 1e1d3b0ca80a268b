//! The clouds of Microsoft: whose hosts are asked, who signs, and for whom a federated token is made.

/// The clouds of Microsoft, each with hosts and a directory of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// The public one.
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

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, cloud)| *cloud)
    }

    /// Where its directories are asked.
    pub(super) fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGovernment => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// Under which issuers its directories sign, for either version of their tokens.
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

    /// The audience of a federated token.
    pub(crate) fn audience(self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::UsGovernment => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }
}
