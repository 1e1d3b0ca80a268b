use std::time::SystemTime;

use super::*;
use crate::outbound;

fn ambient(vars: &[(&str, &str)]) -> Ambient {
    Ambient {
        env: Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))),
        outbound: Outbound::new(outbound::Config::default()),
        clock: Clock::virtual_at(SystemTime::UNIX_EPOCH),
    }
}

fn detected(vars: &[(&str, &str)]) -> Result<&'static str, Error> {
    choose(&Choice::Detect, &ambient(vars)).map(|chosen| chosen.source.name())
}

const JOB: (&str, &str) = ("GITHUB_ACTIONS", "true");
const URL: (&str, &str) = ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://pipelines.example/token?api-version=2.0");
const TOKEN: (&str, &str) = ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token");

#[tokio::test(start_paused = true)]
async fn a_job_with_the_permission_is_found() {
    assert_eq!(detected(&[JOB, URL, TOKEN]), Ok("github-actions"));
}

#[tokio::test(start_paused = true)]
async fn a_job_without_the_permission_stops_with_the_cure() {
    for vars in [&[JOB][..], &[JOB, URL], &[JOB, TOKEN], &[JOB, URL, ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")]] {
        let error = detected(vars).expect_err("not permitted");
        assert!(matches!(error, Error::Misconfigured { .. }));
        assert!(error.hint().expect("a cure").contains("id-token: write"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn anything_but_true_is_no_job() {
    for value in ["false", "1", "TRUE"] {
        let error = detected(&[("GITHUB_ACTIONS", value), URL, TOKEN]).expect_err("no job");
        assert!(error.to_string().contains("no workload identity here"), "{error}");
        assert!(error.hint().expect("a cure").contains("--identity-file"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_source_is_final_even_when_another_is_here() {
    let choice = Choice::Named { source: "file".to_owned(), settings: toml::Table::new() };
    let error = choose(&choice, &ambient(&[JOB, URL, TOKEN])).map(|_| ()).expect_err("no token_file");
    assert!(error.to_string().contains("token_file"), "{error}");
    let choice = Choice::Named { source: "gitlab".to_owned(), settings: toml::Table::new() };
    let error = choose(&choice, &ambient(&[])).map(|_| ()).expect_err("unknown");
    assert!(error.hint().expect("a cure").contains("github-actions"));
}

struct Fixed(&'static str);

#[async_trait]
impl IdentitySource for Fixed {
    async fn subject_token(&self, _: &Audience) -> Result<SubjectToken, Error> {
        Err(Error::nothing_here(&[]))
    }

    fn name(&self) -> &'static str {
        self.0
    }

    fn mints_anew(&self) -> bool {
        false
    }
}

fn usable(name: &'static str, tier: Tier) -> Found {
    let row = Box::leak(Box::new(Descriptor { name, tier, ..github_actions::SOURCE }));
    Found { row, finding: Finding::Usable { evidence: "a test".to_owned(), source: Arc::new(Fixed(name)) } }
}

#[test]
fn two_usable_sources_in_one_tier_are_an_error_that_names_both() {
    let error = decide(&[usable("one", Tier::CiJob), usable("two", Tier::CiJob)]).map(|_| ()).expect_err("ambiguous");
    assert!(error.to_string().contains("one, two"), "{error}");
    assert!(error.hint().expect("a cure").contains("--identity one"));
}

#[test]
fn the_narrower_tier_wins() {
    let chosen =
        decide(&[usable("wide", Tier::CiJob), usable("narrow", Tier::Named)]).map(|chosen| chosen.source.name());
    assert_eq!(chosen, Ok("narrow"));
}

#[test]
fn an_unusable_source_stops_even_beside_a_usable_one() {
    let row = Box::leak(Box::new(Descriptor { name: "broken", ..github_actions::SOURCE }));
    let broken = Found {
        row,
        finding: Finding::Unusable { evidence: "A".to_owned(), why: "B".to_owned(), cure: "C".to_owned() },
    };
    let error = decide(&[usable("fine", Tier::CiJob), broken]).map(|_| ()).expect_err("a hard stop");
    assert_eq!(error.hint(), Some("C"));
}
