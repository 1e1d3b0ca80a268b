//! The API server of Kubernetes without a kubelet: it admits the pods of `packaging/kubernetes/`, and their account may do what it
//! needs and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::fetched::built;
use super::realm::PATIENCE;
use super::tethered::{Tethered, free};
use crate::fakes::{keys, leak, wait};
use crate::keys::Authority;
use crate::kubernetes::rendered;
use crate::process::{Outcome, SAFECONDUCT, run};

const ADMIN: &str = "a-token-of-the-administrator";
const NAMESPACE: &str = "demo";

/// One that takes the account's token itself.
const DIRECT: &str = "[servers.demo]\nurl = \"https://mcp.example.com/mcp\"\nexchange = \"direct\"\n\
    subject_audience = \"https://mcp.example.com/mcp\"\n";

pub(super) struct Cluster {
    base: String,
    port: u16,
    http: reqwest::Client,
    authority: String,
    folder: TempDir,
    // In this order they end.
    _api: Tethered,
    _etcd: Tethered,
}

/// A status, the warnings with it, and the body.
type Reply = (u16, String, Value);

impl Cluster {
    /// With a certificate of this authority, and a namespace that admits restricted pods alone.
    pub(super) async fn start(authority: &Authority) -> Option<Self> {
        let home = built("kubernetes-1.34.4")?;
        let folder = tempfile::Builder::new().prefix("api").tempdir_in("/tmp").expect("/tmp is writable");
        // The pod's users read what is theirs below it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let (store, peers, port) = (free(), free(), free().port());
        let etcd = start_etcd(&home, [&format!("http://{store}"), &format!("http://{peers}")], folder.path());
        let mut api = start_api(&home, &format!("http://{store}"), port, authority, folder.path());
        let certificate = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("our own PEM");
        let http = reqwest::Client::builder()
            .tls_certs_only([certificate])
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .expect("a client");
        let base = format!("https://127.0.0.1:{port}");
        wait::until(PATIENCE, "the API server is ready", async || {
            api.lives();
            let reply = http.get(format!("{base}/readyz")).bearer_auth(ADMIN).send().await;
            reply.is_ok_and(|reply| reply.status() == 200)
        })
        .await;
        let cluster = Self { base, port, http, authority: authority.pem(), folder, _api: api, _etcd: etcd };
        let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted" });
        cluster.makes("/api/v1/namespaces", &json!({ "metadata": { "name": NAMESPACE, "labels": labels } })).await;
        Some(cluster)
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Reply {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(token);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let reply = request.send().await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let warnings = reply.headers().get_all("warning").iter().map(|line| format!("{line:?}")).collect::<String>();
        let status = reply.status().as_u16();
        let body = reply.text().await.unwrap_or_else(|error| panic!("{path}: {error}"));
        (status, warnings, serde_json::from_str(&body).unwrap_or_else(|_| json!(body)))
    }

    /// What the administrator creates, and what became of it.
    async fn makes(&self, path: &str, body: &Value) -> Value {
        let (status, warnings, body) = self.ask("POST", path, ADMIN, body).await;
        assert_eq!((status, warnings.as_str()), (201, ""), "{path}: {body}");
        body
    }

    /// An account that may make tokens of its own.
    pub(super) async fn may_request_tokens(&self, account: &str) {
        let metadata = json!({ "name": account });
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
        let rule = json!({
            "apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"], "resourceNames": [account],
        });
        let who = json!({ "kind": "ServiceAccount", "name": account, "namespace": NAMESPACE });
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account });
        let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        self.makes(&accounts, &json!({ "metadata": metadata })).await;
        self.makes(&format!("{rbac}/roles"), &json!({ "metadata": metadata, "rules": [rule] })).await;
        let binding = json!({ "metadata": metadata, "roleRef": role, "subjects": [who] });
        self.makes(&format!("{rbac}/rolebindings"), &binding).await;
    }

    /// Everybody may read the keys of its accounts, as others have to who take their tokens.
    pub(super) async fn publishes_its_keys(&self) {
        let group = "rbac.authorization.k8s.io";
        let role =
            json!({ "apiGroup": group, "kind": "ClusterRole", "name": "system:service-account-issuer-discovery" });
        let who = json!({ "apiGroup": group, "kind": "Group", "name": "system:unauthenticated" });
        let binding = json!({ "metadata": { "name": "keys" }, "roleRef": role, "subjects": [who] });
        self.makes(&format!("/apis/{group}/v1/clusterrolebindings"), &binding).await;
    }

    /// The token that the kubelet would put into a pod of this account.
    pub(super) async fn pods_token(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
        let made = self.makes(&path, &json!({ "spec": { "expirationSeconds": 3600 } })).await;
        let token = made["status"]["token"].as_str().expect("a token").to_owned();
        leak::minted(&token);
        token
    }

    /// A command where a pod of this token has its files. The identity is a token that the API server makes for it.
    pub(super) fn in_a_pod(&self, token: &str, config: &str, words: &[&str]) -> Outcome {
        let place = |name: &str| self.folder.path().join(name);
        fs::create_dir_all(place("pod")).expect("ours");
        let config = format!("[identity]\nsource = \"kubernetes\"\ntoken_request = true\n{config}");
        for (name, text) in [("pod/token", token), ("pod/ca.crt", &self.authority), ("safeconduct.toml", &config)] {
            fs::write(place(name), text).expect("ours");
            fs::set_permissions(place(name), fs::Permissions::from_mode(0o600)).expect("ours");
        }
        let script = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && \
            ln -s \"$PWD/pod\" /run/secrets/kubernetes.io/serviceaccount && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, SAFECONDUCT, "--config", "safeconduct.toml"]);
        command.args(["--log", "trace"]).args(words).current_dir(self.folder.path()).env_clear();
        command.env("HOME", self.folder.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", self.port.to_string());
        let outcome = run(command, self.folder.path());
        leak::check("stderr of safeconduct in a pod", &outcome.stderr);
        outcome
    }
}

fn start_etcd(home: &Path, [clients, peers]: [&str; 2], folder: &Path) -> Tethered {
    let data = folder.join("etcd").display().to_string();
    let cluster = format!("default={peers}");
    let arguments = [
        ["--data-dir", &data],
        ["--listen-client-urls", clients],
        ["--advertise-client-urls", clients],
        ["--listen-peer-urls", peers],
        ["--initial-advertise-peer-urls", peers],
        ["--initial-cluster", &cluster],
    ];
    Tethered::start(&home.join("etcd"), arguments.as_flattened(), folder)
}

fn start_api(home: &Path, store: &str, port: u16, authority: &Authority, folder: &Path) -> Tethered {
    let (own, accounts) = (authority.vouches_for("127.0.0.1"), authority.vouches_for("accounts"));
    let users = format!("{ADMIN},admin,1,\"system:masters\"\n");
    let authority = authority.pem();
    let files = [
        ("api.crt", &own.certificate),
        ("api.key", &own.key),
        ("ca.crt", &authority),
        ("accounts.crt", &accounts.certificate),
        ("accounts.key", &accounts.key),
        ("users.csv", &users),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("ours");
    }
    let base = format!("https://127.0.0.1:{port}");
    let arguments = [
        format!("--etcd-servers={store}"),
        format!("--secure-port={port}"),
        format!("--service-account-issuer={base}"),
        format!("--service-account-jwks-uri={base}/openid/v1/jwks"),
        format!("--api-audiences={base}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=192.0.2.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--tls-cert-file=api.crt".to_owned(),
        "--tls-private-key-file=api.key".to_owned(),
        "--client-ca-file=ca.crt".to_owned(),
        "--token-auth-file=users.csv".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        "--service-account-key-file=accounts.crt".to_owned(),
        "--service-account-signing-key-file=accounts.key".to_owned(),
        "--cert-dir=certificates".to_owned(),
    ];
    Tethered::start(&home.join("kube-apiserver"), &arguments, folder)
}

/// Where objects of this kind are.
fn path_of(document: &Value) -> String {
    let kind = document["kind"].as_str().unwrap_or_default();
    let group = match document["apiVersion"].as_str().unwrap_or_default() {
        "v1" => "/api/v1".to_owned(),
        other => format!("/apis/{other}"),
    };
    let plural = match kind {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    format!("{group}/namespaces/{NAMESPACE}/{plural}")
}

#[tokio::test]
async fn the_api_server_admits_every_object_and_every_pod_under_the_restricted_level() {
    let Some(cluster) = Cluster::start(&Authority::new()).await else { return };
    cluster
        .makes(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &json!({ "metadata": { "name": "agent" } }))
        .await;
    for rendered in rendered() {
        for document in rendered.documents.iter().filter(|document| document["kind"] != "ServiceAccount") {
            cluster.makes(&format!("{}?dryRun=All", path_of(document)), document).await;
        }
        // The level is enforced on pods alone.
        let template = &rendered.of_kind("Deployment")["spec"]["template"];
        let mut pod = json!({ "metadata": { "name": "agent" }, "spec": template["spec"] });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
        let admitted = cluster.makes(&path, &pod).await;
        assert_eq!(admitted["spec"]["initContainers"][0]["restartPolicy"], "Always", "{}", rendered.name);

        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        let (status, _, body) = cluster.ask("POST", &path, ADMIN, &pod).await;
        let words = body["message"].as_str().unwrap_or_default();
        assert!(status == 403 && words.contains("violates PodSecurity"), "{}: {status} {body}", rendered.name);
    }
}

/// It needs root: a pod's files have fixed places.
#[tokio::test]
async fn the_role_is_enough_for_token_requests_and_for_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(cluster) = Cluster::start(&Authority::new()).await else { return };
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    for name in ["agent", "another"] {
        cluster.makes(&accounts, &json!({ "metadata": { "name": name } })).await;
    }
    let token = cluster.pods_token("agent").await;
    let refused = cluster.in_a_pod(&token, DIRECT, &["token", "demo", "--no-daemon"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (69, ""), "{}", refused.stderr);
    assert!(refused.stderr.contains("serviceaccounts/token"), "it says which right is missing: {}", refused.stderr);

    let all = rendered();
    let own = all.iter().find(|rendered| rendered.name == "token-request").expect("it is there");
    for kind in ["Role", "RoleBinding"] {
        let mut document = own.of_kind(kind).clone();
        if kind == "RoleBinding" {
            // `kubectl apply -n` does the same.
            document["subjects"][0]["namespace"] = json!(NAMESPACE);
        }
        cluster.makes(&path_of(&document), &document).await;
    }
    let outcome = cluster.in_a_pod(&token, DIRECT, &["token", "demo", "--no-daemon"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let claims = keys::peek(outcome.stdout.trim());
    assert_eq!(claims["sub"], format!("system:serviceaccount:{NAMESPACE}:agent"));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(cluster.base), &json!(["https://mcp.example.com/mcp"])));

    let others = [
        ("POST", format!("{accounts}/another/token")),
        ("GET", format!("{accounts}/agent")),
        ("GET", accounts.clone()),
        ("GET", format!("/api/v1/namespaces/{NAMESPACE}/secrets")),
        ("GET", format!("/api/v1/namespaces/{NAMESPACE}/pods")),
        ("POST", format!("/api/v1/namespaces/{NAMESPACE}/pods")),
        ("GET", "/api/v1/nodes".to_owned()),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/agent/token".to_owned()),
    ];
    for (method, path) in others {
        let (status, _, body) = cluster.ask(method, &path, &token, &json!({})).await;
        assert_eq!(status, 403, "{method} {path}: {body}");
    }
}
