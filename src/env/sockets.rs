//! Default paths of the socket. The daemon binds one of them, and its clients look for it there.
//!
//! Clients start helpers with almost no environment, so the directories are compiled in. A CI job is the exception: its
//! socket lies in the job's own temporary directory, so that the next job does not find it.

use std::path::PathBuf;

use super::Env;

/// The socket's file name in its directory.
const NAME: &str = "safeconduct.sock";

/// Directories that the administrator makes: for the system unit, and for a sidecar in a pod.
const OF_THE_SYSTEM: [&str; 2] = ["/run/safeconduct", "/run/safeconduct/agent"];

/// Variables that name the temporary directory of one CI job, which the runner removes with the job.
const JOB_TEMP: [&str; 2] = ["RUNNER_TEMP", "AGENT_TEMPDIRECTORY"];

/// The paths at which a daemon tries to bind, in this order. It takes the first whose directory it can make.
pub(crate) fn to_bind(env: &Env) -> Vec<PathBuf> {
    let directories = match job_directory(env) {
        Some(job) => vec![job],
        None => of_the_user(env).into(),
    };
    directories.into_iter().map(|directory| directory.join(NAME)).collect()
}

/// The paths at which a client looks for a daemon, in this order.
pub(crate) fn to_look(env: &Env) -> Vec<PathBuf> {
    let [runtime, temporary] = of_the_user(env);
    let usual = std::iter::once(runtime).chain(OF_THE_SYSTEM.map(PathBuf::from)).chain([temporary]);
    job_directory(env).into_iter().chain(usual).map(|directory| directory.join(NAME)).collect()
}

/// Our directory inside the temporary directory of a CI job, if this process runs in one.
pub(crate) fn job_directory(env: &Env) -> Option<PathBuf> {
    let temp = JOB_TEMP.iter().find_map(|name| env.get(name)).map(PathBuf::from);
    temp.filter(|temp| temp.is_absolute()).map(|temp| temp.join("safeconduct"))
}

/// Where a private directory may be made, the best place first.
pub(crate) fn for_private_directories(env: &Env) -> Vec<PathBuf> {
    let job = JOB_TEMP.iter().find_map(|name| env.get(name)).map(PathBuf::from);
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

    #[test]
    fn a_job_has_a_place_of_its_own_and_makes_no_other() {
        let env = env(&[("RUNNER_TEMP", "/runner/_temp")]);
        assert_eq!(to_bind(&env), [PathBuf::from("/runner/_temp/safeconduct/safeconduct.sock")]);
        assert_eq!(to_look(&env)[0], PathBuf::from("/runner/_temp/safeconduct/safeconduct.sock"));
    }

    #[test]
    fn without_any_environment_the_places_are_compiled_in_and_a_daemon_is_found_where_it_binds() {
        let env = env(&[]);
        let looked = to_look(&env);
        assert_eq!(looked.len(), 4);
        assert!(to_bind(&env).iter().all(|bound| looked.contains(bound)));
    }
}
