//! The flags of `safeconduct stdio`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::bridge::{self, Protocol};

#[derive(Args, Debug)]
pub(crate) struct Stdio {
    /// As for `token`
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Add this field to each request, nothing secret; can be given several times
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub headers: Vec<String>,
    /// The longest message, in bytes or with KiB or MiB
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64MiB")]
    pub max_message: usize,
    /// `auto`: translate for a client of MCP until 2025-11-25 if the server speaks 2026-07-28 alone; `pass`: translate nothing
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub protocol: Protocol,
    /// Pin the authorization server
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// Do the work in this process, whether or not a daemon runs
    #[arg(long, conflicts_with = "daemon_only")]
    pub no_daemon: bool,
    /// Ask the daemon or fail
    #[arg(long)]
    pub daemon_only: bool,
}

impl Stdio {
    /// What it is without flags.
    pub(super) fn usual(target: String) -> Self {
        let (headers, issuer) = Default::default();
        let (max_message, protocol) = (bridge::LONGEST, Protocol::Auto);
        Self { target, headers, max_message, protocol, issuer, no_daemon: false, daemon_only: false }
    }
}

impl ValueEnum for Protocol {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Pass]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Auto => "auto",
            Self::Pass => "pass",
        }))
    }
}

/// `64MiB`, `512KiB` or a bare number of bytes. Less than 4 KiB would be too little for `initialize`, and more than 1 GiB more than
/// any client reads.
fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => Some(1),
        "KiB" => Some(1024),
        "MiB" => Some(1024 * 1024),
        _ => None,
    };
    let size = factor.zip(number.parse::<usize>().ok()).and_then(|(factor, number)| number.checked_mul(factor));
    size.filter(|size| (4 * 1024..=1024 * 1024 * 1024).contains(size))
        .ok_or_else(|| "a size is a number of bytes or one with KiB or MiB, from 4KiB to 1024MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_with_its_unit_and_has_bounds() {
        assert_eq!(size("64MiB"), Ok(bridge::LONGEST));
        assert_eq!((size("4KiB"), size("4096"), size("1024MiB")), (Ok(4096), Ok(4096), Ok(1 << 30)));
        for bad in
            ["", "MiB", "4095", "1025MiB", "64MB", "64 MiB", "-1", "99999999999999999999MiB", "18446744073709551615KiB"]
        {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
