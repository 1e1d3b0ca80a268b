//! `azure-workload-identity`: a pod of AKS, or of any cluster with Azure's workload identity webhook.
//!
//! Detected by `AZURE_FEDERATED_TOKEN_FILE`, which the webhook sets in a pod with the label
//! `azure.workload.identity/use: "true"` whose service account has the annotation `azure.workload.identity/client-id`. The
//! file is a projected service-account token that the kubelet renews; it is read again at each exchange. No configuration is
//! needed here.
//!
//! Its audience is fixed: `api://AzureADTokenExchange`, unless the webhook is configured with another. So only Microsoft Entra
//! accepts it: with `exchange = "entra"`, or as client assertion (`client_auth = "workload"`). Configure `client_id` and the
//! tenant at the server, with the values of `AZURE_CLIENT_ID` and `AZURE_TENANT_ID`. They are not read from the environment,
//! so that one place states the purpose of a token. For an authorization server that itself trusts the cluster's issuer,
//! project a separate token (`source = "kubernetes"`).
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

/// The webhook's variables. The first names the token; the others name the application in Entra.
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const CLIENT: &str = "AZURE_CLIENT_ID";
const TENANT: &str = "AZURE_TENANT_ID";
/// An identity binding of AKS has the variables of the webhook and this one. Its token has another audience, which only the
/// cluster's own proxy takes.
const TOKEN_PROXY: &str = "AZURE_KUBERNETES_TOKEN_PROXY";

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
    // If a variable is missing, the webhook did not set them, or the service account lacks its annotation.
    get(CLIENT)?;
    get(TENANT)?;
    if ambient.env.get(TOKEN_PROXY).is_some() {
        return Err(Defect::new(
            format!("this is an AKS identity binding ({TOKEN_PROXY}): its token is for the proxy of the cluster alone"),
            "give the service account a federated credential of its own and no identity binding; or project a token for the \
                authorization server: `source = \"kubernetes\"`",
        ));
    }
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
