//! `nomad`: the workload identity of a Nomad task.
//!
//! The task's spec requests an identity for the authorization server, and Nomad renews it:
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
//! With `env = true` the token is in `NOMAD_TOKEN_mcp` and stays as it was when the task started. If both are set, the file is
//! used. A task may have several identities, so none is detected; configure its name. The default identity, in `NOMAD_TOKEN`,
//! is for Nomad's own API and is never sent out.
//!
//! Source: Nomad documentation, "identity block in the job specification".

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::env_var::{Variable, variable_name};
use super::file::File;
use super::{Ambient, Built, Defect, Descriptor, Finding, Given, Kind, Setting, Tier};
use crate::platform::Platform;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "nomad",
    tier: Tier::Pod,
    about: "a Nomad task with an `identity` block",
    evidence: "configuration: `identity_name`",
    token: "fixed audience, read again at each exchange (`file = true`)",
    settings: &[IDENTITY_NAME],
    variables: &["NOMAD_TOKEN", "NOMAD_TOKEN_*", DIRECTORY],
    trust: &Platform::PLAIN,
    detect: |_| Finding::Absent { looked_for: "`source = \"nomad\"` with the `identity_name` of a block of the task" },
    from_config,
    probe: None,
};

const IDENTITY_NAME: Setting =
    Setting::required("identity_name", Kind::Text, "Name of the task's `identity` block.").checked(block_name);

/// The variable with the directory of a task's secrets.
const DIRECTORY: &str = "NOMAD_SECRETS_DIR";
const CURE: &str = "the task's `identity` block must have the authorization server's issuer as its only `aud`";

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    let name = given.required(&IDENTITY_NAME)?;
    if let Some(path) = file(name, ambient) {
        return Ok(Arc::new(File::new(&SOURCE, path, ambient)));
    }
    let variable = format!("NOMAD_TOKEN_{name}");
    match Variable::find(&SOURCE, &variable, CURE, ambient) {
        Some(variable) => Ok(variable),
        None => Err(Defect::new(
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
        // The file exists. If we cannot read it, the read reports why.
        _ => Some(path),
    }
}

/// Checks the identity's name, which becomes part of a path and of a variable's name. `default` is the identity for Nomad
/// itself.
fn block_name(text: &str) -> Result<(), String> {
    if text == "default" {
        return Err("is that of the identity for Nomad's own API, which is never sent out".to_owned());
    }
    variable_name(&text.replace('-', "_")).map_err(|_| "is no name of an `identity` block".to_owned())
}
