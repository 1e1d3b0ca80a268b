//! The manifests of `packaging/kubernetes/`: rendered by kustomize, compared with the schemas of Kubernetes, with the restricted level
//! of the Pod Security Standards, and with the boundary that docs/kubernetes.md promises. The configurations pass `config check`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::documents::documents;
use crate::fakes::platform::LIFE;
use crate::fakes::scene::Scene;
use crate::process::{PYTHON, ROOT, SAFECONDUCT, installed, run, safeconduct};

const FOLDER: &str = "packaging/kubernetes";
/// The oldest version with native sidecars, and the newest whose schemas are installed.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];

pub(crate) struct Rendered {
    pub(crate) name: String,
    pub(crate) documents: Vec<Value>,
}

/// Each folder, as `kubectl apply -k` reads it.
pub(crate) fn rendered() -> Vec<Rendered> {
    installed();
    let folders = fs::read_dir(Path::new(ROOT).join(FOLDER)).expect("it is there");
    let mut names: Vec<String> =
        folders.map(|entry| entry.expect("readable").file_name().display().to_string()).collect();
    names.sort();
    assert_eq!(names, ["aks", "eks", "gke", "sidecar", "token-request"], "docs/kubernetes.md lists them");
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let render = |name: String| {
        let mut command = Command::new(Path::new(ROOT).join("target/others/go/bin/kustomize"));
        command.arg("build").arg(format!("{ROOT}/{FOLDER}/{name}"));
        let outcome = run(command, dir.path());
        assert_eq!(outcome.code, 0, "{name}: {}", outcome.stderr);
        let file = dir.path().join(format!("{name}.yaml"));
        fs::write(&file, &outcome.stdout).expect("ours");
        for version in VERSIONS {
            let mut command = Command::new(Path::new(ROOT).join(PYTHON));
            command.args(["-m", "kubernetes_validate", "--strict", "-k", version]).arg(&file);
            let outcome = run(command, dir.path());
            assert_eq!(outcome.code, 0, "{name}, Kubernetes {version}: {}{}", outcome.stdout, outcome.stderr);
        }
        Rendered { documents: documents(&file.display().to_string()), name }
    };
    names.into_iter().map(render).collect()
}

impl Rendered {
    pub(crate) fn of_kind(&self, kind: &str) -> &Value {
        let found = self.documents.iter().find(|document| document["kind"] == kind);
        found.unwrap_or_else(|| panic!("{}: there is no {kind}", self.name))
    }

    fn pod(&self) -> &Value {
        &self.of_kind("Deployment")["spec"]["template"]["spec"]
    }

    /// The sidecar and the agent.
    fn containers(&self) -> [&Value; 2] {
        let pod = self.pod();
        let only = |list: &str| {
            let list = pod[list].as_array().unwrap_or_else(|| panic!("{}: no {list}", self.name));
            assert_eq!(list.len(), 1, "{}", self.name);
            &list[0]
        };
        [only("initContainers"), only("containers")]
    }

    fn toml(&self) -> &str {
        self.of_kind("ConfigMap")["data"]["safeconduct.toml"].as_str().expect("the configuration")
    }
}

fn mounts(container: &Value) -> Vec<(&str, &str, bool)> {
    let list = container["volumeMounts"].as_array().expect("a list");
    let one = |mount: &'_ Value| mount["readOnly"] == true;
    list.iter().map(|mount| (text(&mount["name"]), text(&mount["mountPath"]), one(mount))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The rules of the level `restricted`, as far as a pod of two containers can break them.
#[test]
fn every_pod_is_restricted() {
    for rendered in rendered() {
        let (name, pod) = (&rendered.name, rendered.pod());
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(field).is_none(), "{name}: {field}");
        }
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for volume in pod["volumes"].as_array().expect("a list") {
            let kinds = ["configMap", "emptyDir", "projected"].iter().filter(|kind| volume.get(**kind).is_some());
            assert_eq!(kinds.count(), 1, "{name}: {volume}");
        }
        for container in rendered.containers() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert!(context["runAsUser"].as_u64().is_some_and(|uid| uid > 0), "{name}");
            assert!(
                context.get("privileged").is_none()
                    && container.get("ports").is_none_or(|ports| ports[0].get("hostPort").is_none())
            );
        }
    }
}

#[test]
fn the_agent_has_the_socket_and_nothing_else_of_the_broker() {
    for rendered in rendered() {
        let (name, pod) = (&rendered.name, rendered.pod());
        let [broker, agent] = rendered.containers();
        assert_eq!(
            (&pod["automountServiceAccountToken"], &rendered.of_kind("ServiceAccount")["automountServiceAccountToken"]),
            (&json!(false), &json!(false)),
            "{name}"
        );
        assert_eq!(mounts(agent), [("socket", "/run/user/65532", true), ("tmp", "/tmp", false)], "{name}");
        assert!(mounts(broker).iter().any(|(volume, ..)| *volume == "identity"), "{name}");
        assert_ne!(broker["securityContext"]["runAsUser"], agent["securityContext"]["runAsUser"], "{name}: two users");
        assert_eq!(agent["securityContext"]["runAsUser"], 1000, "{name}: `allow` names it");
        let volumes = pod["volumes"].as_array().expect("a list");
        let socket = volumes.iter().find(|volume| volume["name"] == "socket").expect("there is one");
        assert_eq!(socket["emptyDir"]["medium"], "Memory", "{name}");
        let metadata = &rendered.of_kind("NetworkPolicy")["spec"]["egress"][0]["to"][0]["ipBlock"]["except"];
        assert_eq!(metadata[0], "169.254.0.0/16", "{name}");
    }
}

#[test]
fn the_broker_starts_first_and_the_agent_waits_for_its_tokens() {
    for rendered in rendered() {
        let (name, [broker, agent]) = (&rendered.name, rendered.containers());
        assert_eq!((&broker["name"], &broker["restartPolicy"]), (&json!("safeconduct"), &json!("Always")), "{name}");
        assert_eq!(broker["startupProbe"]["exec"]["command"], json!(["/usr/bin/safeconduct", "ready"]), "{name}");
        assert!(rendered.toml().contains("required = true"), "{name}: nothing to wait for");
        assert!(agent.get("restartPolicy").is_none(), "{name}");
        // What kubelet and users write into two files.
        let token_file = rendered.toml().lines().find_map(|line| line.strip_prefix("token_file = "));
        let place = mounts(broker).into_iter().find(|(volume, ..)| *volume == "identity").expect("it is mounted").1;
        match token_file {
            Some(path) => assert_eq!(path, format!("\"{place}/token\""), "{name}"),
            None => assert_eq!(place, "/var/run/secrets/kubernetes.io/serviceaccount", "{name}: for the API server"),
        }
    }
}

/// The audience of the projected token is the one that the exchange of the configuration needs.
#[test]
fn every_configuration_is_fine_and_fits_its_identity_token() {
    for rendered in rendered() {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let file = dir.path().join("safeconduct.toml");
        fs::write(&file, rendered.toml()).expect("ours");
        let words = ["--config", &file.display().to_string(), "config", "check"].map(str::to_owned);
        let outcome = safeconduct(dir.path(), &words, None);
        assert_eq!(outcome.code, 0, "{}: {}{}", rendered.name, outcome.stdout, outcome.stderr);
        let projected = rendered.pod()["volumes"].as_array().expect("a list");
        let identity = projected.iter().find(|volume| volume["name"] == "identity").expect("it is there");
        let audience = &identity["projected"]["sources"][0]["serviceAccountToken"]["audience"];
        let key = |name: &str| {
            let value = rendered.toml().lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")));
            value.and_then(|value| value.split('"').next()).unwrap_or_default().to_owned()
        };
        let expected = match rendered.name.as_str() {
            "sidecar" => json!(key("issuer")),
            "eks" => json!("sts.amazonaws.com"),
            "gke" => json!(format!("https://iam.googleapis.com/{}", key("pool"))),
            "aks" => json!("api://AzureADTokenExchange"),
            // Without one it is for the API server.
            _ => Value::Null,
        };
        assert_eq!(*audience, expected, "{}", rendered.name);
    }
}

/// The pod's users, groups and mounts on this machine, with the configuration of the manifest. It needs root.
#[tokio::test(flavor = "multi_thread")]
async fn two_users_and_a_read_only_mount_keep_the_agent_to_the_socket() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scene = Scene::new(SAFECONDUCT).await;
    let all = rendered();
    let sidecar = all.iter().find(|rendered| rendered.name == "sidecar").expect("it is there");
    let dir = tempfile::Builder::new().prefix("pod").tempdir_in("/tmp").expect("/tmp is writable");
    let place = |name: &str| dir.path().join(name).display().to_string();
    let token = scene.platform.mint(&scene.authorization_server.issuer(), LIFE);
    let config = sidecar.toml().replace("/var/run/secrets/safeconduct/token", &place("token"));
    let config = config.replace("https://mcp.example.com/mcp", &scene.mcp.url()).replace("0.0.0.0:9464", "127.0.0.1:0");
    let config = config.replace("https://login.example.com/tenant1", &scene.authorization_server.issuer());
    let readable = |name: &str, text: &str, mode| {
        fs::write(dir.path().join(name), text).expect("ours");
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(dir.path().join(name), permissions).expect("ours");
    };
    readable("safeconduct.toml", &format!("{config}\n[egress]\ninsecure_loopback = true\n"), 0o644);
    // The kubelet writes it so where the containers of a pod have different users.
    readable("token", &token, 0o644);
    fs::copy(SAFECONDUCT, dir.path().join("safeconduct")).expect("room for a copy");
    readable("pod.sh", POD, 0o755);
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");

    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh"])
        .arg(dir.path().join("pod.sh"))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir(dir.path()).stdin(Stdio::null());
    let outcome = run(command, dir.path());
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    let said: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(
        said,
        ["ready 0", "agent 0", "another user 77", "outside of the group 77", "moved 1", "ended 0"],
        "{}",
        outcome.stderr
    );
}

/// In a mount namespace of its own: the volume as the kubelet makes it, and the two containers' users.
const POD: &str = r#"
mount -t tmpfs none /run/user && mkdir /run/user/65532 && mount -t tmpfs -o mode=0777 none /run/user/65532 || exit 1
as() { uid=$1 groups=$2; shift 2; setpriv --reuid "$uid" --regid "$uid" --groups "$groups" --no-new-privs --bounding-set -all "$@"; }
SAFECONDUCT_CONFIG=$PWD/safeconduct.toml setpriv --reuid 65532 --regid 65532 --groups 65533 --no-new-privs --bounding-set -all \
    ./safeconduct run &
as 65532 65533 ./safeconduct ready --wait 60s >&2; echo "ready $?"
mkdir agent && mount --bind /run/user/65532 agent && mount -o remount,bind,ro agent || exit 1
export SAFECONDUCT_SOCKET=$PWD/agent/safeconduct/safeconduct.sock
as 1000 65533 ./safeconduct token demo >token.out; echo "agent $?"
as 1001 65533 ./safeconduct token demo; echo "another user $?"
as 1000 1000 ./safeconduct token demo; echo "outside of the group $?"
as 1000 65533 mv agent/safeconduct agent/moved; echo "moved $?"
kill $!; wait $!; echo "ended $?"
"#;
