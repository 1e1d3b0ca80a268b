//! All problems of a table are told in one round: a wrong key hides no other problem and causes none.

use std::collections::BTreeSet;

use super::problems;
use crate::config::exchange::own_keys;
use crate::exchange::Place;

/// A table without a problem, and changes that each cause at least one: `key = value` sets a key, `-key` removes one.
struct Row {
    /// The tables before it.
    before: &'static str,
    header: &'static str,
    good: &'static [&'static str],
    /// Wrong keys of the exchange itself.
    wrong: &'static [&'static str],
    /// Contradictions between the exchange and the keys around it.
    contradictions: &'static [&'static str],
}

const LINKS: &str = "[identities.ci]\nsource = \"github-actions\"\n[identities.chain]\nfrom = \"ci\"\n\
    exchange = \"token-exchange\"\nissuer = \"https://sts.example.com\"\n";
const OUTSIDE: &str = "[identities.ci]\nsource = \"github-actions\"\n[servers.front]\n\
    url = \"https://front.example.com/mcp\"\nissuer = \"https://as.example.com\"\n";
const USED: &str = "[servers.a]\nurl = \"https://mcp.example.com/mcp\"\nissuer = \"https://as.example.com\"\n\
    identity = \"link\"\nextra = { actor = { identity = \"link\" } }\n";
const WITH_IDP: &str = "[servers.a]\nurl = \"https://mcp.example.com/mcp\"\nissuer = \"https://as.example.com\"\n\
    exchange = \"id-jag\"\n";
const POOL: &str = "pool = \"projects/1/locations/global/workloadIdentityPools/agents/providers/ci\"";

const ROWS: &[Row] = &[
    Row {
        before: "",
        header: "[servers.a]",
        good: &[
            "url = \"https://mcp.example.com/mcp\"",
            "exchange = \"aws-sigv4\"",
            "service = \"execute-api\"",
            "region = \"eu-central-1\"",
        ],
        wrong: &[
            "region = 7",
            "region = \"moon\"",
            "-region",
            "service = \"a/b\"",
            "service = []",
            "-service",
            "role_arn = \"agent\"",
            "role_arn = {}",
            "endpoint = \"http://sts.example.com\"",
            "endpoint = true",
            "regoin = \"x\"",
            "pool = \"x\"",
        ],
        contradictions: &[
            "issuer = \"https://as.example.com\"",
            "token_endpoint = \"https://as.example.com/token\"",
            "scopes = [\"a\"]",
            "client_id = \"c\"",
            "audience = \"a\"",
            "resource = \"https://mcp.example.com\"",
            "extra = { a = { identity = \"default\" } }",
            "idp = { issuer = \"https://idp.example.com\" }",
            "allow = [{ uid = 1000, scopes = [\"a\"] }]",
            "outer = { exchange = \"aws-sigv4\" }",
        ],
    },
    Row {
        before: LINKS,
        header: "[servers.a]",
        good: &[
            "url = \"https://mcp.example.com/mcp\"",
            "exchange = \"entra\"",
            "tenant = \"contoso.example\"",
            "scopes = [\"api://mcp/.default\"]",
            "client_id = \"app\"",
        ],
        wrong: &[
            "tenant = 7",
            "tenant = \"a/b\"",
            "-tenant",
            "cloud = \"moon\"",
            "cloud = 7",
            "agent_identity = 7",
            "agent_identity = \"\"",
            "region = \"x\"",
        ],
        contradictions: &[
            "-scopes",
            "scopes = [\"api://mcp/read\"]",
            "issuer = \"https://as.example.com\"",
            "dpop = true",
            "client_auth = \"mtls\"",
            "client_auth = \"private-key-jwt\"",
            "extra = { fmi_path = \"a\" }",
            "extra = { a = { identity = \"default\" } }",
            "idp = { issuer = \"https://idp.example.com\" }",
            "identity = \"nowhere\"",
        ],
    },
    Row {
        before: LINKS,
        header: "[servers.a]",
        good: &[
            "url = \"https://mcp.example.com/mcp\"",
            "exchange = \"entra\"",
            "tenant = \"contoso.example\"",
            "scopes = [\"api://mcp/.default\"]",
        ],
        wrong: &["tenant = 7", "-tenant", "cloud = \"moon\"", "agent_identity = 7"],
        contradictions: &["identity = \"chain\"", "identity = \"ci\"", "client_auth = \"workload\"", "register = true"],
    },
    Row {
        before: LINKS,
        header: "[servers.a]",
        good: &[
            "url = \"https://mcp.example.com/mcp\"",
            "exchange = \"gcp\"",
            POOL,
            "service_account = \"agent@project.iam.gserviceaccount.com\"",
            "audience = \"client\"",
        ],
        wrong: &[
            "pool = 7",
            "pool = \"agents\"",
            "-pool",
            "service_account = \"a/b\"",
            "service_account = 7",
            "delegates = [\"bad one\"]",
            "delegates = 7",
            "tenant = \"x\"",
        ],
        contradictions: &[
            "issuer = \"https://as.example.com\"",
            "client_id = \"c\"",
            "scopes = [\"a\"]",
            "-audience",
            "dpop = true",
            "idp = { issuer = \"https://idp.example.com\" }",
            "allow = [{ uid = 1000, scopes = [\"a\"] }]",
        ],
    },
    Row {
        before: "",
        header: "[servers.a]",
        good: &[
            "url = \"https://mcp.example.com/mcp\"",
            "exchange = \"gcp\"",
            POOL,
            "service_account = \"agent@project.iam.gserviceaccount.com\"",
            "delegates = [\"between@project.iam.gserviceaccount.com\"]",
            "scopes = [\"a\"]",
        ],
        wrong: &["pool = 7", "pool = \"agents\"", "-pool"],
        contradictions: &["-service_account", "-scopes", "audience = \"client\""],
    },
    Row {
        before: OUTSIDE,
        header: "[servers.front.outer]",
        good: &["exchange = \"gcp\"", "audience = \"client\""],
        wrong: &["service_account = 7", "delegates = []", "delegates = [\"bad one\"]", "region = \"x\""],
        contradictions: &[
            "identity = \"ci\"",
            "audience = \"https://as.example.com\"",
            "-audience",
            "issuer = \"https://gateway.example.com\"",
            "idp = { issuer = \"https://idp.example.com\" }",
            "header = \"Host\"",
        ],
    },
    Row {
        before: USED,
        header: "[identities.link]",
        good: &["from = \"default\"", "exchange = \"token-exchange\"", "issuer = \"https://sts.example.com\""],
        wrong: &["subject_token_type = 7", "subject_token_type = \"saml\"", "subject_token = \"x\"", "tenant = \"x\""],
        contradictions: &[
            "-issuer",
            "issuer = 7",
            "issuer = \"nowhere\"",
            "from = \"nowhere\"",
            "from = \"link\"",
            "token_endpoint = \"nowhere\"",
            "client_auth = \"secret\"",
        ],
    },
    Row {
        before: USED,
        header: "[identities.link]",
        good: &[
            "from = \"default\"",
            "exchange = \"aws-role\"",
            "role_arn = \"arn:aws:iam::123456789012:role/agent\"",
            "region = \"eu-central-1\"",
        ],
        wrong: &["region = 7", "-region", "role_arn = \"agent\"", "-role_arn", "endpoint = \"http://sts.example.com\""],
        contradictions: &[
            "issuer = \"https://sts.example.com\"",
            "token_endpoint = \"https://sts.example.com/token\"",
            "from = \"nowhere\"",
        ],
    },
    Row {
        before: USED,
        header: "[identities.link]",
        good: &["from = \"default\"", "exchange = \"entra\"", "tenant = \"contoso.example\"", "client_id = \"app\""],
        wrong: &["tenant = 7", "-tenant", "cloud = \"moon\"", "agent_identity = \"\""],
        contradictions: &["-client_id", "issuer = \"https://sts.example.com\"", "from = \"nowhere\""],
    },
    Row {
        before: USED,
        header: "[identities.link]",
        good: &[
            "from = \"default\"",
            "exchange = \"gcp\"",
            POOL,
            "service_account = \"agent@project.iam.gserviceaccount.com\"",
        ],
        wrong: &["pool = 7", "-pool", "pool = \"agents\"", "delegates = 7"],
        contradictions: &["-service_account", "issuer = \"https://sts.example.com\"", "from = \"nowhere\""],
    },
    Row {
        before: WITH_IDP,
        header: "[servers.a.idp]",
        good: &["issuer = \"https://idp.example.com\""],
        wrong: &["subject_token_type = 7", "subject_token_type = \"saml\""],
        contradictions: &[
            "-issuer",
            "issuer = []",
            "exchange = \"token-exchange\"",
            "token_endpoint = \"nowhere\"",
            "client_auth = \"secret\"",
        ],
    },
];

fn key(line: &str) -> &str {
    line.trim_start_matches('-').split(" = ").next().unwrap_or_default()
}

impl Row {
    /// The problems after these changes, without their lines.
    fn problems(&self, changes: &[&str]) -> BTreeSet<String> {
        let changed = |line: &&&str| !changes.iter().any(|change| key(change) == key(line));
        let set = changes.iter().filter(|change| !change.starts_with('-'));
        let lines: Vec<&str> = self.good.iter().filter(changed).chain(set).copied().collect();
        let text = format!("{}{}\n{}\n", self.before, self.header, lines.join("\n"));
        let without_line = |problem: &String| match problem.strip_prefix("line ").and_then(|rest| rest.split_once(": "))
        {
            Some((_, rest)) => rest.to_owned(),
            None => problem.clone(),
        };
        problems(&text).iter().map(without_line).collect()
    }
}

#[test]
fn a_wrong_key_hides_no_contradiction_and_causes_none() {
    let mut differ = Vec::new();
    for row in ROWS {
        assert_eq!(row.problems(&[]), BTreeSet::new(), "{} {:?}", row.header, row.good);
        for wrong in row.wrong {
            for contradiction in row.contradictions.iter().filter(|other| key(other) != key(wrong)) {
                let [first, second] = [wrong, contradiction].map(|change| row.problems(&[change]));
                assert!(!first.is_empty() && !second.is_empty(), "{wrong} and {contradiction} are problems");
                let together = row.problems(&[wrong, contradiction]);
                let wanted = &first | &second;
                if together != wanted {
                    let (hidden, caused) = (&wanted - &together, &together - &wanted);
                    differ.push(format!(
                        "{}: {wrong}, {contradiction}\n  hidden: {hidden:?}\n  caused: {caused:?}",
                        row.header
                    ));
                }
            }
        }
    }
    assert!(differ.is_empty(), "{} pairs:\n{}", differ.len(), differ.join("\n"));
}

/// A wrong key is replaced by its example while the rest of the table is checked.
#[test]
fn each_key_of_an_exchange_has_an_example_that_is_right() {
    for place in [Place::Server, Place::Link] {
        for (names, one) in own_keys(place) {
            let example = one.example_value().unwrap_or_else(|| panic!("{} of {names:?} has no example", one.name));
            assert_eq!(one.judge(&example), Ok(()), "{} of {names:?}", one.name);
        }
    }
}
