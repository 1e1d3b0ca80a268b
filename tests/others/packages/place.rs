//! Where the commands of a section run: in an empty folder with an empty home, or in a fresh Debian system.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::artifacts;
use crate::process::{self, ROOT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An empty folder of this machine.
    Folder,
    /// A system that `packaging/release/machine` starts.
    Machine,
}

/// Runs each command line of `commands` and keeps what it prints. Ends after one that failed.
const DRIVER: &str = r#"
number=0
while IFS= read -r -d '' command; do
    "$MACHINE" ". ./.variables; $command" >".outcomes/$number" 2>&1 </dev/null || { echo "exit code $?" >>".outcomes/$number"; exit 0; }
    number=$((number + 1))
done <.commands
"#;

/// A folder with the artifacts of the release, these files, and the variables of a job.
pub(super) fn furnished(files: &[(&str, String)], job: &[(String, String)]) -> TempDir {
    let work = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(work.path().join(name), text).expect("writable");
    // The container's user must reach what is mounted.
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    for entry in fs::read_dir(artifacts()).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("it has a name");
        fs::copy(&path, work.path().join(name)).expect("it can be copied");
    }
    for (name, text) in files {
        write(name, text);
        if text.starts_with("#!") {
            fs::set_permissions(work.path().join(name), fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
    }
    for folder in [".bin", ".outcomes", ".home"] {
        fs::create_dir(work.path().join(folder)).expect("it is new");
    }
    for program in ["uv", "uvx"] {
        fs::copy(tools().join(program), work.path().join(".bin").join(program))
            .expect("packaging/release/tools installs it");
    }
    // Nothing comes from a registry: what is installed is what was made here.
    let mut variables = String::from(
        "export PATH=$PWD/.bin:$PATH PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_INDEX=1 UV_OFFLINE=1 NPM_CONFIG_OFFLINE=true \
         NPM_CONFIG_UPDATE_NOTIFIER=false STORAGE_DRIVER=vfs CONTAINERS_STORAGE_CONF=$PWD/.storage.conf\n",
    );
    let at = work.path().display();
    write(
        ".storage.conf",
        &format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{at}/.store\"\nrunroot = \"{at}/.run\"\n"),
    );
    if !job.is_empty() {
        write(".loopback.toml", "[egress]\ninsecure_loopback = true\n");
        variables.push_str("export SAFECONDUCT_CONFIG=$PWD/.loopback.toml\n");
    }
    for (name, value) in job {
        variables.push_str(&format!("export {name}='{value}'\n"));
    }
    write(".variables", &variables);
    work
}

/// The programs of the Python packages that packaging/release/tools installs.
pub(super) fn tools() -> PathBuf {
    let output =
        Command::new(Path::new(ROOT).join("packaging/release/tools")).arg("python").output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("a path");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Path::new(text.trim()).join("python/bin")
}

impl Place {
    /// What each command printed. After one that fails, with its exit code in the last line, no other runs.
    pub(super) fn run(self, work: &Path, commands: &[String]) -> Vec<String> {
        fs::write(work.join(".commands"), commands.iter().map(|one| format!("{one}\0")).collect::<String>())
            .expect("writable");
        let output = tempfile::tempdir().expect("a temporary folder");
        let mut command = match self {
            Self::Machine => {
                let mut command = Command::new(Path::new(ROOT).join("packaging/release/machine"));
                command.arg(work).args(["bash", "-c", DRIVER]);
                command
            }
            Self::Folder => {
                let mut command = Command::new("bash");
                let inside = output.path().join("inside");
                let path = std::env::var("PATH").unwrap_or_default();
                let home = work.join(".home");
                let text = format!(
                    "#!/bin/sh\nexec env -i HOME='{}' PATH='{path}' LANG=C.UTF-8 sh -c \"$1\"\n",
                    home.display()
                );
                fs::write(&inside, text).expect("writable");
                fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).expect("it is ours");
                command.args(["-c", DRIVER]).env("MACHINE", inside);
                command
            }
        };
        command.current_dir(work);
        let ended = process::run(command, output.path());
        assert!(ended.code == 0, "{}{}", ended.stdout, ended.stderr);
        let outcomes = (0..commands.len()).map(|number| fs::read_to_string(work.join(format!(".outcomes/{number}"))));
        outcomes.map_while(Result::ok).collect()
    }
}
