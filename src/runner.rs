//! The runners of CI jobs: how each is recognised, how it hides a text in its log, and how a step hands something to later steps.
//!
//! [`here`] finds the row of the runner that this process is a step of, by the variables that this runner alone sets. Everything
//! else is pure: what is to be written comes out as text, and the caller writes it. One more runner is one more row of [`RUNNERS`].
//! Where the job's own directory is says `sockets`, because helpers must find it too.
//!
//! | runner | recognised by | masks | step outputs | summary |
//! |---|---|---|---|---|
//! | GitHub Actions | `GITHUB_ACTIONS=true` | `::add-mask::` | `GITHUB_OUTPUT` | `GITHUB_STEP_SUMMARY` |
//! | Forgejo, Gitea | also `FORGEJO_ACTIONS` or `GITEA_ACTIONS` | the same | the same | the same |
//! | Azure Pipelines | `TF_BUILD` | `task.setsecret` | `task.setvariable`, secret | `task.uploadsummary` |
//! | GitLab CI | `GITLAB_CI=true` | - | a file of ours: dotenv reports are stored artifacts | the log |
//! | CircleCI | `CIRCLECI=true` | - | `BASH_ENV` | the log |
//! | Buildkite | `BUILDKITE=true` | `buildkite-agent redactor add` | a file of ours: meta-data is stored with the build | the log |
//! | Bitbucket | `BITBUCKET_BUILD_NUMBER` | - | a file of ours: output variables are printed by later steps | the log |
//! | Jenkins | `JENKINS_URL` and `BUILD_NUMBER` | - | a file of ours: a step has no outputs | the log |
//!
//! No runner's own mark of a job's processes (`RUNNER_TRACKING_ID`, `VSTS_PROCESS_LOOKUP_ID`, `JENKINS_NODE_COOKIE`) is taken out of
//! the environment of the daemon in the background. GitHub's and Azure's runners look for it when the job is completed, after every
//! post step; Jenkins when the `node` block or the build ends. So the daemon lives as long as the job, and ends with it even if
//! nobody says `stop`.

use std::time::Duration;

use crate::env::Env;

mod masks;
mod outputs;
mod summary;

pub(crate) use masks::spellings;
pub(crate) use outputs::Output;
pub(crate) use summary::{Report, Served};

/// No job of these runners takes longer: so long a daemon lives whose end nobody tells.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A kind of runner.
#[derive(Debug)]
pub(crate) struct Runner {
    /// What people call it.
    pub(crate) name: &'static str,
    /// The variables that only this runner sets, with the value of those whose name alone says nothing. All of them are set.
    marks: &'static [(&'static str, Option<&'static str>)],
    /// How a text is hidden in the log.
    pub(crate) masks: Masks,
    /// Where step outputs go.
    pub(crate) outputs: Outputs,
    /// Where the summary for people goes, beside the log.
    pub(crate) summary: Summary,
    /// The variable with the longest time that this job may take, and its unit.
    timeout: Option<(&'static str, Duration)>,
    /// The variable with the path of something that the runner removes at the end of the job.
    pub(crate) lives_with: Option<&'static str>,
}

/// How a runner hides a text in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Masks {
    /// By a line of output, in which this runner decodes the escape of a percent sign.
    Command { before: &'static str, percent: &'static str },
    /// By a program that reads the text from its standard input.
    Program(&'static [&'static str]),
    /// Only what was configured before the job began is hidden.
    None,
}

/// How a step hands something to later steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outputs {
    /// Lines of the file that this variable names: `name<<DELIMITER`, the value, the delimiter.
    Heredoc(&'static str),
    /// Lines of the file that this variable names, which a shell reads.
    Shell(&'static str),
    /// Commands in the output of the step.
    Commands,
    /// A file of ours: the runner has no step outputs, or it stores or prints them.
    OwnFile,
}

/// Where a summary for people goes, beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    /// Markdown in the file that this variable names.
    File(&'static str),
    /// Markdown in a file of ours, whose path follows this command.
    Upload(&'static str),
    /// Nowhere else.
    Log,
}

const GITHUB_MASKS: Masks = Masks::Command { before: "::add-mask::", percent: "%25" };

/// All rows. Where one runner also sets the variables of another, it comes first.
const RUNNERS: &[Runner] = &[
    Runner { name: "Forgejo Actions", marks: &[("FORGEJO_ACTIONS", Some("true"))], ..LIKE_GITHUB },
    Runner { name: "Gitea Actions", marks: &[("GITEA_ACTIONS", Some("true"))], ..LIKE_GITHUB },
    LIKE_GITHUB,
    Runner {
        name: "Azure Pipelines",
        marks: &[("TF_BUILD", None)],
        masks: Masks::Command { before: "##vso[task.setsecret]", percent: "%AZP25" },
        outputs: Outputs::Commands,
        summary: Summary::Upload("##vso[task.uploadsummary]"),
        ..PLAIN
    },
    Runner {
        name: "GitLab CI",
        marks: &[("GITLAB_CI", Some("true"))],
        timeout: Some(("CI_JOB_TIMEOUT", Duration::from_secs(1))),
        ..PLAIN
    },
    Runner { name: "CircleCI", marks: &[("CIRCLECI", Some("true"))], outputs: Outputs::Shell("BASH_ENV"), ..PLAIN },
    Runner {
        name: "Buildkite",
        marks: &[("BUILDKITE", Some("true"))],
        masks: Masks::Program(&["buildkite-agent", "redactor", "add"]),
        timeout: Some(("BUILDKITE_TIMEOUT", Duration::from_secs(60))),
        lives_with: Some("BUILDKITE_AGENT_JOB_API_SOCKET"),
        ..PLAIN
    },
    Runner { name: "Bitbucket Pipelines", marks: &[("BITBUCKET_BUILD_NUMBER", None)], ..PLAIN },
    Runner { name: "Jenkins", marks: &[("JENKINS_URL", None), ("BUILD_NUMBER", None)], ..PLAIN },
];

const LIKE_GITHUB: Runner = Runner {
    name: "GitHub Actions",
    marks: &[("GITHUB_ACTIONS", Some("true"))],
    masks: GITHUB_MASKS,
    outputs: Outputs::Heredoc("GITHUB_OUTPUT"),
    summary: Summary::File("GITHUB_STEP_SUMMARY"),
    ..PLAIN
};

/// A runner that has nothing for a step but its log.
const PLAIN: Runner = Runner {
    name: "",
    marks: &[],
    masks: Masks::None,
    outputs: Outputs::OwnFile,
    summary: Summary::Log,
    timeout: None,
    lives_with: None,
};

/// Two runners could be meant. To write one's commands into the log of the other would show what is to be hidden.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variables of two CI runners are set: {one} and {other}")]
pub(crate) struct Ambiguous {
    one: &'static str,
    other: &'static str,
}

/// The runner that this process is a step of, if it is one that is known.
pub(crate) fn here(env: &Env) -> Result<Option<&'static Runner>, Ambiguous> {
    let mut found = RUNNERS.iter().filter(|row| row.is_here(env));
    let Some(one) = found.next() else { return Ok(None) };
    // Some runners take the variables and the commands of GitHub's over.
    match found.find(|other| other.outputs != one.outputs || other.masks != one.masks) {
        Some(other) => Err(Ambiguous { one: one.name, other: other.name }),
        None => Ok(Some(one)),
    }
}

/// Does a runner read the output of this process?
pub(crate) fn is_ci(env: &Env) -> bool {
    env.get("CI").is_some()
        || RUNNERS.iter().any(|row| row.marks.first().is_some_and(|(name, _)| env.get(name).is_some()))
}

impl Runner {
    fn is_here(&self, env: &Env) -> bool {
        let is_set = |(name, value): &(&str, Option<&str>)| match (env.get(name), value) {
            (Some(found), Some(value)) => found == *value,
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        };
        self.marks.iter().all(is_set)
    }

    /// The longest time that this job may take.
    pub(crate) fn longest(&self, env: &Env) -> Duration {
        let said = self.timeout.and_then(|(name, unit)| unit.checked_mul(env.get(name)?.parse().ok()?));
        said.filter(|said| !said.is_zero()).map_or(A_DAY, |said| said.min(A_DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn name(vars: &[(&str, &str)]) -> Result<Option<&'static str>, Ambiguous> {
        here(&env(vars)).map(|found| found.map(|runner| runner.name))
    }

    #[test]
    fn a_runner_is_known_by_its_own_variables_alone() {
        assert_eq!(name(&[("CI", "true")]), Ok(None), "many set that, people too");
        assert_eq!(name(&[("GITHUB_ACTIONS", "false")]), Ok(None));
        assert_eq!(name(&[("BUILD_NUMBER", "7")]), Ok(None), "any build script may set that");
        assert_eq!(name(&[("GITHUB_ACTIONS", "true")]), Ok(Some("GitHub Actions")));
        assert_eq!(name(&[("GITHUB_ACTIONS", "true"), ("GITEA_ACTIONS", "true")]), Ok(Some("Gitea Actions")));
        assert_eq!(name(&[("JENKINS_URL", "https://ci.example/"), ("BUILD_NUMBER", "7")]), Ok(Some("Jenkins")));
    }

    #[test]
    fn two_runners_at_once_are_none() {
        let both = name(&[("GITHUB_ACTIONS", "true"), ("TF_BUILD", "True")]);
        assert_eq!(both, Err(Ambiguous { one: "GitHub Actions", other: "Azure Pipelines" }));
        let nested = name(&[("GITLAB_CI", "true"), ("CIRCLECI", "true")]);
        assert!(nested.is_err(), "one has no outputs that the other writes");
    }

    #[test]
    fn a_daemon_lives_no_longer_than_its_job_may() {
        let longest = |vars: &[(&str, &str)]| {
            let row = here(&env(vars)).ok().flatten().expect("a runner");
            row.longest(&env(vars)).as_secs()
        };
        assert_eq!(longest(&[("GITLAB_CI", "true"), ("CI_JOB_TIMEOUT", "3600")]), 3_600);
        assert_eq!(longest(&[("BUILDKITE", "true"), ("BUILDKITE_TIMEOUT", "30")]), 1_800);
        for none in ["false", "0", "-1", "99999999999999999999"] {
            assert_eq!(longest(&[("BUILDKITE", "true"), ("BUILDKITE_TIMEOUT", none)]), A_DAY.as_secs(), "{none}");
        }
        assert_eq!(longest(&[("GITLAB_CI", "true"), ("CI_JOB_TIMEOUT", "4000000000")]), A_DAY.as_secs());
    }
}
