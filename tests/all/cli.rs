//! Transcripts of the command line, readable as documentation: `tests/cmd/*.md`.
//!
//! They run in an environment without an identity, a daemon and a configuration. After an intended change of the output,
//! `TRYCMD=overwrite cargo test --test all cli` writes them again; read the difference as a user would.

use crate::binary;

/// Variables of a CI job, a shell or a person that would change a transcript. An empty one counts as unset.
const CLEAR: [&str; 23] = [
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "AGENT_TEMPDIRECTORY",
    "AZURE_FEDERATED_TOKEN_FILE",
    "BITBUCKET_BUILD_NUMBER",
    "BUILDKITE",
    "CI",
    "CIRCLECI",
    "CLAUDE_CODE_MCP_SERVER_NAME",
    "CLAUDE_CODE_MCP_SERVER_URL",
    "CLICOLOR_FORCE",
    "FLY_APP_NAME",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "RUNNER_TEMP",
    "SYSTEM_OIDCREQUESTURI",
    "TFC_RUN_ID",
    "TF_BUILD",
    "VERCEL",
    "SAFECONDUCT_CONFIG",
    "SAFECONDUCT_LOG",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

#[test]
fn transcripts() {
    let cases = trycmd::TestCases::new();
    for name in CLEAR {
        cases.env(name, "");
    }
    cases
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        .env("SAFECONDUCT_SOCKET", "/nonexistent/safeconduct.sock")
        .timeout(std::time::Duration::from_secs(20))
        .register_bin("safeconduct", trycmd::schema::Bin::Path(binary().into()))
        .case("tests/cmd/*.md");
}
