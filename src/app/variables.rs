//! Which variables would let a program obtain the identity by itself: those that `exec` takes out of its command's environment.

use crate::clock::Clock;
use crate::config::Config;
use crate::env::{self, Env};
use crate::identity::{self, Ambient, Choice, Finding, SOURCES, Tier};
use crate::outbound::Outbound;

/// The sources whose variables stay.
pub(crate) struct KeepIdentity {
    all: bool,
    sources: Vec<&'static str>,
}

impl KeepIdentity {
    /// From the names of sources; an empty one stands for all. Fails with the names that are known.
    pub(crate) fn parse(names: &[String]) -> Result<Self, Vec<&'static str>> {
        let known = || SOURCES.iter().map(|row| row.name);
        let named = names.iter().filter(|name| !name.is_empty());
        let sources: Option<Vec<_>> = named.map(|name| known().find(|row| row == name)).collect();
        let all = names.iter().any(String::is_empty);
        Ok(Self { all, sources: sources.ok_or_else(|| known().collect::<Vec<_>>())? })
    }

    fn keeps(&self, source: &str) -> bool {
        self.all || self.sources.contains(&source)
    }
}

/// The variables of the identity sources that are usable here, of those that the configuration names, and the secrets that it names.
///
/// A CI system's variables are its own, so they count without a look at whether the source is usable: a program could set what is
/// missing. Variables that tools on any machine use (`AWS_*`, `GOOGLE_*`, `AZURE_*`) count where their source is.
pub(crate) fn of_identities(config: &Config, env: &Env, kept: &KeepIdentity) -> Vec<String> {
    let clock = Clock::system();
    let outbound = Outbound::until(config.egress.clone(), clock.clone(), None);
    let choices = || config.identities.values().map(|identity| &identity.choice);
    let found = identity::survey(&Ambient { env: env.clone(), outbound, clock });
    let is_here = |found: &identity::Found| {
        let is_found = !matches!(found.finding, Finding::Absent { .. });
        is_found || found.row.tier == Tier::CiJob || choices().any(|choice| choice.source() == Some(found.row.name))
    };
    let rows = found.iter().filter(|found| is_here(found) && !kept.keeps(found.row.name)).map(|found| found.row);
    let patterns: Vec<&str> = rows.flat_map(|row| row.variables).copied().collect();
    let kept_tokens: Vec<&str> = choices()
        .filter(|choice| choice.source().is_some_and(|source| kept.keeps(source)))
        .flat_map(Choice::token_variables)
        .collect();
    let mut secrets = config.secret_variables();
    secrets.retain(|name| !kept_tokens.contains(&name.as_str()));
    let is_taken = |name: &&str| {
        patterns.iter().any(|pattern| env::matches(pattern, name)) || secrets.iter().any(|secret| secret == name)
    };
    env.names().filter(is_taken).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(toml: &str, vars: &[(&str, &str)], keep: &[&str]) -> Vec<String> {
        let env = Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::from_toml(toml, &env).expect("a good configuration");
        let keep: Vec<String> = keep.iter().map(|name| (*name).to_owned()).collect();
        of_identities(&config, &env, &KeepIdentity::parse(&keep).expect("known names"))
    }

    /// The variables that each row lists: with what a platform sets beside them, and for a CI system also without.
    #[test]
    fn every_variable_of_every_row_is_taken_out_where_its_source_is() {
        for row in SOURCES {
            let names: Vec<String> = row.variables.iter().map(|name| name.replace('*', "X")).collect();
            let vars: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
            let named = format!("[identity]\nsource = \"{}\"", row.name);
            let env = Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            let config = match Config::from_toml(&named, &env) {
                Ok(config) => config,
                // It needs keys of its own; the choice is what counts.
                Err(_) => {
                    let mut config = Config::empty();
                    drop(config.use_identity(row.name));
                    config
                }
            };
            let keep = KeepIdentity::parse(&[]).expect("no name");
            let mut taken = of_identities(&config, &env, &keep);
            let mut wanted = names.clone();
            taken.sort();
            wanted.sort();
            assert_eq!(taken, wanted, "{}", row.name);
            let keep = KeepIdentity::parse(&[row.name.to_owned()]).expect("a known name");
            let kept = of_identities(&config, &env, &keep);
            let of_others = |name: &String| {
                SOURCES
                    .iter()
                    .filter(|other| other.name != row.name && other.tier == Tier::CiJob)
                    .any(|other| other.variables.iter().any(|pattern| env::matches(pattern, name)))
            };
            assert!(kept.iter().all(of_others), "{}: {kept:?}", row.name);
            if row.tier == Tier::CiJob {
                let taken = of_identities(&Config::empty(), &env, &KeepIdentity::parse(&[]).expect("no name"));
                assert_eq!(taken.len(), names.len(), "{}", row.name);
            }
        }
    }

    #[test]
    fn what_only_says_where_it_runs_stays_and_so_does_what_another_tool_uses() {
        let stays = [("GITHUB_ACTIONS", "true"), ("CI", "true"), ("AWS_ACCESS_KEY_ID", "x"), ("AZURE_CLIENT_ID", "x")];
        assert_eq!(taken("", &stays, &[]), [""; 0]);
        let github = [("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x"), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "x")];
        assert_eq!(taken("", &[&stays[..], &github].concat(), &[]).len(), 2);
        assert_eq!(taken("", &github, &[""]), [""; 0], "all are kept");
        assert_eq!(taken("", &github, &["github-actions"]), [""; 0]);
        assert_eq!(taken("", &github, &["gitlab-ci"]).len(), 2, "another source is kept");
    }

    #[test]
    fn secrets_that_the_configuration_names_are_taken_out() {
        let toml = "[identity]\nsource = \"env\"\ntoken_env = \"MY_JWT\"\n[servers.a]\nurl = \"https://a.example.com/mcp\"\n\
            issuer = \"https://as.example.com\"\nexchange = \"client-credentials\"\nclient_auth = \"secret\"\nclient_id = \"c\"\n\
            client_secret_env = \"MY_SECRET\"\n";
        let vars = [("MY_JWT", "x"), ("MY_SECRET", "x"), ("OTHER", "x")];
        assert_eq!(taken(toml, &vars, &[]), ["MY_JWT", "MY_SECRET"]);
        assert_eq!(taken(toml, &vars, &["env"]), ["MY_SECRET"], "a client's secret is no identity");
        assert!(KeepIdentity::parse(&["nobody".to_owned()]).is_err_and(|known| known.len() == SOURCES.len()));
    }
}
