//! Which AWS role this workload has, and how to get its credentials.

use std::path::PathBuf;

use super::container::{self, Container};
use super::imds::Imds;
use super::{Credentials, SOURCE};
use crate::aws::{self, Variant};
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

/// The switches for other endpoints of AWS ("AWS SDKs and Tools reference guide", "Dual-stack and FIPS endpoints").
const FIPS: &str = "AWS_USE_FIPS_ENDPOINT";
pub(super) const DUAL_STACK: &str = "AWS_USE_DUALSTACK_ENDPOINT";

/// Variables of pods, tasks and functions. There the machine's role is the node's, which is broader than intended.
const IN_A_CONTAINER: [&str; 3] = ["KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4", FUNCTION];

/// Variables of tools that lend a person's role to what runs on the person's machine.
const OF_A_PERSON: [&str; 6] =
    ["AWS_SAM_LOCAL", "AWS_VAULT", "AWS_SSO_PROFILE", "AWSUME_PROFILE", "IS_OFFLINE", "LOCALSTACK_HOSTNAME"];

/// Variables of platforms that have a credentials endpoint on loopback: Lambda (SnapStart), Greengrass, SageMaker. Tools for
/// developers have one there too, so the address alone shows nothing.
const LOOPBACK_PLATFORMS: [&str; 5] = [
    FUNCTION,
    "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT",
    "SAGEMAKER_INTERNAL_IMAGE_URI",
    "SAGEMAKER_APP_TYPE",
    "TRAINING_JOB_NAME",
];

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
        let is_set = |name: &&str| env.get(name).is_some();
        let is_a_persons = OF_A_PERSON.iter().any(is_set) || env.get("AWS_EXECUTION_ENV") == Some("CloudShell");
        let names: &[&str] = match self {
            Self::ServiceAccount => &[TOKEN_FILE, ROLE],
            Self::Container if is_a_persons => &[],
            Self::Container if is_set(&container::RELATIVE) => &[container::RELATIVE, container::FULL],
            Self::Container if container::is_on_loopback(env) && !LOOPBACK_PLATFORMS.iter().any(is_set) => &[],
            Self::Container => &[container::FULL],
            Self::Function if !is_a_persons => &[FUNCTION],
            Self::Function | Self::Machine => &[],
        };
        let set: Vec<&str> = names.iter().copied().filter(is_set).collect();
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
        // No library uses a role's name without a token, and other platforms set it for their users.
        (None, Some(_)) => Err(Defect::new(format!("{TOKEN_FILE} is not set"), webhook).of_a_bystander()),
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

/// The endpoints that the environment asks for.
pub(super) fn switches(env: &Env) -> Result<Variant, Defect> {
    let is_on = |name: &'static str| match env.get(name).map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Defect::new(
            format!("{name} is neither true nor false"),
            format!("set it to one of them, or unset {name}"),
        )),
    };
    Ok(Variant { fips: is_on(FIPS)?, dual_stack: is_on(DUAL_STACK)? })
}
