//! Every runner of `runners.toml`: masks first, outputs where they belong, a daemon in the job's directory.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Table {
    runner: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    env: BTreeMap<String, String>,
    mask: Option<String>,
    masks_by: Option<String>,
    outputs: Outputs,
    #[serde(default)]
    summary: bool,
    directory: String,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outputs {
    Heredoc,
    Shell,
    Commands,
    Own,
}

fn rows() -> Vec<Row> {
    toml::from_str::<Table>(include_str!("runners.toml")).expect("the table is sound").runner
}

/// A step of the row's runner.
struct Stage {
    scene: Scene,
    world: Safeconduct,
    files: PathBuf,
    directory: PathBuf,
    identity: PathBuf,
}

impl Stage {
    async fn new(row: &Row) -> Self {
        let scene = Scene::new(binary()).await;
        let plain = Safeconduct::new(binary()).without_env("SAFECONDUCT_SOCKET");
        let files = directory(&plain.private("files"));
        let (temp, tmp) = (directory(&plain.path().join("runner")), plain.path().join("tmp"));
        let uid = nix::unistd::geteuid().to_string();
        let fill = |text: &str| {
            let words = [("{files}", &files), ("{temp}", &temp), ("{tmp}", &tmp)];
            let text = words
                .iter()
                .fold(text.to_owned(), |text, (word, path)| text.replace(word, path.to_str().expect("plain")));
            text.replace("{uid}", &uid)
        };
        if let Some(program) = &row.masks_by {
            let path = directory(&files.join("bin")).join(program);
            // Without PATH a shell script finds no `cat`.
            let script = format!(
                "#!/bin/sh\nprintf '%s ' \"$@\" >> {0}\n/bin/cat >> {0}\necho >> {0}\n",
                files.join("hidden").display()
            );
            fs::write(&path, script).expect("ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        let world = row.env.iter().fold(plain, |world, (name, value)| world.env(name, &fill(value)));
        let jwt = scene.platform.mint(&scene.authorization_server.issuer(), Duration::from_secs(300));
        let identity = world.private("identity.jwt");
        fs::write(&identity, jwt).expect("ours");
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).expect("ours");
        let directory = PathBuf::from(fill(&row.directory));
        Self { scene, world, files, directory, identity }
    }

    async fn ci(&self, more: &[&str]) -> Output {
        let (identity, target) = (self.identity.display().to_string(), self.scene.argument());
        let words = ["ci", &target, "--insecure-loopback", "--identity-file", &identity];
        self.world.run(&[&words, more].concat()).await
    }

    /// The outputs, as the runner or a shell reads them.
    fn outputs(&self, row: &Row, ran: &Output) -> BTreeMap<String, String> {
        let own = self.directory.join("outputs.env");
        match row.outputs {
            Outputs::Heredoc => heredocs(&fs::read_to_string(self.files.join("output")).expect("written")),
            Outputs::Shell => by_shell(&self.files.join("output")),
            Outputs::Own => {
                assert_eq!(mode(&own), 0o600, "{}", row.name);
                by_shell(&own)
            }
            Outputs::Commands => by_agent(&ran.stderr),
        }
    }
}

fn by_shell(file: &Path) -> BTreeMap<String, String> {
    let script = format!(". '{}' && env", file.display());
    let shell = std::process::Command::new("/bin/sh").arg("-c").arg(script).env_clear().output().expect("a shell");
    let text = String::from_utf8(shell.stdout).expect("UTF-8");
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| name.contains('_') || *name == "socket")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect()
}

/// As Azure's agent reads them.
fn by_agent(stderr: &str) -> BTreeMap<String, String> {
    let one = |line: &str| {
        let (properties, value) = line.strip_prefix("##vso[task.setvariable ")?.split_once(']')?;
        let properties: BTreeMap<&str, &str> = properties.split(';').filter_map(|one| one.split_once('=')).collect();
        let name = properties["variable"];
        assert_eq!(properties["isoutput"], "true");
        assert_eq!(properties.get("issecret"), name.starts_with("token_").then_some(&"true"), "{name}");
        Some((name.to_owned(), value.replace("%AZP25", "%")))
    };
    stderr.lines().filter_map(one).collect()
}

#[tokio::test]
async fn every_runner_gets_masks_then_outputs_in_its_own_way() {
    for row in rows() {
        let name = &row.name;
        let stage = Stage::new(&row).await;
        let ran = stage.ci(&["--json"]).await.expect_code(0);
        let daemon = Daemon::of(&ran);
        let outputs = stage.outputs(&row, &ran);
        let token = outputs.get("token_demo").unwrap_or_else(|| panic!("{name}: {outputs:?}\n{}", ran.stderr));
        let socket = stage.directory.join("safeconduct.sock");
        assert_eq!(outputs["socket"], socket.display().to_string(), "{name}");
        assert!(
            outputs["expires_at_demo"].ends_with('Z')
                && outputs.len() == 3 + usize::from(outputs.contains_key("BASH_ENV")),
            "{name}: {outputs:?}"
        );
        assert_eq!((mode(&stage.directory), mode(&socket)), (0o700, 0o600), "{name}");
        assert_eq!(mode(stage.directory.parent().expect("the job's")), 0o700, "{name}");

        let mut lines = ran.stderr.lines().filter(|line| line.contains(token.as_str()));
        if let Some(mask) = &row.mask {
            assert_eq!(
                lines.next(),
                Some(&*format!("{mask}{token}")),
                "{name}: the mask is the first that has the token"
            );
            assert!(
                ran.stderr.starts_with(mask.as_str())
                    || !ran.stderr.lines().next().is_some_and(|line| line.contains("##vso"))
            );
        }
        let others: Vec<&str> = lines.collect();
        assert_eq!(others.len(), usize::from(row.outputs == Outputs::Commands), "{name}: nothing else shows it");
        if row.masks_by.is_some() {
            let hidden = fs::read_to_string(stage.files.join("hidden")).expect("it ran");
            assert!(hidden.starts_with(&format!("redactor add {token}\n")), "{name}");
        }
        assert!(!stage.files.join("variables").exists(), "{name}: what later steps print holds no token");

        let document = ran.json();
        assert_eq!(document["socket"], socket.display().to_string());
        let target = &document["targets"][0];
        assert_eq!((&target["name"], &target["url"]), (&"demo".into(), &stage.scene.mcp.url().into()), "{name}");
        assert_eq!(target["issuer"], stage.scene.authorization_server.issuer());
        assert!(target["scope"].is_string() && target["expires_at"] == outputs["expires_at_demo"], "{document}");

        summary(&row, &stage, &ran, token);
        // A later step: the same variables, and nothing of the step.
        let helper = stage.world.run(&["token", "demo", "--daemon-only", "--no-mask"]).await.expect_code(0);
        assert_eq!(helper.stdout.trim_end(), token, "{name}");
        daemon.end().await;
        assert!(!stage.directory.exists(), "{name}: nothing is left");
        assert!(stage.scene.authorization_server.is_revoked(token), "{name}: what lived is revoked");
    }
}

fn summary(row: &Row, stage: &Stage, ran: &Output, token: &str) {
    let text = match ran.stderr.lines().find_map(|line| line.strip_prefix("##vso[task.uploadsummary]")) {
        Some(path) => fs::read_to_string(path).expect("it is there"),
        None => fs::read_to_string(stage.files.join("summary")).unwrap_or_default(),
    };
    assert_eq!(!text.is_empty(), row.summary, "{}", row.name);
    assert!(!text.contains(token), "{}", row.name);
    assert!(!row.summary || (text.contains("<code>demo</code>") && text.contains("<code>file</code>")), "{text}");
    assert!(ran.stderr.contains("safeconduct: demo: token for "), "the log has it too: {}", ran.stderr);
}

#[tokio::test]
async fn a_shell_reads_the_path_of_our_own_file_from_stdout_and_other_runners_get_nothing_there() {
    for row in rows() {
        let stage = Stage::new(&row).await;
        let ran = stage.ci(&[]).await.expect_code(0);
        let own = stage.directory.join("outputs.env");
        let wanted = if row.outputs == Outputs::Own { format!("{}\n", own.display()) } else { String::new() };
        assert_eq!(ran.stdout, wanted, "{}", row.name);
        let said = ran.stderr.lines().find_map(|line| line.strip_prefix("safeconduct: socket ")?.split_once(", pid "));
        let pid = said.and_then(|(_, pid)| pid.parse().ok()).expect("it says its process");
        Daemon(Pid::from_raw(pid)).end().await;
    }
}

#[tokio::test]
async fn outside_of_a_known_runner_it_names_exec() {
    let scene = Scene::new(binary()).await;
    let output =
        Safeconduct::new(binary()).env("CI", "true").run(&["ci", &scene.argument(), "--insecure-loopback"]).await;
    let output = output.expect_code(ASKED_WRONGLY);
    assert!(output.stdout.is_empty() && output.stderr.contains("hint: `safeconduct exec"), "{}", output.stderr);
    let both = scene.safeconduct.clone().env("TF_BUILD", "True");
    both.run(&["ci", &scene.argument(), "--insecure-loopback"]).await.expect_code(ASKED_WRONGLY);
}
