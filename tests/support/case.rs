//! One case of `tests/sources/SOURCE/CASE/`: a platform as data, and the expected outcome.
//!
//! | file | content |
//! |---|---|
//! | `env.toml` | `[vars]` of the environment, the `[identity]` of the configuration, further keys of the `[server]`; with its `subject_audience` the authorization server takes tokens for that alone |
//! | `fs/` | files of the platform, at their absolute paths |
//! | `http.toml` | the requests that the platform must get, and its answers (`traffic.rs`). At the start: `socket`, if it is a Unix socket, and `stands_for`, the compiled-in hosts that it replaces |
//! | `workload_api.toml` | a SPIFFE agent: the workload's `identities`, and an `[[answer]]` for each faulty answer |
//! | `expect.toml` | the outcome: the source that was found, or the class of the failure and its message |
//!
//! All files except `expect.toml` may contain placeholders between `<<` and `>>`: `issuer`; `jwt` (a valid token for the
//! authorization server; `jwt {"aud": …}` with other claims, `jwt:NAME` the same token each time); `secret NAME`; and for the case's
//! own servers `base`, `host`, `port`, `ca`, `thumbprint` (of the certificate), `other_ca`, `agent`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tempfile::TempDir;

use super::authorization_server::Profile;
use super::leak;
use super::scene::Scene;
use super::stand_in::StandIn;
use super::tls::TestCa;
use super::traffic::{Place, Traffic};
use super::workload_api::{FakeWorkloadApi, SvidFault};

const LIFE: Duration = Duration::from_secs(600);

/// `expect.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The source that is found, if the run ends with a token.
    pub source: Option<String>,
    /// The complete evidence of the source.
    pub evidence: Option<String>,
    /// Whether the source gets a new token each time.
    pub mints_anew: Option<bool>,
    /// The class of the failure.
    pub class: Option<String>,
    /// Parts of its message.
    #[serde(default)]
    pub says: Vec<String>,
    /// Parts of its hint.
    #[serde(default)]
    pub hint: Vec<String>,
    /// The state that `whoami` shows for the source of this folder: `absent`, `unusable`.
    pub state: Option<String>,
    /// The time limit of the command.
    pub timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Environment {
    #[serde(default)]
    vars: BTreeMap<String, String>,
    identity: Option<toml::Table>,
    server: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    identities: Vec<String>,
    #[serde(default)]
    answer: Vec<AgentAnswer>,
    /// The last answer is repeated for every further request.
    #[serde(default)]
    always: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AgentAnswer {
    /// A gRPC status.
    Code(u32),
    /// No answer. The value is ignored; TOML requires one.
    Stall(IgnoredAny),
    /// An answer without an SVID. The value is ignored.
    Empty(IgnoredAny),
    Token(String),
    Claims(Value),
}

/// A case, not yet started.
#[derive(Clone, Debug)]
pub struct Case {
    pub source: String,
    pub name: String,
    pub expect: Expect,
    path: PathBuf,
}

/// A case with its servers running.
pub struct Stage {
    pub scene: Scene,
    pub vars: BTreeMap<String, String>,
    pub config: String,
    /// The audience of the platform's token: `subject_audience` of the server, else the issuer.
    pub audience: String,
    /// The root of the platform's files, if the case has any.
    pub files: Option<TempDir>,
    traffic: Option<Traffic>,
    _stand_in: Option<StandIn>,
    _agent: Option<FakeWorkloadApi>,
    _other: TestCa,
}

/// All cases below this folder, in the order of their names.
pub fn all(folder: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for source in entries(folder) {
        for path in entries(&source) {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(path.join("expect.toml")).expect("every case says how it ends");
            let expect = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            cases.push(Case { source: name(&source), name: name(&path), expect, path });
        }
    }
    cases
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path());
    let mut entries: Vec<PathBuf> = entries.collect();
    entries.sort();
    entries
}

impl Case {
    /// Whether the case has files or a socket at absolute paths. These need another root directory, inside this process.
    pub fn has_files(&self) -> bool {
        self.path.join("fs").is_dir() || self.read("http.toml").is_some_and(|text| text.starts_with("socket = "))
    }

    /// Starts the servers of the case.
    pub async fn stage(&self, binary: &str) -> Stage {
        let scene = Scene::new(binary).await;
        let other = TestCa::new();
        let mut words = Words::new(&scene);
        words.set("other_ca", other.pem());
        let agent = self.read("workload_api.toml").map(|text| agent(&words.fill(&text)));
        if let Some(agent) = &agent {
            scene.authorization_server.also_trust(agent.trust());
            words.set("agent", &agent.endpoint());
        }
        let files = self.has_files().then(|| tempfile::tempdir().expect("the temporary directory is writable"));
        let (mut traffic, mut stand_in) = (None, None);
        if let Some(text) = self.read("http.toml") {
            let place = Place::new(&text).await;
            words.set("base", place.base());
            words.set("host", "127.0.0.1");
            words.set("port", place.base().rsplit(':').next().unwrap_or_default());
            words.set("ca", place.ca());
            words.set("thumbprint", &place.thumbprint());
            let hosts: Vec<&str> = place.stands_for.iter().map(String::as_str).collect();
            if !hosts.is_empty() {
                stand_in = Some(StandIn::before(&hosts, place.base()).await);
            }
            traffic = Some(place.serve(&words.fill(&text), files.as_ref().map(TempDir::path)));
        }
        let environment = self.read("env.toml").unwrap_or_default();
        let environment: Environment =
            toml::from_str(&words.fill(&environment)).unwrap_or_else(|error| panic!("env.toml: {error}"));
        let text = |table: &Option<toml::Table>| toml::to_string(&table.clone().unwrap_or_default()).expect("TOML");
        let audience = environment.server.as_ref().and_then(|server| server.get("subject_audience")?.as_str());
        let audience = audience.map_or_else(|| scene.authorization_server.issuer(), str::to_owned);
        scene
            .authorization_server
            .set_profile(Profile { assertion_audience: Some(audience.clone()), ..Profile::default() });
        let mut config = scene.config(&text(&environment.server));
        if environment.identity.is_some() {
            config.push_str(&format!("\n[identity]\n{}", text(&environment.identity)));
        }
        if let Some(stand_in) = &stand_in {
            let keys = stand_in.egress(files.as_ref().map(TempDir::path));
            config = config.replace("[egress]\n", &format!("[egress]\n{keys}"));
        }
        if let Some(root) = files.as_ref().filter(|_| self.path.join("fs").is_dir()) {
            copy(&self.path.join("fs"), root.path(), &mut words);
        }
        Stage {
            scene,
            vars: environment.vars,
            config,
            audience,
            files,
            traffic,
            _stand_in: stand_in,
            _agent: agent,
            _other: other,
        }
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(name)).ok()
    }
}

impl Stage {
    /// Wrong and missing requests to the platform.
    pub fn problems(&self) -> Vec<String> {
        self.traffic.as_ref().map(Traffic::problems).unwrap_or_default()
    }
}

fn agent(text: &str) -> FakeWorkloadApi {
    let Agent { identities, answer, always } =
        toml::from_str(text).unwrap_or_else(|error| panic!("workload_api.toml: {error}"));
    let identities: Vec<&str> = identities.iter().map(String::as_str).collect();
    let agent = FakeWorkloadApi::start(&identities);
    let mut faults: Vec<SvidFault> = answer.into_iter().map(AgentAnswer::fault).collect();
    if let Some(last) = if always { faults.pop() } else { None } {
        agent.always(last);
    }
    agent.script(faults);
    agent
}

impl AgentAnswer {
    fn fault(self) -> SvidFault {
        match self {
            Self::Code(code) => SvidFault::Status(code, "this is scripted".to_owned()),
            Self::Stall(_) => SvidFault::Stall,
            Self::Empty(_) => SvidFault::Empty,
            Self::Token(text) => SvidFault::Token(text),
            Self::Claims(claims) => SvidFault::Claims(claims),
        }
    }
}

fn copy(from: &Path, to: &Path, words: &mut Words<'_>) {
    for path in entries(from) {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            fs::create_dir(&target).expect("the root is new");
            copy(&path, &target, words);
        } else {
            let text = fs::read_to_string(&path).expect("the files of a case are UTF-8");
            fs::write(&target, words.fill(&text)).expect("the root is ours");
            // Keeps a program of the platform executable.
            let mode = fs::metadata(&path).expect("it was read").permissions();
            fs::set_permissions(&target, mode).expect("the root is ours");
        }
    }
}

/// The value of a placeholder.
struct Words<'a> {
    scene: &'a Scene,
    known: BTreeMap<String, String>,
}

impl<'a> Words<'a> {
    fn new(scene: &'a Scene) -> Self {
        let known = [("issuer".to_owned(), scene.authorization_server.issuer())].into();
        Self { scene, known }
    }

    fn set(&mut self, word: &str, value: &str) {
        self.known.insert(word.to_owned(), value.to_owned());
    }

    fn fill(&mut self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("<<") {
            let (word, after) = after.split_once(">>").expect("<< has its >>");
            filled.push_str(before);
            filled.push_str(&self.value(word.trim()));
            rest = after;
        }
        filled + rest
    }

    fn value(&mut self, word: &str) -> String {
        if let Some(value) = self.known.get(word) {
            return value.clone();
        }
        let (kind, rest) = word.split_once(' ').unwrap_or((word, ""));
        if let Some(value) = self.known.get(kind) {
            return value.clone();
        }
        let value = match kind {
            "secret" => {
                let secret = format!("secret-{rest}-{}", super::keys::unique_id());
                leak::minted(&secret);
                secret
            }
            _ if kind == "jwt" || kind.starts_with("jwt:") => {
                let over = if rest.is_empty() { Value::Null } else { serde_json::from_str(rest).expect("claims") };
                self.scene.platform.mint_with(&self.scene.authorization_server.issuer(), LIFE, &over)
            }
            _ => panic!("nothing stands for <<{word}>> here"),
        };
        if kind.starts_with("jwt:") {
            self.set(kind, &value);
        } else if kind == "secret" {
            self.set(word, &value);
        }
        value
    }
}
