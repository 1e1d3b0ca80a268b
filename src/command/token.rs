//! `safeconduct token`: prints an access token.

use super::obtain::{self, Purpose, Wanted};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::{Token, TokenForm};

pub(super) fn run(context: &Context<'_>, verb: &Token) -> Result<(), Failure> {
    let wanted = Wanted::parse(&verb.target)?;
    if verb.output == TokenForm::Env && wanted.name.is_none() {
        return Err(Failure::asked("`-o env` needs a name for its variable").hint("give the target as NAME=URL"));
    }
    let mask = if verb.mask { Some(masking(context)?) } else { None };
    let handed = obtain::token(context, &wanted, &verb.wishes, Purpose::Token)?;
    // Before the mask, which is a line for the runner too.
    let text = match verb.output {
        TokenForm::Raw => Printable::credential(handed.raw(), context.env),
        TokenForm::Header => Printable::credential(handed.header(), context.env),
        TokenForm::Json => Printable::json_credential(&handed.json(), context.env),
        TokenForm::Env => {
            Printable::credential(handed.variable(wanted.name.as_deref().unwrap_or_default()), context.env)
        }
    };
    let text = text?.then(&Printable::own("\n"));
    if let Some((before, percent)) = mask {
        // The runner reads commands from stderr too, and stdout must hold only the token.
        use std::io::Write;
        // Runners percent-decode commands, so escape `%` to mask the exact token.
        let escaped = zeroize::Zeroizing::new(handed.raw().replace('%', percent));
        let line = zeroize::Zeroizing::new(format!("{before}{}\n", escaped.as_str()));
        std::io::stderr()
            .write_all(line.as_bytes())
            .map_err(|error| Failure::bug(format!("the runner cannot be told: {error}")))?;
    }
    if verb.output == TokenForm::Env && !handed.is_b64token() {
        return Err(Failure::new(Class::Refused, "the token has characters that a shell could read as its own").hint(
            "print it with another `-o`; the authorization server should issue b64tokens (RFC 6750 section 2.1)",
        ));
    }
    print(&text)
}

/// The runner's command to mask a text, and its escape for a percent sign.
fn masking(context: &Context<'_>) -> Result<(&'static str, &'static str), Failure> {
    match (context.env.get("GITHUB_ACTIONS"), context.env.get("TF_BUILD")) {
        (Some("true"), _) => Ok(("::add-mask::", "%25")),
        (_, Some(_)) => Ok(("##vso[task.setsecret]", "%AZP25")),
        _ => Err(Failure::asked("`--mask` knows no runner here")
            .hint("it works in GitHub Actions (Forgejo, Gitea) and Azure Pipelines")),
    }
}
