//! `azure-workload-identity`: a pod of AKS, or of any cluster with Azure's workload identity webhook.
//!
//! Detected by `AZURE_FEDERATED_TOKEN_FILE`, which the webhook sets in a pod with the label
//! `azure.workload.identity/use: "true"` whose service account has the annotation `azure.workload.identity/client-id`. The
//! file is a projected service-account token that the kubelet keeps fresh; it is read again at each exchange. Nothing has
//! to be configured here.
//!
//! Its audience is fixed, `api://AzureADTokenExchange` unless the webhook was told another, so it is good for Microsoft
//! Entra alone: with `exchange = "entra"`, or as the assertion of a client (`client_auth = "workload"`, with
//! `client_id` and the tenant as the webhook has them in `AZURE_CLIENT_ID` and `AZURE_TENANT_ID`). They are configured at
//! the server and not taken from the environment, so that what a token is for is written down in one place. For an
//! authorization server that trusts the cluster's issuer itself, project a token of its own (`source = "kubernetes"`).
//!
//! Source: Azure Workload Identity, "Mutating admission webhook"; Microsoft, "Use Microsoft Entra Workload ID with AKS".

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kubernetes::{self, Projected};
use super::{Ambient, Built, Defect, Descriptor, Finding, Tier};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "azure-workload-identity",
    tier: Tier::Pod,
    about: "a pod of AKS with Microsoft Entra Workload ID",
    evidence: "`AZURE_FEDERATED_TOKEN_FILE`, `AZURE_CLIENT_ID` and `AZURE_TENANT_ID`",
    token: "the webhook's audience (`api://AzureADTokenExchange`), read again at each exchange",
    settings: &[],
    variables: &[TOKEN_FILE, CLIENT, TENANT],
    trust: &kubernetes::TRUST,
    detect,
    from_config: |_, ambient| from_env(ambient),
    probe: None,
};

/// What the webhook says to the pod. The first alone is the identity; the others say what it is at Entra.
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const CLIENT: &str = "AZURE_CLIENT_ID";
const TENANT: &str = "AZURE_TENANT_ID";

const WEBHOOK: &str = "the webhook sets it in a pod that has the label `azure.workload.identity/use: \"true\"` and a service \
    account with the annotation `azure.workload.identity/client-id`: start the pod anew after a change";

fn detect(ambient: &Ambient) -> Finding {
    if ambient.env.get(TOKEN_FILE).is_none() {
        return Finding::Absent { looked_for: TOKEN_FILE };
    }
    Finding::of(TOKEN_FILE, &[CLIENT, TENANT], from_env(ambient))
}

fn from_env(ambient: &Ambient) -> Built {
    let get = |name| ambient.env.get(name).ok_or_else(|| Defect::new(format!("{name} is not set"), WEBHOOK));
    let path = PathBuf::from(get(TOKEN_FILE)?);
    // Half of what the webhook sets is not its work, or the service account lacks its annotation.
    get(CLIENT)?;
    get(TENANT)?;
    if !path.is_absolute() {
        return Err(Defect::new(format!("{TOKEN_FILE} is no absolute path"), WEBHOOK));
    }
    there(&path, ambient)?;
    Ok(Arc::new(Projected::new(&SOURCE, path, ambient)))
}

fn there(path: &Path, ambient: &Ambient) -> Result<(), Defect> {
    let Err(error) = ambient.env.metadata(path) else { return Ok(()) };
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => format!("let uid {} read it (`fsGroup` of the pod)", ambient.env.uid()),
        _ => format!("the kubelet writes it when the pod starts; {WEBHOOK}"),
    };
    Err(Defect::new(format!("{} cannot be read: {error}", path.display()), cure))
}
