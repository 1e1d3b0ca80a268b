//! Where the socket is: the default place of a daemon, and the places where a helper looks.
//!
//! Clients start helpers with almost no environment, so the places are compiled in. A CI job is another matter:
//! there the socket lies in the job's own temporary directory, where the next job never finds it.

use std::path::PathBuf;

use crate::env::Env;

/// The socket's name in its directory.
const NAME: &str = "safeconduct.sock";

/// Variables that name the temporary directory of one CI job, which the runner removes with the job.
const JOB_TEMP: [&str; 2] = ["RUNNER_TEMP", "AGENT_TEMPDIRECTORY"];

/// A place of a socket, and whether the operator named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The socket.
    pub path: PathBuf,
    /// Flag or variable: trusted as it is. A compiled-in place is trusted only if its daemon is ours or root's.
    pub named: bool,
}

/// Where a helper looks, in this order. A named place is the only one.
pub(crate) fn to_look(flag: Option<&PathBuf>, env: &Env) -> Vec<Place> {
    let named = flag.cloned().or_else(|| env.get("SAFECONDUCT_SOCKET").map(PathBuf::from));
    if let Some(path) = named {
        return vec![Place { path, named: true }];
    }
    let uid = env.uid();
    let usual = [
        PathBuf::from(format!("/run/user/{uid}/safeconduct")),
        PathBuf::from("/run/safeconduct"),
        PathBuf::from("/run/safeconduct/agent"),
        PathBuf::from(format!("/tmp/safeconduct-{uid}")),
    ];
    let places = job_directory(env).into_iter().chain(usual);
    places.map(|directory| Place { path: directory.join(NAME), named: false }).collect()
}

/// Where a daemon makes its directory, in this order; the first that can be made is taken.
pub(crate) fn to_make(env: &Env) -> Vec<PathBuf> {
    if let Some(job) = job_directory(env) {
        return vec![job.join(NAME)];
    }
    let uid = env.uid();
    [format!("/run/user/{uid}/safeconduct"), format!("/tmp/safeconduct-{uid}")]
        .map(|directory| PathBuf::from(directory).join(NAME))
        .into()
}

/// The directory that ends with the CI job, if this is one.
pub(crate) fn job_directory(env: &Env) -> Option<PathBuf> {
    JOB_TEMP
        .iter()
        .find_map(|name| env.get(name))
        .map(PathBuf::from)
        .filter(|temp| temp.is_absolute())
        .map(|temp| temp.join("safeconduct"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_flag_beats_the_variable_and_both_are_final() {
        let env = env(&[("SAFECONDUCT_SOCKET", "/variable"), ("RUNNER_TEMP", "/runner")]);
        let places = to_look(Some(&PathBuf::from("/flag")), &env);
        assert_eq!(places, [Place { path: "/flag".into(), named: true }]);
        assert_eq!(to_look(None, &env), [Place { path: "/variable".into(), named: true }]);
    }

    #[test]
    fn a_job_has_a_place_of_its_own_and_makes_no_other() {
        let env = env(&[("RUNNER_TEMP", "/runner/_temp")]);
        assert_eq!(to_make(&env), [PathBuf::from("/runner/_temp/safeconduct/safeconduct.sock")]);
        assert_eq!(to_look(None, &env)[0].path, PathBuf::from("/runner/_temp/safeconduct/safeconduct.sock"));
    }

    #[test]
    fn without_any_environment_the_places_are_compiled_in() {
        let places = to_look(None, &env(&[]));
        assert_eq!(places.len(), 4);
        assert!(places.iter().all(|place| !place.named && place.path.ends_with("safeconduct.sock")));
    }
}
