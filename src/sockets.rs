//! Default paths of the socket. The daemon binds one of them, and its clients look for it there.
//!
//! Clients start helpers with almost no environment, so the directories are compiled in. A CI job is the exception: its
//! sockets lie in a directory of the job's own, so that the next job on the machine does not find them. It is in the temporary
//! directory that the runner makes for the job. Where the runner makes none, its name has the job's id. Each `ci` step of a job
//! has a daemon in a numbered directory within it; clients look at the newest first.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::env::Env;

/// The socket's file name in its directory.
pub(crate) const NAME: &str = "safeconduct.sock";

/// Directories that the administrator makes: for the system unit, and for a sidecar in a pod.
const OF_THE_SYSTEM: [&str; 2] = ["/run/safeconduct", "/run/safeconduct/agent"];

/// Variables that name the temporary directory of one CI job. Where the next build finds the same directory again, with the
/// variable that tells them apart.
const JOB_TEMP: [(&str, Option<&str>); 3] =
    [("RUNNER_TEMP", None), ("AGENT_TEMPDIRECTORY", None), ("WORKSPACE_TMP", Some("BUILD_NUMBER"))];

/// Variables that hold the id of one CI job, of runners that make no temporary directory for it.
const JOB_ID: [&str; 4] = ["CI_JOB_ID", "CIRCLE_WORKFLOW_JOB_ID", "BUILDKITE_JOB_ID", "BITBUCKET_STEP_UUID"];

/// No id is longer. The path of a socket may have 103 bytes.
const LONGEST_ID: usize = 48;

/// The most steps of one job whose daemons are looked for.
const MOST_STEPS: usize = 32;

/// A path of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) path: PathBuf,
    /// Is it that of one step of a job, beside which there can be others?
    pub(crate) of_step: bool,
}

/// The variables that say where the daemon of a CI job is.
pub(crate) fn job_variables() -> impl Iterator<Item = &'static str> {
    JOB_TEMP.iter().flat_map(|(name, build)| [*name].into_iter().chain(*build)).chain(JOB_ID)
}

/// The paths at which a daemon tries to bind, in this order. It takes the first whose directory it can make.
pub(crate) fn to_bind(env: &Env) -> Vec<PathBuf> {
    let directories = match in_runners_temp(env) {
        // The second is for another user's `ci`; a daemon takes the usual one or none.
        Some([job, _]) => vec![job],
        None => Some(by_id(env)).filter(|job| !job.is_empty()).unwrap_or_else(|| of_the_user(env).into()),
    };
    directories.into_iter().map(|directory| directory.join(NAME)).collect()
}

/// The paths at which a client looks for a daemon, in this order.
pub(crate) fn to_look(env: &Env) -> Vec<Candidate> {
    let mut found = Vec::new();
    for job in job_directories(env) {
        let steps = steps(&job).into_iter().map(|number| job.join(number.to_string()));
        found.extend(steps.map(|step| Candidate { path: step.join(NAME), of_step: true }));
        // A daemon of the whole job, beside those of its steps.
        found.push(Candidate { path: job.join(NAME), of_step: true });
    }
    let [runtime, temporary] = of_the_user(env);
    let usual = std::iter::once(runtime).chain(OF_THE_SYSTEM.map(PathBuf::from)).chain([temporary]);
    found.extend(usual.map(|directory| Candidate { path: directory.join(NAME), of_step: false }));
    found
}

/// Where the directory of this CI job may be, the best place first. Empty if this process runs in none.
pub(crate) fn job_directories(env: &Env) -> Vec<PathBuf> {
    in_runners_temp(env).map_or_else(|| by_id(env), Vec::from)
}

/// The directory in the one that the runner makes for the job. Where that belongs to another user of the job, our own.
fn in_runners_temp(env: &Env) -> Option<[PathBuf; 2]> {
    let (temp, build) = JOB_TEMP.iter().find_map(|(name, build)| Some((absolute(env, name)?, *build)))?;
    let name = match build.and_then(|build| env.get(build)).map(plain).filter(|number| !number.is_empty()) {
        Some(number) => format!("safeconduct-{number}"),
        None => "safeconduct".to_owned(),
    };
    let own = format!("{name}-uid-{}", env.uid());
    Some([temp.join(name), temp.join(own)])
}

fn absolute(env: &Env, name: &str) -> Option<PathBuf> {
    env.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The directories whose name has the id of the job.
fn by_id(env: &Env) -> Vec<PathBuf> {
    let id = JOB_ID.iter().find_map(|name| env.get(name).map(plain).filter(|id| !id.is_empty()));
    let Some(id) = id else { return Vec::new() };
    let name = format!("{}{id}", of_jobs(env.uid()));
    let mut below: Vec<PathBuf> = absolute(env, "TMPDIR").into_iter().chain([PathBuf::from("/tmp")]).collect();
    below.dedup();
    below.into_iter().map(|temporary| temporary.join(&name)).collect()
}

/// What the names of such directories begin with.
fn of_jobs(uid: u32) -> String {
    format!("safeconduct-{uid}-job-")
}

/// Is this a directory of a job of this user, by its name and its owner?
pub(crate) fn is_of_a_job(entry: &DirEntry, uid: u32) -> bool {
    entry.file_name().to_str().is_some_and(|name| name.starts_with(&of_jobs(uid)))
        && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == uid)
}

/// Our directory of the job that this path is in.
pub(crate) fn job_of(path: &Path, env: &Env) -> Option<PathBuf> {
    job_directories(env).into_iter().find(|job| path.starts_with(job))
}

/// The numbers of the steps that have a directory in that of the job, the newest first.
pub(crate) fn steps(job: &Path) -> Vec<u32> {
    let number = |name: &OsStr| name.to_str()?.parse().ok();
    let entries = fs::read_dir(job).into_iter().flatten().flatten();
    let mut steps: Vec<u32> = entries.filter_map(|entry| number(&entry.file_name())).collect();
    steps.sort_unstable();
    steps.reverse();
    steps.truncate(MOST_STEPS);
    steps
}

/// An id as part of a file name: some are written in braces.
fn plain(id: &str) -> String {
    id.chars().filter(|one| one.is_ascii_alphanumeric() || *one == '-').take(LONGEST_ID).collect()
}

/// Where a private directory may be made, the best place first.
pub(crate) fn for_private_directories(env: &Env) -> Vec<PathBuf> {
    let job = JOB_TEMP.iter().find_map(|(name, _)| env.get(name)).map(PathBuf::from);
    let of_user = PathBuf::from(format!("/run/user/{}", env.uid()));
    let temporary = env.get("TMPDIR").map(PathBuf::from);
    let all = job.into_iter().chain([of_user]).chain(temporary).chain(["/tmp".into()]);
    all.filter(|place| place.is_absolute()).collect()
}

/// The directories of this user, the better one first.
fn of_the_user(env: &Env) -> [PathBuf; 2] {
    let uid = env.uid();
    [format!("/run/user/{uid}/safeconduct"), format!("/tmp/safeconduct-{uid}")].map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn looked(env: &Env) -> Vec<PathBuf> {
        to_look(env).into_iter().map(|one| one.path).collect()
    }

    #[test]
    fn a_job_has_a_place_of_its_own_and_makes_no_other() {
        let env = env(&[("RUNNER_TEMP", "/runner/_temp"), ("CI_JOB_ID", "7")]);
        assert_eq!(to_bind(&env), [PathBuf::from("/runner/_temp/safeconduct/safeconduct.sock")]);
        assert_eq!(looked(&env)[0], PathBuf::from("/runner/_temp/safeconduct/safeconduct.sock"));
    }

    #[test]
    fn a_runner_without_a_directory_for_the_job_has_the_jobs_id_in_the_name() {
        let uid = env(&[]).uid();
        for (variable, value, id) in [
            ("CI_JOB_ID", "4711", "4711"),
            ("CIRCLE_WORKFLOW_JOB_ID", "0b1d-2e", "0b1d-2e"),
            ("BUILDKITE_JOB_ID", "a/../../b", "ab"),
            ("BITBUCKET_STEP_UUID", "{c3d4}", "c3d4"),
        ] {
            let name = format!("safeconduct-{uid}-job-{id}/safeconduct.sock");
            assert_eq!(to_bind(&env(&[(variable, value)])), [Path::new("/tmp").join(&name)], "{variable}");
            let elsewhere = env(&[(variable, value), ("TMPDIR", "/scratch")]);
            assert_eq!(to_bind(&elsewhere), [Path::new("/scratch").join(&name), Path::new("/tmp").join(&name)]);
            assert!(to_bind(&elsewhere).iter().all(|bound| looked(&elsewhere).contains(bound)));
        }
        assert!(job_directories(&env(&[("CI_JOB_ID", "{}")])).is_empty(), "that is no id");
    }

    #[test]
    fn the_next_build_in_the_same_directory_has_another_place() {
        let build = |number| job_directories(&env(&[("WORKSPACE_TMP", "/w@tmp"), ("BUILD_NUMBER", number)]));
        assert_eq!(build("7")[0], PathBuf::from("/w@tmp/safeconduct-7"));
        assert_ne!(build("7"), build("8"));
        assert!(job_directories(&env(&[("RUNNER_TEMP", "relative")])).is_empty());
    }

    #[test]
    fn the_daemon_of_the_newest_step_is_looked_for_first() {
        let temp = tempfile::tempdir().expect("a directory");
        let job = temp.path().join("safeconduct");
        for name in ["2", "10", "1", "x", "-1"] {
            fs::create_dir_all(job.join(name)).expect("made");
        }
        let env = env(&[("RUNNER_TEMP", temp.path().to_str().expect("UTF-8"))]);
        let looked = to_look(&env);
        let in_job: Vec<_> = looked.iter().filter(|one| one.of_step).map(|one| one.path.clone()).collect();
        let expected = ["10/safeconduct.sock", "2/safeconduct.sock", "1/safeconduct.sock", NAME];
        assert_eq!(in_job[..4], expected.map(|name| job.join(name)));
        assert_eq!(in_job.len(), 5, "the last is our own in a job with two users");
    }

    #[test]
    fn without_any_environment_the_places_are_compiled_in_and_a_daemon_is_found_where_it_binds() {
        let env = env(&[]);
        let looked = looked(&env);
        assert_eq!(looked.len(), 4);
        assert!(to_bind(&env).iter().all(|bound| looked.contains(bound)));
    }
}
