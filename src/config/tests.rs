use super::*;
use crate::exchange::Place;

mod one_round;
mod page;

fn env() -> Env {
    Env::from_vars([])
}

fn problems(text: &str) -> Vec<String> {
    match Config::from_toml(text, &env()) {
        Ok(_) => Vec::new(),
        Err(Error::Problems { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[track_caller]
fn only_problem(text: &str, wanted: &str) {
    let found = problems(text);
    assert!(found.len() == 1 && found[0].contains(wanted), "{text}\n-> {found:#?}");
}

const SERVER: &str = "[servers.a]\nurl = \"https://mcp.example.com/mcp\"\n";

#[test]
fn the_starter_is_a_valid_configuration() {
    assert_eq!(problems(&starter()), Vec::<String>::new());
}

#[test]
fn every_line_of_the_starter_is_valid_when_uncommented() {
    let examples = starter()
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains(" = "))
        .map(str::to_owned)
        .collect::<Vec<_>>();
    assert!(examples.len() > 15, "{examples:?}");
    for example in examples {
        toml::from_str::<toml::Table>(&example).expect("each example is TOML");
    }
}

#[test]
fn all_problems_are_reported_at_once_with_line_and_key() {
    let text = "[servers.a]\nurl = \"ftp://x\"\nscope = [\"a\"]\n\n[servers.b]\nscopes = \"a\"\n\n[listen]\nsocket_mode = \"0777\"\n[audit]\nfile = \"x\"\n";
    let found = problems(text);
    let wanted = [
        "line 2: servers.a.url: the scheme is \"ftp\"",
        "line 3: servers.a.scope: unknown key; did you mean `scopes`?",
        "line 5: servers.b.url: missing",
        "line 6: servers.b.scopes: must be a list of texts",
        "line 9: listen.socket_mode: \"0777\" is neither",
        "line 11: audit.file: must be an absolute path",
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(found.starts_with(wanted), "{found}");
    }
}

#[test]
fn a_duplicate_key_is_an_error() {
    let found = problems("[listen]\nsocket = \"/a\"\nsocket = \"/b\"\n");
    assert!(found.len() == 1 && found[0].starts_with("line 3") && found[0].contains("duplicate"), "{found:?}");
}

#[test]
fn a_key_of_a_later_version_is_refused_and_never_ignored() {
    only_problem(&format!("{SERVER}bare_token = true\n"), "not built in this version");
}

#[test]
fn what_holds_on_loopback_alone_needs_a_loopback_listener() {
    for key in ["http_owner", "oauth_token"] {
        only_problem(&format!("[listen]\n{key} = true\n"), &format!("listen.{key}: has no effect without `http`"));
    }
}

#[test]
fn what_could_be_replayed_needs_a_pin() {
    for line in [
        "client_id = \"x\"",
        "subject_audience = \"x\"",
        "extra = { a = \"b\" }",
        "audience = \"x\"",
        "exchange = \"client-credentials\"\nclient_auth = \"workload\"",
        "exchange = \"token-exchange\"",
    ] {
        only_problem(&format!("{SERVER}{line}\n"), "needs `issuer`");
        assert!(problems(&format!("{SERVER}{line}\nissuer = \"https://as.example.com\"\n")).is_empty());
    }
}

#[test]
fn extra_may_not_overrule_the_exchange() {
    only_problem(
        &format!("{SERVER}issuer = \"https://as.example.com\"\nextra = {{ assertion = \"x\" }}\n"),
        "set by the exchange",
    );
}

#[test]
fn a_parameter_of_extra_is_a_text_or_an_identity_that_is_there() {
    let extra = |more: &str, value: &str| format!("{SERVER}{more}\nextra = {{ a = {value} }}\n");
    let pin = "issuer = \"https://as.example.com\"";
    assert_eq!(problems(&extra(pin, "{ identity = \"default\" }")), Vec::<String>::new());
    only_problem(&extra("", "{ identity = \"default\" }"), "needs `issuer`");
    only_problem(&extra(pin, "{ identity = \"ci\" }"), "servers.a.extra: there is no identity \"ci\"");
    for value in ["1", "{}", "{ identity = 1 }", "{ name = \"ci\" }", "{ identity = \"default\", audience = \"x\" }"] {
        only_problem(&extra(pin, value), "must be a table of texts and of `{ identity = \"NAME\" }`");
    }
    let role = "exchange = \"entra\"\ntenant = \"t\"\nscopes = [\"api://a/.default\"]";
    only_problem(
        &extra(role, "{ identity = \"default\" }"),
        "made for the pinned `issuer`, and this exchange asks none",
    );
}

#[test]
fn an_allow_entry_says_whom_it_means() {
    only_problem(&format!("{SERVER}allow = [{{}}]\n"), "needs at least one of `uid`, `gid`, `exe`, `sha256`, `unit`");
    only_problem(&format!("{SERVER}allow = [{{ scopes = [\"a\"] }}]\n"), "needs at least one of");
    only_problem(&format!("{SERVER}allow = []\n"), "lets nobody in");
    only_problem(&format!("{SERVER}allow = [{{ uid = -1 }}]\n"), "must be a number");
    let digest = "0".repeat(64);
    for entry in [
        "uid = 1000, scopes = [\"a\"]",
        "gid = 5",
        "exe = \"/usr/bin/agent\"",
        &format!("exe = \"/usr/bin/agent\", sha256 = \"{digest}\""),
        &format!("sha256 = \"{digest}\""),
        "unit = \"agent.service\"",
        "uid = 1000, unit = \"app-agent@7.scope\"",
    ] {
        assert_eq!(problems(&format!("{SERVER}allow = [{{ {entry} }}]\n")), Vec::<String>::new(), "{entry}");
    }
}

#[test]
fn what_no_caller_could_match_is_refused_with_line_and_key() {
    for (entry, wanted) in [
        ("exe = \"agent\"", "line 3: servers.a.allow.exe: \"agent\" is no absolute path"),
        ("exe = \"/usr/bin/../agent\"", "no absolute path"),
        ("exe = \"/usr/bin/\"", "no absolute path"),
        ("exe = \"\"", "no absolute path"),
        ("exe = \"/usr/bin/agent\", sha256 = \"00\"", "line 3: servers.a.allow.sha256: not the 64 hexadecimal digits"),
        (
            "unit = \"agent\"",
            "line 3: servers.a.allow.unit: \"agent\" is no name of a service or scope; did you mean \"agent.service\"?",
        ),
        ("unit = \"agents.slice\"", "is no name of a service or scope"),
        ("unit = \"/system.slice/agent.service\"", "is no name of a service or scope"),
        ("unit = \".service\"", "is no name of a service or scope"),
        ("unit = 7", "must be a text"),
    ] {
        only_problem(&format!("{SERVER}allow = [{{ {entry} }}]\n"), wanted);
    }
}

#[test]
fn a_unit_without_a_user_means_the_systems_or_our_own() {
    let units = format!("{SERVER}allow = [{{ unit = \"a.service\" }}, {{ uid = 7, unit = \"a.service\" }}]\n");
    let config = Config::from_toml(&units, &env()).expect("fine");
    let users: Vec<_> = config.servers[0].policy.allow.iter().filter_map(|rule| rule.unit.as_ref()).collect();
    assert_eq!((users[0].of_user, users[1].of_user), (env().uid(), 7));
}

#[test]
fn one_resource_with_two_policies_is_refused() {
    let two = "[servers.a]\nurl = \"https://h.example/mcp\"\n[servers.b]\nurl = \"https://H.example:443/mcp/\"\nallow = [{ uid = 1 }]\n";
    only_problem(two, "is one resource with servers.a");
    let covering = "[servers.a]\nurl = \"https://h.example/x\"\nresource = \"https://h.example\"\n[servers.b]\nurl = \"https://h.example/y\"\nallow = [{ uid = 1 }]\n";
    only_problem(covering, "is one resource with");
}

#[test]
fn the_socket_mode_and_group_belong_together() {
    only_problem("[listen]\nsocket_mode = \"0660\"\n", "needs `socket_group`");
    only_problem("[listen]\nsocket_group = \"0\"\n", "has no effect");
    assert!(problems("[listen]\nsocket_mode = \"0660\"\nsocket_group = \"0\"\n").is_empty());
    only_problem("[listen]\nsocket = \"relative.sock\"\n", "absolute");
}

#[test]
fn an_audit_has_a_file_with_an_absolute_path() {
    only_problem("[audit]\n", "audit.file: missing");
    only_problem("[audit]\nfile = \"audit.jsonl\"\n", "absolute");
    assert!(problems("[audit]\nfile = \"/var/log/safeconduct/audit.jsonl\"\n").is_empty());
}

#[test]
fn plain_http_is_for_loopback_alone() {
    only_problem("[servers.a]\nurl = \"http://mcp.example.com/mcp\"\n", "plain http");
    assert!(problems("[servers.a]\nurl = \"http://127.0.0.1:1/mcp\"\n").is_empty());
}

#[test]
fn the_keys_of_a_source_belong_to_that_source() {
    only_problem("[identity]\nsource = \"file\"\n", "identity.token_file: missing");
    only_problem("[identity]\nsource = \"github-actions\"\ntoken_file = \"/x\"\n", "belongs to another source");
    // Every entry of a list is checked; the arguments of a program are not.
    let account = |more: &str| {
        format!("[identity]\nsource = \"gcp\"\ndelegates = [\"good@x.iam.gserviceaccount.com\", \"{more}\"]\n")
    };
    only_problem(&account("bad one"), "identity.delegates: entry 2 is no email of a service account");
    let program = "[identity]\nsource = \"command\"\ncommand = [\"/bin/tool\", \"\", \"a/b\"]\n".to_owned();
    for good in [account("b@x.iam.gserviceaccount.com"), program] {
        assert_eq!(problems(&good), Vec::<String>::new());
    }
    only_problem("[identity]\ntoken_file = \"/x\"\n", "need `source`");
    only_problem("[identity]\nsource = \"nowhere\"\n", "this version knows");
    only_problem(
        "[identity]\nsource = \"file\"\ntoken_file = [\"/x\"]\n",
        "line 3: identity.token_file: must be a text",
    );
    only_problem("[identity]\nsource = \"file\"\ntoken_file = 7\n", "line 3: identity.token_file: must be a text");
    only_problem("[identity]\nsource = \"env\"\n\ntoken_env = \"a b\"\n", "line 4: identity.token_env: is no name");
    only_problem(
        "[identity]\nsource = \"command\"\ncommand = [\"./x\"]\n",
        "line 3: identity.command: is a relative path",
    );
    only_problem("[identity]\nsource = \"command\"\ncommand = []\n", "line 3: identity.command: is empty");
    assert!(problems("[identity]\nsource = \"file\"\ntoken_file = \"/x\"\n").is_empty());
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("safeconduct.toml");
    std::fs::write(&path, SERVER).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).expect("set");
    let error = Config::load(Some(&path), &env()).expect_err("group can write it");
    assert!(error.to_string().contains("can be written by others"), "{error}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    assert_eq!(Config::load(Some(&path), &env()).expect("fine").servers.len(), 1);
}

#[test]
fn the_schema_holds_every_built_key_and_no_other() {
    let schema = schema();
    let server = &schema["properties"]["servers"]["additionalProperties"]["properties"];
    assert!(server["url"].is_object() && server["allow"]["items"]["properties"]["uid"].is_object());
    assert!(server["bare_token"].is_null());
    assert!(server["idp"]["properties"]["issuer"].is_object());
    let identity = &schema["properties"]["identity"];
    assert_eq!(identity["properties"]["token_file"]["type"], "string");
    assert_eq!(identity["properties"]["command"]["type"], "array");
    let file = identity["allOf"].as_array().expect("one for each source").iter();
    let file = file.filter(|row| row["if"]["properties"]["source"]["const"] == "file").collect::<Vec<_>>();
    assert_eq!(file[0]["then"]["required"], serde_json::json!(["token_file"]));
    assert_eq!(file[0]["then"]["properties"]["command"], false, "belongs to another source");
}

/// A key can have only one type in the schema.
#[test]
fn exchanges_that_share_a_key_agree_on_its_kind() {
    for place in [Place::Server, Place::Link] {
        let keys = exchange::own_keys(place);
        for (names, one) in &keys {
            let other = keys.iter().find(|(_, other)| other.name == one.name && other.kind != one.kind);
            assert!(other.is_none(), "{}: {names:?} and {:?}", one.name, other.map(|(names, _)| names));
        }
    }
}

#[test]
fn one_jwt_is_not_sent_as_grant_and_as_proof() {
    for exchange in ["", "exchange = \"jwt-bearer\"\n"] {
        let server = format!("{SERVER}issuer = \"https://as.example.com\"\n{exchange}client_auth = \"workload\"\n");
        only_problem(&server, "client-credentials");
    }
}

const PINNED: &str = "[servers.a]\nurl = \"https://mcp.example.com/mcp\"\nissuer = \"https://as.example.com\"\n";

#[test]
fn a_proof_needs_what_it_is_made_from() {
    for (auth, wanted) in [
        ("secret", "client_secret_file"),
        ("private-key-jwt", "client_key_file"),
        ("mtls\"\nclient_key_file = \"/k", "together"),
        ("workload\"\nregister = true\n#\"", "registered by ourselves"),
    ] {
        let text = format!("{PINNED}exchange = \"client-credentials\"\nclient_id = \"c\"\nclient_auth = \"{auth}\"\n");
        let found = problems(&text);
        assert!(found.iter().any(|problem| problem.contains(wanted)), "{auth}: {found:#?}");
    }
    let nameless = "exchange = \"client-credentials\"\nclient_auth = \"secret\"\nclient_secret_env = \"S\"\n";
    only_problem(&format!("{PINNED}{nameless}"), "needs `client_id`");
    assert!(problems(&format!("{PINNED}{nameless}register = true\n")).is_empty());
    assert!(problems(&format!("{PINNED}{nameless}client_id = \"c\"\n")).is_empty());
}

#[test]
fn what_would_be_ignored_is_a_problem() {
    for line in [
        "client_secret_file = \"/s\"",
        "client_key_file = \"/k\"",
        "client_cert_file = \"/c\"",
        "client_key_id = \"k\"",
        "idp = { issuer = \"https://idp.example.com\" }",
    ] {
        only_problem(&format!("{PINNED}{line}\n"), "has no effect without");
    }
    only_problem(&format!("{PINNED}client_id = \"c\"\nregister = true\n"), "has no effect beside");
    only_problem(&format!("{PINNED}client_metadata = \"http://x/y\"\n"), "https URL with a path");
}

#[test]
fn direct_needs_the_audience_and_takes_nothing_that_no_authorization_server_gets() {
    only_problem(&format!("{SERVER}exchange = \"direct\"\n"), "needs `subject_audience`");
    let direct = format!("{SERVER}exchange = \"direct\"\nsubject_audience = \"https://mcp.example.com/mcp\"\n");
    assert!(problems(&direct).is_empty());
    only_problem(&format!("{direct}scopes = [\"a\"]\n"), "nothing limits scopes");
    only_problem(&format!("{direct}issuer = \"https://as.example.com\"\n"), "no authorization server is asked");
    let known = "[servers.b]\nurl = \"https://other.example.com/mcp\"\nissuer = \"https://mcp.example.com/mcp\"\n";
    only_problem(&format!("{direct}{known}"), "is an authorization server");
}

#[test]
fn the_words_for_an_audience_stand_where_they_mean_one() {
    let grant = "exchange = \"jwt-bearer\"";
    let federated = "exchange = \"client-credentials\"\nclient_auth = \"workload\"";
    let by_key = "client_auth = \"private-key-jwt\"\nclient_id = \"c\"\nclient_key_file = \"/k\"";
    for good in [
        format!("{grant}\nsubject_audience = \"token_endpoint\""),
        "subject_audience = \"token_endpoint\"".to_owned(),
        format!("{by_key}\nassertion_audience = \"issuer\""),
        format!("{by_key}\nassertion_audience = \"token_endpoint\""),
        format!("{by_key}\nassertion_audience = \"https://as.example.com/token\""),
        format!("{federated}\nassertion_type = \"jwt-bearer\""),
        format!("{federated}\nassertion_type = \"urn:ietf:params:oauth:client-assertion-type:jwt-spiffe\""),
    ] {
        assert_eq!(problems(&format!("{PINNED}{good}\n")), Vec::<String>::new(), "{good}");
    }
    for (bad, what) in [
        (format!("{federated}\nsubject_audience = \"token_endpoint\""), "a word for \"jwt-bearer\" alone"),
        ("exchange = \"token-exchange\"\nsubject_audience = \"token_endpoint\"".to_owned(), "spell the audience out"),
        (
            format!("{federated}\nassertion_audience = \"issuer\""),
            "has no effect without `client_auth = \"private-key-jwt\"`",
        ),
        (
            format!("{by_key}\nassertion_audience = \"token-endpoint\""),
            "neither \"issuer\" nor \"token_endpoint\" nor a URL",
        ),
        (format!("{by_key}\nassertion_type = \"jwt-bearer\""), "has no effect without `client_auth = \"workload\"`"),
        (format!("{federated}\nassertion_type = \"saml2\""), "there are: jwt-bearer, jwt-spiffe"),
    ] {
        only_problem(&format!("{PINNED}{bad}\n"), what);
    }
    only_problem(&format!("{SERVER}subject_audience = \"token_endpoint\"\n"), "needs `issuer`");
}

#[test]
fn a_link_sends_what_its_exchange_takes() {
    let link = |more: &str| {
        format!(
            "[identities.sts]\nfrom = \"default\"\nissuer = \"https://sts.example.com\"\nexchange = \"token-exchange\"\n{more}\n"
        )
    };
    let good = "scopes = [\"openid\"]\nextra = { connector_id = \"ci\" }\nsubject_token_type = \"id_token\"\n\
        requested_token_type = \"urn:ietf:params:oauth:token-type:access_token\"";
    let config = Config::from_toml(&link(good), &env()).expect("fine");
    let parameters = &config.identities["sts"].links[0].parameters;
    assert_eq!(parameters.scopes.to_string(), "openid");
    assert_eq!(parameters.extra, [("connector_id".to_owned(), "ci".to_owned())]);
    only_problem(&link("extra = { subject_token = \"x\" }"), "set by the exchange itself");
    only_problem(&link("extra = { a = { identity = \"default\" } }"), "all values are texts");
    only_problem(&link("requested_token_type = \"saml2\""), "there are: jwt, id_token, access_token");
    only_problem(&link("subject_audience = \"token_endpoint\""), "spell the audience out");
    let idp = "idp = { issuer = \"https://idp.example.com\", scopes = [\"a\"] }";
    only_problem(&format!("{PINNED}exchange = \"id-jag\"\n{idp}\n"), "has no effect here");
    let key = |more: &str| {
        let text = format!("{SERVER}identity = \"sts\"\n{}", link(more));
        let config = Config::from_toml(&text, &env()).expect("fine");
        config.servers[0].key(&config.servers[0].policy.permit_for_all())
    };
    let all = [
        "",
        "scopes = [\"a\"]",
        "extra = { a = \"b\" }",
        "subject_token_type = \"id_token\"",
        "requested_token_type = \"id_token\"",
    ];
    assert_eq!(all.map(key).iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
}

#[test]
fn an_identity_provider_is_pinned_and_belongs_to_id_jag() {
    only_problem(&format!("{PINNED}exchange = \"id-jag\"\n"), "needs `idp`");
    only_problem(&format!("{PINNED}exchange = \"id-jag\"\nidp = {{ client_id = \"c\" }}\n"), "idp.issuer: missing");
    only_problem(&format!("{PINNED}exchange = \"id-jag\"\nidp = \"https://idp.example.com\"\n"), "must be a table");
    let good = "idp = { issuer = \"https://idp.example.com\", client_id = \"c\", client_auth = \"secret\", client_secret_env = \"S\", subject_token_type = \"id_token\" }";
    assert!(problems(&format!("{PINNED}exchange = \"id-jag\"\n{good}\n")).is_empty());
    only_problem(&format!("{PINNED}exchange = \"id-jag\"\n{}\n", good.replace("id_token", "saml")), "there are: jwt");
}

#[test]
fn a_chain_of_identities_ends_at_a_source() {
    let link = |name: &str, from: &str| {
        format!(
            "[identities.{name}]\nfrom = \"{from}\"\nexchange = \"token-exchange\"\nissuer = \"https://sts.example.com\"\n"
        )
    };
    let file = "[identities.file]\nsource = \"file\"\ntoken_file = \"/x\"\n";
    let config =
        Config::from_toml(&format!("{}{}{file}", link("two", "one"), link("one", "file")), &env()).expect("fine");
    let two = &config.identities["two"];
    assert_eq!(two.links.len(), 2);
    assert!(matches!(&two.choice, Choice::Named { source, .. } if source == "file"));
    assert!(problems(&link("one", "default")).is_empty());
    let circle = problems(&format!("{}{}", link("one", "two"), link("two", "one")));
    assert!(circle.iter().all(|problem| problem.contains("in a circle")) && !circle.is_empty(), "{circle:#?}");
    only_problem(&link("one", "nowhere"), "there is no identity \"nowhere\"");
    only_problem(&link("one", "one"), "in a circle");
    only_problem(&link("one", "default").replace("token-exchange", "saml"), "does not change an identity");
    only_problem(&format!("{SERVER}identity = \"nowhere\"\n"), "there is no identity");
    only_problem(&format!("{}source = \"file\"\ntoken_file = \"/x\"\n", link("one", "default")), "one root");
}

#[test]
fn what_an_identity_is_belongs_to_the_key_of_its_tokens() {
    let key = |settings: &str| {
        let text = format!("{SERVER}identity = \"one\"\n[identities.one]\n{settings}\n");
        let config = Config::from_toml(&text, &env()).expect("fine");
        let server = &config.servers[0];
        server.key(&server.policy.permit_for_all())
    };
    let link = "from = \"default\"\nexchange = \"token-exchange\"\nissuer = \"https://sts.example.com\"";
    let keys = [
        key("source = \"file\"\ntoken_file = \"/x\""),
        key("source = \"file\"\ntoken_file = \"/y\""),
        key(link),
        key(&link.replace("sts", "sts2")),
        key(&format!("{link}\nsubject_audience = \"a\"")),
        key(&format!("{link}\nclient_id = \"a\"")),
    ];
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
    assert_eq!(key(link), key(link));
}

#[test]
fn a_proxy_may_hold_a_password_and_is_not_shown() {
    assert!(problems("[egress]\nproxy = \"http://proxy.example.com:3128\"\n").is_empty());
    only_problem("[egress]\nproxy = \"SECRET@nowhere\"\n", "not an");
    let config = Config::from_toml("[egress]\nproxy = \"http://u:SECRET@proxy.example.com\"\n", &env()).expect("fine");
    assert!(!format!("{config:?}").contains("SECRET"));
}

#[test]
fn listeners_are_read_with_all_that_contradicts_itself() {
    let config = Config::from_toml(
        "[listen]\nhttp = \"localhost:7878\"\nhealth = \"[::]:9464\"\nlinger = \"2m\"\nunlisted = true\n",
        &env(),
    );
    let listen = config.expect("a good one").listen;
    assert_eq!(listen.http, ["127.0.0.1:7878", "[::1]:7878"].map(|text| text.parse().expect("an address")));
    assert_eq!((listen.linger, listen.unlisted), (Duration::from_secs(120), true));
    assert_eq!(listen.health, ["[::]:9464".parse().expect("an address")]);
    only_problem(
        "[listen]\nhttp = \"127.0.0.2:1\"\n",
        "line 2: listen.http: \"127.0.0.2:1\" is another loopback address",
    );
    only_problem("[listen]\nhttp = \"0.0.0.0:7878\"\n", "line 2: listen.http: \"0.0.0.0:7878\" is not loopback");
    only_problem("[listen]\nhealth = \"9464\"\n", "line 2: listen.health: \"9464\" is not an address with a port");
    only_problem("[listen]\nhttp = \"[::1]:1\"\nhealth = \"[::1]:1\"\n", "line 3: listen.health: ");
    only_problem("[listen]\nlinger = \"10 s\"\n", "must be a number with s, m or h, for example `linger = \"0s\"`");
    only_problem("[listen]\nlinger = 10\n", "must be a number with s, m or h");
    only_problem("[listen]\nlinger = \"2h\"\n", "more than an hour");
    let called_so = "[servers.unlisted]\nurl = \"https://mcp.example.com/mcp\"\n";
    assert!(problems(called_so).is_empty());
    only_problem(&format!("{called_so}[listen]\nunlisted = true\n"), "servers.unlisted: ");
}

#[test]
fn a_rate_is_a_number_of_times_in_a_span() {
    let read = |line: &str| Config::from_toml(&format!("{SERVER}{line}\n"), &env()).expect(line);
    assert_eq!(read("rate = \"100/m\"").servers[0].rate.map(|rate| rate.to_string()).as_deref(), Some("100/m"));
    assert!(read("revoke_on_exit = true").servers[0].revoke_on_exit && !read("").servers[0].revoke_on_exit);
    for bad in ["\"20\"", "\"0/s\"", "\"20/d\"", "20"] {
        only_problem(&format!("{SERVER}rate = {bad}\n"), "for example `rate = \"20/s\"`");
    }
}

#[test]
fn the_probe_is_for_an_identity_that_is_not_named() {
    let config = Config::from_toml("[identity]\nprobe = true\n", &env()).expect("a good configuration");
    assert_eq!(config.identity(), &Choice::Probe);
    only_problem("[identity]\nprobe = true\nsource = \"github-actions\"\n", "has no effect beside");
}

#[test]
fn entra_wants_one_target_and_an_application_unless_the_identity_is_managed() {
    const ENTRA: &str = "exchange = \"entra\"\ntenant = \"contoso.example\"\n";
    const ONE: &str = "scopes = [\"api://mcp/.default\"]\n";
    let server = |more: &str| format!("{SERVER}{ENTRA}{more}");
    assert_eq!(problems(&server(&format!("{ONE}client_id = \"app\"\n"))), Vec::<String>::new());
    assert_eq!(problems(&server(ONE)), Vec::<String>::new(), "it may be detected");
    for scopes in [
        "",
        "scopes = []\n",
        "scopes = [\"api://mcp/read\"]\n",
        "scopes = [\"/.default\"]\n",
        "scopes = [\"a/.default\", \"b/.default\"]\n",
    ] {
        only_problem(
            &server(&format!("{scopes}client_id = \"app\"\n")),
            "servers.a.scopes: \"entra\" needs exactly one scope",
        );
    }
    only_problem(&format!("{SERVER}exchange = \"entra\"\n{ONE}client_id = \"app\"\n"), "servers.a.tenant: missing");
    only_problem(
        &server(&format!("{ONE}client_id = \"app\"\ncloud = \"moon\"\n")),
        "servers.a.cloud: is not known; there are: public",
    );
    only_problem(&server(&format!("{ONE}agent_identity = \"agent\"\n")), "servers.a.client_id: missing");
    only_problem(
        &server(&format!("{ONE}client_id = \"app\"\nclient_auth = \"private-key-jwt\"\nclient_key_file = \"/k\"\n")),
        "servers.a.client_auth: Entra takes",
    );
    only_problem(
        &server(&format!("{ONE}client_id = \"app\"\nendpoint = \"https://login.example.com\"\n")),
        "servers.a.endpoint: has no effect without `exchange` = \"aws-role\" or \"aws-sigv4\"",
    );
    only_problem(&server(&format!("{ONE}[identity]\nsource = \"github-actions\"\n")), "servers.a.client_id: missing");
    let link = "[identities.app]\nfrom = \"default\"\nexchange = \"entra\"\ntenant = \"t\"\nclient_id = \"app\"\n";
    assert_eq!(problems(link), Vec::<String>::new());
    only_problem(&link.replace("client_id = \"app\"\n", ""), "identities.app.client_id: missing");
    only_problem(&format!("{}{link}", server(&format!("{ONE}identity = \"app\"\n"))), "which is a chain");
}

#[test]
fn a_managed_identity_is_named_in_one_way() {
    for table in ["identity", "identities.machine"] {
        let named = |keys: &str| format!("[{table}]\nsource = \"azure\"\n{keys}");
        for one in ["", "client_id = \"a\"\n", "object_id = \"a\"\n", "resource_id = \"/subscriptions/a\"\n"] {
            assert_eq!(problems(&named(one)), Vec::<String>::new(), "{one}");
        }
        only_problem(&named("client_id = \"a\"\nobject_id = \"b\"\n"), "`client_id` is there as well");
    }
    let schema = schema();
    let rows = schema["properties"]["identity"]["allOf"].as_array().expect("a row for each source");
    let azure = rows.iter().find(|row| row["if"]["properties"]["source"]["const"] == "azure").expect("one of them");
    let pairs = azure["then"]["not"]["anyOf"].as_array().expect("pairs that exclude each other");
    assert_eq!(pairs.len(), 3, "{azure:#}");
}

#[test]
fn a_front_door_takes_any_exchange_that_gives_a_token() {
    let outer = |keys: &str| format!("{PINNED}[servers.a.outer]\n{keys}\n");
    for keys in [
        "exchange = \"jwt-bearer\"\nissuer = \"https://gateway.example.com\"\nheader = \"X-Gateway-Authorization\"",
        "exchange = \"token-exchange\"\nissuer = \"https://gateway.example.com\"\naudience = \"gateway\"",
        "exchange = \"direct\"\nsubject_audience = \"https://gateway.example.com\"",
        "exchange = \"gcp\"\naudience = \"client\"",
        "exchange = \"entra\"\ntenant = \"t\"\nclient_id = \"app\"\nscopes = [\"api://gateway/.default\"]",
    ] {
        assert_eq!(problems(&outer(keys)), Vec::<String>::new(), "{keys}");
    }
    only_problem(&outer("exchange = \"jwt-bearer\""), "servers.a.outer.issuer: missing");
    only_problem(&outer("audience = \"x\""), "servers.a.outer.exchange: missing");
    only_problem(
        &outer("exchange = \"aws-sigv4\"\nregion = \"eu-central-1\"\nservice = \"execute-api\""),
        "servers.a.outer.exchange: signs whole requests",
    );
    let named = "exchange = \"jwt-bearer\"\nissuer = \"https://gateway.example.com\"\nheader = ";
    for field in
        ["authorization", "Host", "DPoP", "Cookie", "Mcp-Session-Id", "Transfer-Encoding", "Content-Length", "a b", ""]
    {
        only_problem(&outer(&format!("{named}\"{field}\"")), "servers.a.outer.header: must be a field");
    }
}
