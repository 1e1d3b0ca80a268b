//! `safeconduct config`: checks the file, prints a starter or the schema.

use serde_json::json;

use super::{Context, Failure, Printable, print, tell};
use crate::broker::ClientAuth;
use crate::cli::{ConfigVerb, Global};
use crate::config::{self, Config};
use crate::env::Env;

pub(super) fn run(context: &Context<'_>, verb: &ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Check { file, json } => {
            let config = file.clone().or_else(|| context.global.config.clone());
            check(&Context { global: &Global { config, ..context.global.clone() }, env: context.env }, *json)
        }
        ConfigVerb::Init => init(context),
        ConfigVerb::Schema => print(&Printable::own(format!("{:#}\n", config::schema()))),
    }
}

/// The starter goes to stdout; where it belongs is said beside it.
fn init(context: &Context<'_>) -> Result<(), Failure> {
    print(&Printable::own(config::starter()))?;
    let places: Vec<_> = Config::usual_places(context.env).map(|place| place.display().to_string()).collect();
    let note = format!(
        "safeconduct: hint: save it as {}, or anywhere and name it with `--config`; then `safeconduct config check FILE`\n",
        places.join(" or ")
    );
    tell(&Printable::text(&note, context.env));
    Ok(())
}

fn check(context: &Context<'_>, as_json: bool) -> Result<(), Failure> {
    let config = match context.config() {
        Ok(config) => config,
        Err(mut failure) if as_json => {
            let problems = context.problems();
            let problems = problems.iter().map(|one| json!({ "line": one.line, "key": one.key, "what": one.what }));
            let problems: Vec<_> = problems.collect();
            let answer =
                json!({ "ok": false, "class": "config", "error_description": failure.message, "problems": problems });
            failure.json = Some(answer.to_string().into());
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    };
    print(&if as_json {
        Printable::json(&format!("{}\n", as_data(&config, context.env)), context.env)
    } else {
        Printable::text(&as_text(&config, context.env), context.env)
    })
}

fn as_data(config: &Config, env: &Env) -> serde_json::Value {
    let warnings = config.doubts(env).into_iter().map(|doubt| json!({ "key": doubt.key, "what": doubt.what }));
    let servers = config.servers.iter().map(|server| {
        json!({
            "name": &*server.name, "url": server.url.as_str(), "issuer": server.order.issuer().map(ToString::to_string),
            "scopes": server.policy.ceiling.as_ref().map(ToString::to_string), "required": server.required,
            "outer": server.front_door.as_ref().map(|door| &door.header),
        })
    });
    json!({
        "ok": true, "file": config.file, "identity": config.identity_name(), "servers": servers.collect::<Vec<_>>(),
        "socket": config.listen.socket, "http": config.listen.http, "health": config.listen.health.first(), "unlisted": config.listen.unlisted,
        "insecure_loopback": config.egress.insecure_loopback, "warnings": warnings.collect::<Vec<_>>(),
    })
}

fn as_text(config: &Config, env: &Env) -> String {
    let file = config.file.as_ref().map_or_else(
        || {
            let places: Vec<_> = Config::usual_places(env).map(|place| place.display().to_string()).collect();
            format!("no file ({}): everything is detected and discovered", places.join(", "))
        },
        |file| format!("{}: fine", file.display()),
    );
    let mut text = format!("{file}\nidentity  {}\n", config.identity_name());
    for server in &config.servers {
        let issuer =
            server.order.issuer().map_or_else(|| "issuer discovered".to_owned(), |issuer| format!("issuer {issuer}"));
        let ceiling = server
            .policy
            .ceiling
            .as_ref()
            .map_or_else(|| "no scope ceiling".to_owned(), |ceiling| format!("at most {ceiling}"));
        text.push_str(&format!("server    {}  {}  ({issuer}; {ceiling})\n", server.name, server.url));
        if let Some(door) = &server.front_door {
            text.push_str(&format!("          behind a front door, whose credential goes into {}\n", door.header));
        }
    }
    for address in &config.listen.http {
        text.push_str(&format!("http      {address}  (the secret is written beside the socket)\n"));
    }
    for address in &config.listen.health {
        text.push_str(&format!("health    {address}  (names no server)\n"));
    }
    if config.listen.unlisted {
        text.push_str("unlisted  any https URL is served to the daemon's own user, discovered\n");
    }
    for doubt in config.doubts(env) {
        text.push_str(&format!("warning   {} {}\n", doubt.key, doubt.what));
    }
    if config.egress.insecure_loopback {
        text.push_str("warning   plain http and loopback addresses are allowed: for development only\n");
    }
    let orders = config.servers.iter().flat_map(|server| server.orders());
    for order in orders.filter(|order| order.client.auth == ClientAuth::Secret) {
        text.push_str(&format!(
            "warning   {}: its client proves itself with a shared secret, which can be stolen and does not end\n",
            order.name
        ));
    }
    for server in
        config.servers.iter().filter(|server| server.trust_discovered_issuer && server.order.issuer().is_none())
    {
        text.push_str(&format!(
            "warning   {}: tokens of whatever issuer it names are used, bound to it or not; better pin `issuer`\n",
            server.name
        ));
    }
    text
}
