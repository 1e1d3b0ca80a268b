//! The platforms: what of their tokens a policy pins, and which of their tokens a stranger can obtain. One row each; the
//! table in README.md says the same.

use serde_json::Value;

use super::{Claims, at};

/// One platform.
pub(super) struct Platform {
    /// As the table of sources calls it.
    pub(super) name: &'static str,
    /// Beside issuer, audience and subject.
    pub(super) pins: &'static [Pin],
    /// The part of `sub` that is the same in every run; `None` where it is not in the platform's form.
    pub(super) steady: for<'a> fn(&'a str) -> Option<&'a str>,
    /// Why a stranger could have this token.
    pub(super) stranger: fn(&Claims) -> Option<String>,
    /// Which identity to use instead.
    pub(super) instead: &'static str,
    /// What the operator should know.
    pub(super) warnings: &'static [fn(&Claims) -> Option<String>],
}

/// One claim to pin.
pub(super) struct Pin {
    pub(super) path: &'static [&'static str],
    /// Without it there is no policy; else it is pinned where it is there.
    pub(super) needed: bool,
    pub(super) why: &'static str,
}

const fn needs(path: &'static [&'static str], why: &'static str) -> Pin {
    Pin { path, needed: true, why }
}

const fn if_there(path: &'static [&'static str], why: &'static str) -> Pin {
    Pin { path, needed: false, why }
}

/// A platform whose `sub` says everything, and of which nothing else is known.
const PLAIN: Platform = Platform {
    name: "other",
    pins: &[],
    steady: |sub| Some(sub),
    stranger: |_| None,
    instead: "",
    warnings: &[|_| {
        Some("the platform is not one that is known: read in its documentation who can obtain this `sub`".to_owned())
    }],
};

const PLATFORMS: &[Platform] = &[
    Platform {
        name: "github-actions",
        pins: &[
            needs(&["repository_owner_id"], "the issuer is shared by everybody: the organisation, by its number"),
            needs(&["repository_id"], "the repository, by its number: names can be taken over after a rename"),
        ],
        stranger: |claims| {
            let event = text(claims, "event_name");
            let from_pull = event.starts_with("pull_request") || text(claims, "sub").ends_with(":pull_request");
            from_pull.then(|| "a pull request, which anybody can open, runs with it".to_owned())
        },
        instead: "run it on a branch or tag that only maintainers can push to, better in an `environment` with reviewers",
        warnings: &[
            |claims| {
                let open = at(claims, &["environment"]).is_none() && !text(claims, "ref").is_empty();
                open.then(|| {
                    "whoever can push to this ref is let in; an `environment` with reviewers is narrower".to_owned()
                })
            },
            |claims| {
                (!text(claims, "sub").contains('@')).then(|| {
                    "`sub` is made of names; immutable subjects (`repo:OWNER@ID/REPO@ID:…`) survive a rename and cannot \
                     be taken over"
                        .to_owned()
                })
            },
        ],
        ..PLAIN
    },
    Platform {
        name: "gitlab-ci",
        pins: &[
            needs(&["namespace_id"], "an instance is shared by its groups: the group, by its number"),
            needs(&["project_id"], "the project, by its number: paths can be taken over"),
            if_there(&["ref_protected"], "whether the branch or tag is one that only maintainers can push to"),
        ],
        stranger: |claims| {
            let source = text(claims, "pipeline_source");
            let outside = ["merge_request_event", "external_pull_request_event"].contains(&source);
            outside.then(|| "the pipeline of a merge request, which may come from a fork, runs with it".to_owned())
        },
        instead: "run it in the pipeline of a protected branch or tag",
        warnings: &[|claims| {
            (text(claims, "ref_protected") == "false")
                .then(|| "the ref is not protected: every developer of the project is let in".to_owned())
        }],
        ..PLAIN
    },
    Platform {
        name: "circleci",
        pins: &[
            needs(&["oidc.circleci.com/project-id"], "the project, by its number"),
            if_there(&["oidc.circleci.com/vcs-origin"], "where the code comes from: not a fork's repository"),
            if_there(&["oidc.circleci.com/ssh-rerun"], "no job that somebody logged in to"),
        ],
        // org/ORG/project/PROJECT/user/USER[/vcs-origin/…/vcs-ref/…]: who started it changes.
        steady: |sub| up_to(sub, "/user/").filter(|steady| steady.starts_with("org/")),
        stranger: |claims| {
            let rerun = at(claims, &["oidc.circleci.com/ssh-rerun"]).is_some_and(|value| *value == Value::Bool(true));
            rerun.then(|| "the job was started again with SSH: somebody may be logged in to it".to_owned())
        },
        instead: "start the job without SSH",
        warnings: &[],
    },
    Platform {
        name: "buildkite",
        pins: &[
            needs(&["organization_slug"], "the issuer is shared by everybody: the organisation"),
            needs(&["pipeline_slug"], "the pipeline"),
            if_there(&["organization_id"], "the organisation, by its number"),
            if_there(&["pipeline_id"], "the pipeline, by its number"),
            needs(&["build_branch"], "the branch"),
        ],
        // organization:O:pipeline:P:ref:R:commit:C:step:S: the commit changes.
        steady: |sub| up_to(sub, ":commit:").filter(|steady| steady.starts_with("organization:")),
        warnings: &[|_| {
            Some(
                "builds of pull requests from forks must be off, or a fork's branch of the same name is let in"
                    .to_owned(),
            )
        }],
        ..PLAIN
    },
    Platform {
        name: "bitbucket",
        pins: &[
            needs(&["workspaceUuid"], "the workspace, by its number"),
            needs(&["repositoryUuid"], "the repository, by its number"),
            if_there(&["branchName"], "the branch"),
            if_there(&["deploymentEnvironmentUuid"], "the deployment environment, by its number"),
        ],
        // {repository}[:{environment}]:{step}: the step changes.
        steady: |sub| sub.rfind(':').map(|end| &sub[..=end]),
        warnings: &[],
        ..PLAIN
    },
    Platform {
        name: "hcp-terraform",
        pins: &[
            needs(&["terraform_organization_id"], "the issuer is shared by everybody: the organisation, by its number"),
            needs(&["terraform_workspace_id"], "the workspace, by its number"),
            needs(&["terraform_run_phase"], "plan runs code that nobody has approved yet"),
        ],
        warnings: &[|claims| {
            (text(claims, "terraform_run_phase") == "plan")
                .then(|| "this is the plan phase: whoever can propose a change is let in".to_owned())
        }],
        ..PLAIN
    },
    Platform {
        name: "kubernetes",
        pins: &[if_there(&["kubernetes.io", "namespace"], "the namespace, whatever `sub` is mapped to")],
        steady: |sub| sub.starts_with("system:serviceaccount:").then_some(sub),
        warnings: &[|_| Some("whoever may create pods in this namespace can be this service account".to_owned())],
        ..PLAIN
    },
    Platform { name: "spiffe", steady: |sub| sub.starts_with("spiffe://").then_some(sub), warnings: &[], ..PLAIN },
    Platform {
        name: "aws",
        pins: &[
            needs(&["https://sts.amazonaws.com/", "aws_account"], "the account, by its number"),
            if_there(&["https://sts.amazonaws.com/", "org_id"], "the organisation of accounts"),
        ],
        steady: |sub| sub.starts_with("arn:").then_some(sub),
        warnings: &[|_| Some("whoever can assume this role is let in".to_owned())],
        ..PLAIN
    },
    Platform {
        name: "gcp",
        pins: &[if_there(&["email"], "the account's name, for people: the number in `sub` is what counts")],
        warnings: &[|_| Some("whoever can act as this service account is let in".to_owned())],
        ..PLAIN
    },
    Platform {
        name: "azure",
        pins: &[
            needs(&["tid"], "the directory, by its number"),
            needs(&["oid"], "the identity, by its number"),
            if_there(&["idtyp"], "an application, not a person"),
        ],
        warnings: &[],
        ..PLAIN
    },
    Platform {
        name: "azure-pipelines",
        steady: |sub| Some(sub),
        warnings: &[|_| Some("whoever can use this service connection is let in".to_owned())],
        ..PLAIN
    },
    Platform {
        name: "fly",
        pins: &[
            if_there(&["org_id"], "the organisation, by its number"),
            if_there(&["app_id"], "the app, by its number"),
            needs(&["app_name"], "the app"),
        ],
        // org:app:machine: machines come and go.
        steady: |sub| sub.rfind(':').map(|end| &sub[..=end]),
        warnings: &[],
        ..PLAIN
    },
    Platform {
        name: "vercel",
        pins: &[
            needs(&["owner_id"], "the team, by its number"),
            needs(&["project_id"], "the project, by its number"),
            needs(&["environment"], "previews run code that was only pushed"),
        ],
        stranger: |claims| {
            let environment = text(claims, "environment");
            (environment == "preview")
                .then(|| "a preview deployment, which a pull request may start, runs with it".to_owned())
        },
        instead: "use the identity of the production environment",
        warnings: &[],
        ..PLAIN
    },
];

/// The issuers that everybody shares, whoever fetched the token.
const ISSUERS: &[(&str, &str)] = &[
    ("https://token.actions.githubusercontent.com", "github-actions"),
    ("https://agent.buildkite.com", "buildkite"),
    ("https://oidc.circleci.com", "circleci"),
    ("https://gitlab.com", "gitlab-ci"),
    ("https://app.terraform.io", "hcp-terraform"),
    ("https://accounts.google.com", "gcp"),
    ("https://oidc.fly.io", "fly"),
    ("https://oidc.vercel.com", "vercel"),
    ("https://vstoken.dev.azure.com", "azure-pipelines"),
];

/// The platform: by its issuer where that is known everywhere, else by who fetched the token.
pub(super) fn of(source: &str, issuer: &str) -> &'static Platform {
    let is = |base: &str| issuer.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let by_issuer = ISSUERS.iter().find(|(base, _)| is(base)).map(|(_, name)| *name);
    let aws = issuer.ends_with(".tokens.sts.global.api.aws").then_some("aws");
    let source = if source == "azure-workload-identity" { "kubernetes" } else { source };
    let name = by_issuer.or(aws).unwrap_or(source);
    PLATFORMS.iter().find(|platform| platform.name == name).unwrap_or(&PLAIN)
}

fn text<'a>(claims: &'a Claims, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn up_to<'a>(sub: &'a str, mark: &str) -> Option<&'a str> {
    sub.find(mark).map(|at| &sub[..at + mark.len()])
}
