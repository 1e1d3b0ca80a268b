//! The pipeline files that users copy: `action.yml`, `examples/ci/`, the workflows of this repository and the GitLab component
//! `templates/safeconduct.yml`. Each fits the published schema of its CI service; workflows also pass actionlint; the component is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::documents::{documents, program};
use crate::fakes::leak;
use crate::fakes::platform::SUBJECT;
use crate::fakes::scene::Scene;
use crate::process::{PYTHON, ROOT, SAFECONDUCT, run};

const COMPONENT: &str = "templates/safeconduct.yml";

/// Each file of `examples/ci/`, and the schema and flags of check-jsonschema for it.
const SCHEMAS: &[(&str, &[&str])] = &[
    (
        "azure-pipelines.yml",
        &["vendor.azure-pipelines", "--data-transform=azure-pipelines", "--regex-variant=nonunicode"],
    ),
    ("buildkite.yml", &["vendor.buildkite"]),
    ("circleci.yml", &["vendor.circle-ci"]),
    ("github-actions.yml", &["vendor.github-workflows"]),
    ("gitlab-ci.yml", &["vendor.gitlab-ci", "--data-transform=gitlab-ci"]),
];

#[track_caller]
fn fits(file: &str, schema: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let words = [&["-m", "check_jsonschema", "--builtin-schema"], schema, &[file]].concat();
    let outcome = program(PYTHON, &words, dir.path());
    assert_eq!(outcome.code, 0, "{file}: {}{}", outcome.stdout, outcome.stderr);
}

fn files_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().display().to_string()).collect();
    names.sort();
    names
}

#[test]
fn every_example_fits_the_schema_of_its_service() {
    let known: Vec<&str> = SCHEMAS.iter().map(|(name, _)| *name).collect();
    assert_eq!(files_in("examples/ci"), known, "an example without a schema, or the other way round");
    for (name, schema) in SCHEMAS {
        fits(&format!("examples/ci/{name}"), schema);
    }
    fits("action.yml", &["vendor.github-actions"]);
}

#[test]
fn every_workflow_passes_actionlint() {
    let own = files_in(".github/workflows").into_iter().map(|name| format!(".github/workflows/{name}"));
    let workflows: Vec<String> = own.chain(["examples/ci/github-actions.yml".to_owned()]).collect();
    for workflow in &workflows {
        fits(workflow, &["vendor.github-workflows"]);
    }
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let words: Vec<&str> = workflows.iter().map(String::as_str).collect();
    let outcome = program("target/others/go/bin/actionlint", &words, dir.path());
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
}

/// The inputs of the action that the example and README use are those that it has.
#[test]
fn the_action_has_the_inputs_that_examples_use() {
    let action = &documents("action.yml")[0];
    let inputs = action["inputs"].as_object().expect("it has inputs");
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("readable");
    let block = readme.split("uses: OWNER/safeconduct@").nth(1).expect("README shows the action");
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let of_readme = dir.path().join("step.yml");
    let indent = |line: &&str| line.starts_with("    ");
    let with: Vec<&str> = block.lines().skip(1).take_while(indent).collect();
    fs::write(&of_readme, with.join("\n")).expect("ours");
    let steps = &documents("examples/ci/github-actions.yml")[0]["jobs"]["agent"]["steps"];
    let used = [&steps[0]["with"], &documents(&of_readme.display().to_string())[0]["with"]];
    for with in used {
        let names = with.as_object().expect("the step has inputs").keys();
        assert!(with["servers"].is_string() && names.clone().all(|name| inputs.contains_key(name)), "{with}");
    }
    let source = fs::read_to_string(format!("{ROOT}/packaging/action/dist/main.mjs")).expect("it is committed");
    for name in inputs.keys() {
        assert!(source.contains(&format!("\"{name}\"")), "the action does not read {name}");
    }
}

/// The component with these inputs, as GitLab makes it: the inputs replaced in the text, then read.
fn component(inputs: &Map<String, Value>) -> Value {
    let text = fs::read_to_string(Path::new(ROOT).join(COMPONENT)).expect("readable");
    let (header, mut body) =
        text.split_once("\n---\n").map(|(header, body)| (header, body.to_owned())).expect("two documents");
    assert!(header.contains("spec:"), "the first says what the inputs are");
    let declared = documents(COMPONENT)[0]["spec"]["inputs"].as_object().cloned().expect("it has inputs");
    for name in inputs.keys() {
        assert!(declared.contains_key(name), "there is no input {name}");
    }
    for (name, input) in &declared {
        let value = inputs.get(name).or_else(|| input.get("default")).unwrap_or_else(|| panic!("{name} is not given"));
        let place = format!("$[[ inputs.{name} ]]");
        assert!(body.contains(&place), "{name} is not used");
        body = body.replace(&place, value.as_str().expect("all are texts"));
    }
    assert!(!body.contains("$[["), "an input that is not declared: {body}");
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let file = dir.path().join("component.yml");
    fs::write(&file, body).expect("ours");
    let file = file.display().to_string();
    fits(&file, &["vendor.gitlab-ci", "--data-transform=gitlab-ci"]);
    documents(&file).remove(0)
}

/// The inputs of each `include` of the example.
fn includes() -> Vec<Map<String, Value>> {
    let example = &documents("examples/ci/gitlab-ci.yml")[0];
    let includes = example["include"].as_array().expect("a list");
    includes.iter().map(|include| include["inputs"].as_object().cloned().expect("inputs")).collect()
}

#[test]
fn each_server_of_a_gitlab_job_has_an_identity_token_of_its_own() {
    let example = &documents("examples/ci/gitlab-ci.yml")[0];
    let mut tokens = BTreeMap::new();
    for (inputs, extended) in includes().iter().zip(example["agent"]["extends"].as_array().expect("a list")) {
        let jobs = component(inputs);
        let job = &jobs[extended.as_str().expect("a name")];
        let of_job = job["id_tokens"].as_object().expect("the hidden job has a token");
        assert_eq!(of_job.len(), 1);
        // GitLab merges the maps of what a job extends, and not the lists.
        tokens.extend(of_job.iter().map(|(name, token)| (name.clone(), token["aud"].clone())));
        let referred = json!({ "!reference": [extended, "before_script"] });
        assert!(example["agent"]["before_script"].as_array().is_some_and(|list| list.contains(&referred)));
    }
    assert_eq!(tokens["SAFECONDUCT_ID_TOKEN_deploy"], "https://login.example.com/tenant1");
    assert_eq!(tokens["SAFECONDUCT_ID_TOKEN_search"], "https://login.example.net");
}

/// Inputs become part of a shell script, so only harmless characters may be in them.
#[test]
fn inputs_of_the_component_are_limited_to_harmless_characters() {
    let header = &documents(COMPONENT)[0];
    let inputs = header["spec"]["inputs"].as_object().expect("it has inputs");
    let given = includes();
    for (name, input) in inputs {
        let pattern = input["regex"].as_str().unwrap_or_else(|| panic!("{name} takes anything"));
        let script = "import re, sys\nprint([re.fullmatch(sys.argv[1], text) is not None for text in sys.argv[2:]])";
        let matches = |texts: &[&str]| {
            let dir = tempfile::tempdir().expect("a temporary folder can be made");
            program(PYTHON, &[&["-c", script, pattern], texts].concat(), dir.path()).stdout
        };
        for hostile in [
            "\"",
            "$(id)",
            "`id`",
            "a;b",
            "a'b",
            "https://h/$x",
            "https://h/\"",
            "https://h/\\",
            "a\nb",
            "https://h/ b;",
        ] {
            assert_eq!(matches(&[hostile]), "[False]\n", "{name}: {hostile:?}");
        }
        for text in given.iter().filter_map(|inputs| inputs.get(name)?.as_str()) {
            assert_eq!(matches(&[text]), "[True]\n", "{name}: {text}");
        }
        assert!(pattern.starts_with('^') && pattern.ends_with('$'), "GitLab looks for the pattern anywhere: {name}");
    }
}

/// The scripts of the component, in the shell of a GitLab job with two servers.
#[tokio::test(flavor = "multi_thread")]
async fn the_component_serves_two_servers_with_two_identities() {
    let scenes = [Scene::new(SAFECONDUCT).await, Scene::new(SAFECONDUCT).await];
    let home = tempfile::Builder::new().prefix("gl").tempdir_in("/tmp").expect("/tmp is writable");
    let config = home.path().join("safeconduct.toml");
    fs::write(&config, "[egress]\ninsecure_loopback = true\n").expect("ours");
    let mut script = "set -e\n".to_owned();
    let mut after = String::new();
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir(home.path()).stdin(Stdio::null());
    let id = format!("{}", std::process::id());
    let job = [("HOME", "."), ("CI", "true"), ("GITLAB_CI", "true"), ("CI_JOB_ID", &id)];
    command.envs(job).env("SAFECONDUCT_CONFIG", &config).env("TMPDIR", home.path());
    for (scene, name) in scenes.iter().zip(["deploy", "search"]) {
        let issuer = scene.authorization_server.issuer();
        let inputs = json!({ "name": name, "url": scene.mcp.url(), "issuer": issuer, "scope": "demo:read demo:write", "program": SAFECONDUCT });
        let jobs = component(inputs.as_object().expect("a map"));
        let hidden = &jobs[format!(".safeconduct-{name}")];
        let lines = |list: &str| {
            let list = hidden[list].as_array().expect("a list");
            list.iter().map(|line| format!("{}\n", line.as_str().expect("a text"))).collect::<String>()
        };
        script += &lines("before_script");
        after = lines("after_script");
        let token = scene.platform.mint_with(&issuer, Duration::from_secs(600), &json!({ "sub": SUBJECT }));
        command.env(format!("SAFECONDUCT_ID_TOKEN_{name}"), token);
    }
    script += "env | grep SAFECONDUCT_ID_TOKEN && exit 1\n";
    script += "(. \"$safeconduct_deploy\" && echo \"deploy $token_deploy\")\n(. \"$safeconduct_search\" && echo \"search $token_search\")\n";
    script += &format!("{SAFECONDUCT} token deploy --daemon-only\n{SAFECONDUCT} token search --daemon-only\n");
    script += &after;
    command.args(["-c", &script]);
    let outcome = run(command, home.path());
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout.len(), outcome.stderr);
    leak::check("the log of the job", &outcome.stderr);
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    let [_, deploy, _, search, again_deploy, again_search, ..] = words[..] else { panic!("{} words", words.len()) };
    assert_eq!((deploy, search), (again_deploy, again_search), "helpers find the daemon that has the server");
    for (scene, token) in scenes.iter().zip([deploy, search]) {
        assert!(scene.authorization_server.verifier().verify(token).is_ok());
        assert!(scene.authorization_server.is_revoked(token), "after_script revokes it");
    }
    let sockets: Vec<PathBuf> = glob(home.path(), "safeconduct.sock");
    assert!(sockets.is_empty(), "{sockets:?}");
}

/// The files of this name below a folder.
fn glob(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path());
    let found = |path: PathBuf| match path.is_dir() && !path.is_symlink() {
        true => glob(&path, name),
        false if path.ends_with(name) => vec![path],
        false => Vec::new(),
    };
    entries.flat_map(found).collect()
}
