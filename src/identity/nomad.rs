//! `nomad`: the workload identity of a Nomad task.
//!
//! The task asks for an identity made for the authorization server, and Nomad keeps it fresh:
//!
//! ```hcl
//! identity {
//!   name = "mcp"
//!   aud  = ["https://login.example.com/tenant1"]   # the authorization server's issuer, exactly
//!   file = true                                    # secrets/nomad_mcp.jwt, renewed at two thirds of its `ttl`
//!   ttl  = "1h"
//! }
//! ```
//!
//! ```toml
//! [identity]
//! source        = "nomad"
//! identity_name = "mcp"
//! ```
//!
//! With `env = true` the token is in `NOMAD_TOKEN_mcp` instead, as it was when the task started; where both are, the file
//! counts. A task may have several identities and nothing says which is meant, so none is detected. The default one, in
//! `NOMAD_TOKEN`, is made for Nomad's own API and is never sent out.
//!
//! Source: Nomad documentation, "identity block in the job specification".

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::env_var::{Variable, variable_name};
use super::file::File;
use super::{Ambient, Descriptor, Error, Finding, IdentitySource, Kind, Setting, Tier};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "nomad",
    tier: Tier::Pod,
    about: "a Nomad task with an `identity` block",
    settings: &[
        Setting::required("identity_name", Kind::Text, "Name of the task's `identity` block.").checked(block_name)
    ],
    detect: |_| Finding::Absent { looked_for: "`source = \"nomad\"` with the `identity_name` of a block of the task" },
    from_config,
    probe: None,
};

/// Where Nomad puts a task's secrets.
const DIRECTORY: &str = "NOMAD_SECRETS_DIR";
const CURE: &str = "the task's `identity` block must have the authorization server's issuer as its only `aud`";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    identity_name: String,
}

fn from_config(table: &toml::Table, ambient: &Ambient) -> Result<Arc<dyn IdentitySource>, Error> {
    let misconfigured = |what: String, hint: String| Error::Misconfigured { what: format!("nomad: {what}"), hint };
    let config: Config = table.clone().try_into().map_err(|error: toml::de::Error| {
        misconfigured(error.message().to_owned(), "name the block: `identity_name = \"…\"` in [identity]".to_owned())
    })?;
    let name = config.identity_name;
    block_name(&name).map_err(|what| {
        misconfigured(format!("`identity_name` {what}"), "give the name of the task's `identity` block".to_owned())
    })?;
    if let Some(path) = file(&name, ambient) {
        return Ok(Arc::new(File::new(SOURCE.name, path, ambient)));
    }
    let variable = format!("NOMAD_TOKEN_{name}");
    match Variable::find(SOURCE.name, &variable, CURE, ambient) {
        Some(variable) => Ok(variable),
        None => Err(misconfigured(
            format!("there is neither secrets/nomad_{name}.jwt nor {variable}"),
            format!("give the task `identity {{ name = \"{name}\", aud = […], file = true }}`"),
        )),
    }
}

/// The identity's file, if the task has one.
fn file(name: &str, ambient: &Ambient) -> Option<PathBuf> {
    let path = PathBuf::from(ambient.env.get(DIRECTORY)?).join(format!("nomad_{name}.jwt"));
    match ambient.env.metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // There, if perhaps not for us: reading it says why.
        _ => Some(path),
    }
}

/// The name becomes part of a path and of a variable's name. `default` is the identity for Nomad itself.
fn block_name(text: &str) -> Result<(), String> {
    if text == "default" {
        return Err("is that of the identity for Nomad's own API, which is never sent out".to_owned());
    }
    variable_name(&text.replace('-', "_")).map_err(|_| "is no name of an `identity` block".to_owned())
}
