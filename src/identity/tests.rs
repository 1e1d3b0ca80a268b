//! Tests that cannot be files of `tests/sources/`: the decision rule, files that change, links.

mod table;

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

const JOB: (&str, &str) = ("GITHUB_ACTIONS", "true");
const URL: (&str, &str) = ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://pipelines.example/token?api-version=2.0");
const TOKEN: (&str, &str) = ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token");

#[tokio::test(start_paused = true)]
async fn a_named_source_is_final_even_when_another_is_here() {
    let choice = Choice::Named { source: "file".to_owned(), settings: toml::Table::new() };
    let error = choose(&choice, &ambient(&[JOB, URL, TOKEN])).map(|_| ()).expect_err("no token_file");
    assert!(error.to_string().contains("token_file"), "{error}");
    let choice = Choice::Named { source: "gitlab".to_owned(), settings: toml::Table::new() };
    let error = choose(&choice, &ambient(&[])).map(|_| ()).expect_err("unknown");
    assert!(error.hint().expect("a cure").contains("github-actions"));
}

struct Fixed(&'static Descriptor);

#[async_trait]
impl IdentitySource for Fixed {
    async fn subject_token(&self, _: &Audience) -> Result<SubjectToken, Error> {
        Err(Error::nothing_here(0))
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(self.0)
    }

    fn mints_anew(&self) -> bool {
        false
    }
}

fn usable(name: &'static str, tier: Tier) -> Found {
    let row: &Descriptor = Box::leak(Box::new(Descriptor { name, tier, ..github_actions::SOURCE }));
    Found { row, finding: Finding::Usable { evidence: "a test".to_owned(), source: Arc::new(Fixed(row)) } }
}

#[test]
fn two_usable_sources_in_one_tier_are_an_error_that_names_both() {
    let error = decide(&[usable("one", Tier::CiJob), usable("two", Tier::CiJob)], Look::Here)
        .map(|_| ())
        .expect_err("ambiguous");
    assert!(error.to_string().contains("one, two"), "{error}");
    assert!(error.hint().expect("a cure").contains("--identity one"));
}

#[test]
fn the_narrower_tier_wins() {
    let chosen = decide(&[usable("wide", Tier::CiJob), usable("narrow", Tier::Named)], Look::Here)
        .map(|chosen| chosen.source.name());
    assert_eq!(chosen, Ok("narrow"));
}

#[test]
fn an_unusable_source_stops_even_beside_a_usable_one() {
    let row = Box::leak(Box::new(Descriptor { name: "broken", ..github_actions::SOURCE }));
    let broken = Found { row, finding: Finding::Unusable { evidence: "A".to_owned(), defect: Defect::new("B", "C") } };
    let error = decide(&[usable("fine", Tier::CiJob), broken], Look::Here).map(|_| ()).expect_err("a hard stop");
    assert_eq!(error.hint(), Some("C; or choose fine, which is here too: `--identity fine`"));
}

#[tokio::test(start_paused = true)]
async fn a_build_of_vercel_is_found_and_a_ci_job_around_it_wins() {
    let build = [("VERCEL", "1"), ("VERCEL_ENV", "preview"), ("VERCEL_OIDC_TOKEN", JWT)];
    let chosen = choose(&Choice::Detect, &ambient(&build)).expect("a build");
    assert_eq!((chosen.source.name(), chosen.evidence.as_str()), ("vercel", "VERCEL=1, VERCEL_OIDC_TOKEN"));
    let in_a_job = [&build[..], &[JOB, URL, TOKEN]].concat();
    assert_eq!(choose(&Choice::Detect, &ambient(&in_a_job)).expect("a job").source.name(), "github-actions");
}

/// A text with the form of a JWT.
const JWT: &str = "e30.e30.c2ln";

#[tokio::test(start_paused = true)]
async fn a_token_given_in_the_place_of_a_variables_name_is_not_shown() {
    for source in ["env", "gitlab-ci", "circleci"] {
        let settings = format!("token_env = '{JWT}'").parse().expect("a table");
        let choice = Choice::Named { source: source.to_owned(), settings };
        let error = choose(&choice, &ambient(&[])).map(|_| ()).expect_err("a token");
        assert!(!format!("{error:?}").contains(JWT), "{source}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_jwt_is_not_shown() {
    let choice = Choice::Named { source: "env".to_owned(), settings: "token_env = 'T'".parse().expect("a table") };
    let chosen = choose(&choice, &ambient(&[("T", "SECRET")])).expect("set");
    let error = chosen.source.subject_token(&Audience::from("https://as.example.com")).await.expect_err("no JWT");
    assert!(!format!("{error} {error:?}").contains("SECRET"));
}

/// A pod's file system with the token for the API server and a projected one.
fn pod(projected: &str, default: &str) -> (tempfile::TempDir, Ambient) {
    let root = tempfile::tempdir().expect("a directory");
    let at = |path: &str| root.path().join(path);
    for directory in ["var/run/secrets/kubernetes.io/serviceaccount", "var/run/secrets/tokens"] {
        std::fs::create_dir_all(at(directory)).expect("made");
    }
    std::fs::write(at("var/run/secrets/kubernetes.io/serviceaccount/token"), default).expect("written");
    std::fs::write(at("var/run/secrets/tokens/mcp"), projected).expect("written");
    let env = Env::from_vars([("KUBERNETES_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned())]);
    let ambient = Ambient { env: env.with_root(root.path().to_owned()), ..ambient(&[]) };
    (root, ambient)
}

async fn in_pod(ambient: &Ambient, file: &str) -> Result<SubjectToken, Error> {
    let settings = format!("token_file = '{file}'").parse().expect("a table");
    let chosen = choose(&Choice::Named { source: "kubernetes".to_owned(), settings }, ambient)?;
    assert_eq!(chosen.source.name(), "kubernetes");
    chosen.source.subject_token(&Audience::from("https://as.example.com")).await
}

#[tokio::test(start_paused = true)]
async fn a_projected_token_is_read_again_each_time() {
    let (root, ambient) = pod(JWT, "e30.e30.ZGVmYXVsdA");
    assert_eq!(in_pod(&ambient, "/var/run/secrets/tokens/mcp").await.expect("a JWT").expose(), JWT);
    std::fs::write(root.path().join("var/run/secrets/tokens/mcp"), "e30.e30.bmV3\n").expect("rotated");
    assert_eq!(in_pod(&ambient, "/var/run/secrets/tokens/mcp").await.expect("a JWT").expose(), "e30.e30.bmV3");
}

#[tokio::test(start_paused = true)]
async fn the_token_for_the_api_server_is_never_sent_out_under_any_name() {
    let (root, ambient) = pod("e30.e30.c2ln\n", JWT);
    let default = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let linked = root.path().join("var/run/linked");
    std::os::unix::fs::symlink(root.path().join(&default[1..]), linked).expect("linked");
    for path in [default, "/var/run/secrets/tokens/mcp", "/var/run/linked"] {
        let error = in_pod(&ambient, path).await.expect_err("the API server's");
        assert!(error.to_string().contains("never sent out"), "{path}: {error}");
        assert!(error.hint().expect("a cure").contains("projected"));
    }
}

#[test]
fn a_key_that_several_sources_have_is_of_one_kind() {
    let all: Vec<&Setting> = SOURCES.iter().flat_map(|row| row.settings).collect();
    for one in &all {
        assert!(all.iter().all(|other| other.name != one.name || other.kind == one.kind), "{}", one.name);
        assert!(one.doc.ends_with('.'), "{}", one.name);
    }
}

/// The variables of the cases in `tests/sources/`, each with the row's name.
fn cases() -> Vec<(String, toml::Table)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sources");
    let inside = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let mut cases = Vec::new();
    for source in inside(&folder) {
        let name = source.file_name().expect("a name").to_string_lossy().into_owned();
        for case in inside(&source) {
            let Ok(text) = std::fs::read_to_string(case.join("env.toml")) else { continue };
            // Placeholders for test servers are URLs in some places and tokens in others.
            let text = text.replace("<<base>>", "http://127.0.0.1:1").replace("<<agent>>", "unix:///agent.sock");
            let text = text.replace("<<host>>", "127.0.0.1").replace("<<port>>", "1");
            let table: toml::Table = text.parse().expect("TOML");
            cases.push((name.clone(), table.get("vars").and_then(toml::Value::as_table).cloned().unwrap_or_default()));
        }
    }
    assert!(cases.len() > 100, "the cases are not where they were");
    cases
}

fn is_one_of(variables: &[&str], name: &str) -> bool {
    variables.iter().any(|one| match one.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => *one == name,
    })
}

/// Without a source's variables a process does not find that source, except for sources at a fixed address.
#[tokio::test(start_paused = true)]
async fn without_its_variables_a_source_cannot_be_used() {
    // Google's metadata server has a fixed name.
    const ELSEWHERE: [&str; 1] = ["gcp"];
    let mut found = std::collections::BTreeSet::new();
    for (name, vars) in cases() {
        let Some(row) = row(&name) else { continue };
        let usable = |vars: &toml::Table| {
            let vars = vars.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
            matches!((row.detect)(&ambient(&vars.collect::<Vec<_>>())), Finding::Usable { .. })
        };
        let without = vars.clone().into_iter().filter(|(name, _)| !is_one_of(row.variables, name)).collect();
        if usable(&vars) {
            found.insert(row.name);
            assert!(!usable(&without) || ELSEWHERE.contains(&row.name), "{name}: {vars:?}");
        }
    }
    assert!(found.len() > 12, "{found:?}");
}

#[tokio::test]
async fn a_switch_of_the_machines_role_with_a_wrong_value_is_named() {
    for name in ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"] {
        let ambient = ambient(&[(name, "maybe")]);
        let row = SOURCES.iter().find(|row| row.name == "aws").expect("a row");
        let source = (row.probe.as_ref().expect("it is probed").source)(&ambient);
        let error = source.subject_token(&Audience::from("https://as.example.com")).await.expect_err("neither");
        assert!(matches!(&error, Error::Misconfigured { .. }) && error.to_string().contains(name), "{error}");
    }
}

/// Every variable in a case whose name says token, key or URL is listed in `variables` of some source.
#[test]
fn every_secret_and_every_address_of_a_case_is_among_the_variables() {
    const MARKS: [&str; 8] = ["TOKEN", "SECRET", "_KEY", "HEADER", "ENDPOINT", "REQUEST_URL", "_URI", "CREDENTIALS"];
    // These only show the platform, or a key of the case names them.
    const OTHERS: [&str; 6] = [
        "ECS_CONTAINER_METADATA_URI_V4",
        "MCP_ID_TOKEN",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_USE_DUALSTACK_ENDPOINT",
        // A mark of another kind of token, which is refused.
        "AZURE_KUBERNETES_TOKEN_PROXY",
    ];
    let mut seen = 0;
    for (name, vars) in cases() {
        if row(&name).is_none_or(|row| row.tier == Tier::Named) {
            continue;
        }
        let marked = |name: &&String| MARKS.iter().any(|mark| name.contains(mark)) && !OTHERS.contains(&name.as_str());
        for variable in vars.keys().filter(marked) {
            assert!(SOURCES.iter().any(|row| is_one_of(row.variables, variable)), "{name}: {variable}");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

/// Each source reads every variable that it lists.
#[test]
fn every_variable_is_one_that_the_source_reads() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/identity");
    let mut text = String::new();
    let mut pending = vec![folder];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else {
            let code = std::fs::read_to_string(&path).expect("UTF-8");
            text.extend(code.lines().filter(|line| !line.contains("variables:")).map(|line| format!("{line}\n")));
        }
    }
    for variable in SOURCES.iter().flat_map(|row| row.variables) {
        // Nomad's default identity is never read, because it is for Nomad only. It is listed so that no child process gets it.
        let read = text.contains(&format!("\"{variable}\"")) || text.contains(variable.trim_end_matches('*'));
        assert!(read || *variable == "NOMAD_TOKEN", "{variable}");
    }
    for row in SOURCES {
        let mut names = row.variables.to_vec();
        names.dedup();
        assert_eq!(names.len(), row.variables.len(), "{}", row.name);
    }
}

/// A platform has the name of its source. Two sources may share a platform; an unknown platform is "other".
#[test]
fn each_platform_is_called_as_a_row_that_has_it() {
    for row in SOURCES {
        let name = row.trust.name;
        assert!(
            name == row.name || name == Platform::PLAIN.name || SOURCES.iter().any(|one| one.name == name),
            "{name}"
        );
    }
    let known = SOURCES.iter().filter(|row| row.trust.name == row.name).count();
    assert!(known > 12, "{known}");
    // The issuer decides, whichever source fetched the token.
    assert_eq!(platform(row("file"), "https://gitlab.com").name, "gitlab-ci");
    assert_eq!(platform(row("file"), "https://gitlab.com.example").name, "other");
    assert_eq!(platform(row("azure-workload-identity"), "https://cluster.example").name, "kubernetes");
    assert_eq!(platform(None, "https://oidc.circleci.com/org/1").name, "circleci");
}

/// Google's and AWS's addresses on IPv6 are addresses of platforms too, and others of such networks are not.
#[tokio::test(start_paused = true)]
async fn google_metadata_may_be_named_by_its_ipv6_address() {
    let run = [("K_SERVICE", "agent"), ("K_REVISION", "agent-00001")];
    for (host, is_good) in [
        ("[fd20:ce::254]", true),
        ("[fd20:ce::254]:80", true),
        ("169.254.169.254", true),
        ("[fe80::1]", true),
        ("[fd20:ce::255]", false),
        ("[fd12::1]", false),
        ("[2001:db8::1]", false),
    ] {
        let chosen = choose(&Choice::Detect, &ambient(&[&run[..], &[("GCE_METADATA_HOST", host)]].concat()));
        assert_eq!(chosen.map(|one| one.source.name()).ok(), is_good.then_some("gcp"), "{host}");
    }
}
