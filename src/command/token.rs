//! `safeconduct token`: prints an access token.

use super::obtain::{self, Purpose, Wanted};
use super::output::{tell, tell_runner};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::{Token, TokenForm};
use crate::runner::{self, Masks};

pub(super) fn run(context: &Context<'_>, verb: &Token) -> Result<(), Failure> {
    let wanted = Wanted::parse(&verb.target)?;
    if verb.output == TokenForm::Env && wanted.name.is_none() {
        return Err(Failure::asked("`-o env` needs a name for its variable").hint("give the target as NAME=URL"));
    }
    let masks = if verb.no_mask { Masks::None } else { masks(context) };
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
    // The runner reads commands from stderr too, and stdout must hold only the token.
    tell_runner(&masks.lines(&handed.raw()))?;
    if verb.output == TokenForm::Env && !handed.is_b64token() {
        return Err(Failure::new(Class::Refused, "the token has characters that a shell could read as its own").hint(
            "print it with another `-o`; the authorization server should issue b64tokens (RFC 6750 section 2.1)",
        ));
    }
    print(&text)
}

/// How the runner here hides the token, if it is told so by a line of output. Each renewed token is another text.
fn masks(context: &Context<'_>) -> Masks {
    match runner::here(context.env) {
        Ok(found) => found.map_or(Masks::None, |found| found.masks),
        Err(ambiguous) => {
            // In the log of another runner the command would show the token.
            let note = format!("safeconduct: warning: {ambiguous}; the token is not masked\n");
            tell(&Printable::text(&note, context.env));
            Masks::None
        }
    }
}
