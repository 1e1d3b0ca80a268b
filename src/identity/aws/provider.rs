//! Which AWS role this workload has, and how to get its credentials.

use std::path::PathBuf;

use super::container::{self, Container};
use super::imds::Imds;
use super::{Credentials, SOURCE};
use crate::aws;
use crate::env::Env;
use crate::identity::file::File;
use crate::identity::{Ambient, Defect, Error};
use crate::token::{SubjectToken, expose};

pub(super) const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
pub(super) const ROLE: &str = "AWS_ROLE_ARN";
pub(super) const SESSION: &str = "AWS_ROLE_SESSION_NAME";
const FUNCTION: &str = "AWS_LAMBDA_FUNCTION_NAME";
pub(super) const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
pub(super) const KEY: &str = "AWS_SECRET_ACCESS_KEY";
pub(super) const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

/// Variables of pods, tasks and functions. There the machine's role is the node's, which is broader than intended.
const IN_A_CONTAINER: [&str; 3] = ["KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4", FUNCTION];

/// The holder of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleHolder {
    ServiceAccount,
    Container,
    Function,
    Machine,
}

impl RoleHolder {
    /// In order of precedence.
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("web-identity", Self::ServiceAccount),
        ("container", Self::Container),
        ("lambda", Self::Function),
        ("ec2", Self::Machine),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, one)| *one)
    }

    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }

    /// The names of the variables that show this holder.
    pub(super) fn evidence(self, env: &Env) -> Option<String> {
        let names: &[&str] = match self {
            Self::ServiceAccount => &[TOKEN_FILE, ROLE],
            Self::Container if env.get("AWS_EXECUTION_ENV") == Some("CloudShell") => &[],
            Self::Container => &[container::RELATIVE, container::FULL],
            Self::Function => &[FUNCTION],
            Self::Machine => &[],
        };
        let set: Vec<&str> = names.iter().copied().filter(|name| env.get(name).is_some()).collect();
        (!set.is_empty()).then(|| set.join(", "))
    }
}

/// Where the role's credentials come from.
pub(super) enum Provider {
    ServiceAccount { file: File, role_arn: String, session: Option<String> },
    Container(Container),
    Function(Ambient),
    Machine(Imds),
}

/// Resolves `source = "aws"`: the holder that the variables show, else EC2 unless in a container.
pub(super) fn named(env: &Env) -> Result<RoleHolder, Defect> {
    if let Some((_, holder)) = RoleHolder::ALL.iter().find(|(_, holder)| holder.evidence(env).is_some()) {
        return Ok(*holder);
    }
    match IN_A_CONTAINER.iter().find(|name| env.get(name).is_some()) {
        None => Ok(RoleHolder::Machine),
        Some(name) => Err(Defect::new(
            format!("this workload has no role of its own ({name} is set, and no variable of a role)"),
            "give it one (EKS: annotate the service account, or make a Pod Identity association; ECS: a task role); the \
                node's role, which all its workloads share, only with `credentials = \"ec2\"`",
        )),
    }
}

pub(super) fn service_account(ambient: &Ambient) -> Result<Provider, Defect> {
    let env = &ambient.env;
    let webhook =
        "the webhook of EKS sets both for an annotated service account: see why it did not, or take the other out";
    match (env.get(TOKEN_FILE), env.get(ROLE)) {
        (Some(path), Some(role)) => Ok(Provider::ServiceAccount {
            file: File::new(&SOURCE, PathBuf::from(path), ambient),
            role_arn: role.to_owned(),
            session: env.get(SESSION).map(str::to_owned),
        }),
        (Some(_), None) => Err(Defect::new(format!("{ROLE} is not set"), webhook)),
        (None, Some(_)) => Err(Defect::new(format!("{TOKEN_FILE} is not set"), webhook)),
        (None, None) => Err(Defect::new(format!("neither {TOKEN_FILE} nor {ROLE} is set"), webhook)),
    }
}

/// Checks that the service account's token is only for STS. It is sent there, so STS must not be able to use it elsewhere.
pub(super) fn is_for_sts(token: &SubjectToken) -> Result<(), Error> {
    match token.claims.aud.as_slice() {
        [only] if aws::is_audience(only) => Ok(()),
        _ => Err(Error::Misconfigured {
            what: format!("aws: the token in {TOKEN_FILE} is not made for {} alone", aws::AUDIENCE),
            hint: "mount the projected `serviceAccountToken` that the webhook of EKS adds, with that audience"
                .to_owned(),
        }),
    }
}

/// The credentials of a Lambda function, from its three variables.
pub(super) fn function_keys(env: &Env) -> Result<Credentials, Defect> {
    let lambda = "the Lambda runtime sets it in every function: do not take it out of the environment";
    let wanted = |name: &str| env.secret(name).ok_or_else(|| Defect::new(format!("{name} is not set"), lambda));
    env.get(FUNCTION).ok_or_else(|| Defect::new(format!("{FUNCTION} is not set"), "this is no Lambda function"))?;
    let (id, key, token) = (wanted(KEY_ID)?, wanted(KEY)?, wanted(SESSION_TOKEN)?);
    let token = Some(expose(&token).to_owned());
    Ok(Credentials::new(expose(&id), expose(&key), token, None, RoleHolder::Function.as_str()))
}
