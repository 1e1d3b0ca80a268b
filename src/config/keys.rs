//! All configuration keys. The reader, the JSON Schema and the starter file use these tables. The own keys of an
//! identity source or an exchange are declared in its row instead. serde is not used for the check: it stops at its first error.
//!
//! Keys of later versions are listed too, so that they are refused with a clear message. They must not be ignored: an
//! operator who writes `dpop` relies on its effect.

/// One table of the file.
pub(super) struct Table {
    /// The name in the file; `NAME` stands for a name that the operator chooses.
    pub(super) name: &'static str,
    /// Its description.
    pub(super) doc: &'static str,
    pub(super) keys: &'static [Key],
}

/// A configuration key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// An example value in TOML.
    pub(super) example: &'static str,
    pub(super) doc: &'static str,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Texts,
    Flag,
    /// `extra`: a table whose values are strings, or identities whose token is the value.
    Parameters,
    /// `allow`: a list of tables with the keys of [`RULE`].
    Rules,
    /// `idp`: one table with the keys of [`IDP`].
    Provider,
    /// `outer`: one table with the keys of [`OUTER`].
    FrontDoor,
    Number,
    /// A duration: `"10s"`.
    Span,
    /// A number per time unit: `"20/s"`.
    Rate,
    /// Not supported in this version.
    Later,
}

const fn key(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, example, doc }
}

const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Kind::Later, example: "", doc }
}

pub(super) const IDENTITY: Table = Table {
    name: "identity",
    doc: "Who this workload is. Omit the table: it is detected.",
    keys: &[
        key(
            "source",
            Kind::Text,
            "\"github-actions\"",
            "A row of the table of identity sources; its own keys stand beside it.",
        ),
        key(
            "probe",
            Kind::Flag,
            "false",
            "Where nothing narrower is here, the machine's own identity: by DMI, else by one question to the metadata address.",
        ),
    ],
};

pub(super) const SERVER: Table = Table {
    name: "servers.NAME",
    doc: "One MCP server.",
    keys: &[
        key("url", Kind::Text, "\"https://mcp.example.com/mcp\"", "The MCP endpoint."),
        key(
            "issuer",
            Kind::Text,
            "\"https://login.example.com/tenant1\"",
            "Pin the authorization server. Omit: discover it.",
        ),
        key(
            "trust_discovered_issuer",
            Kind::Flag,
            "false",
            "Use tokens of a merely discovered issuer even if they are not bound to this server.",
        ),
        key("scopes", Kind::Texts, "[\"deploy:read\"]", "The ceiling for everybody. Omit: no ceiling."),
        key(
            "tolerate_scopes",
            Kind::Texts,
            "[\"profile\"]",
            "Granted beyond the ceiling without refusing; never asked for.",
        ),
        key(
            "exchange",
            Kind::Text,
            "\"jwt-bearer\"",
            "A row of the table of exchanges. Omit: chosen from the server's metadata.",
        ),
        key(
            "client_auth",
            Kind::Text,
            "\"none\"",
            "How the OAuth client proves itself: \"none\", \"workload\" (the identity token is its assertion), \"private-key-jwt\", \"mtls\", or, last, \"secret\". Needs `issuer`.",
        ),
        CLIENT_METADATA,
        REGISTER,
        SECRET_FILE,
        SECRET_ENV,
        SECRET_METHOD,
        KEY_FILE,
        KEY_ID,
        CERT_FILE,
        ASSERTION_AUDIENCE,
        ASSERTION_TYPE,
        key(
            "token_endpoint",
            Kind::Text,
            "\"https://login.example.com/token\"",
            "The token endpoint of a server that publishes no metadata. Needs `issuer`.",
        ),
        key(
            "idp",
            Kind::Provider,
            "{ issuer = \"https://idp.example.com\" }",
            "The identity provider of `exchange = \"id-jag\"`.",
        ),
        key("identity", Kind::Text, "\"ci\"", "An identity of [identities]. Omit: the default one."),
        key("dpop", Kind::Flag, "true", "Bind tokens to a key (RFC 9449). Omit: when the server requires it."),
        key(
            "client_id",
            Kind::Text,
            "\"agent\"",
            "The OAuth client identifier, where a server wants one. Needs `issuer`.",
        ),
        key(
            "subject_audience",
            Kind::Text,
            "\"api://example\"",
            "The audience of the identity token; \"token_endpoint\" is that of the server, for \"jwt-bearer\". Omit: the issuer. Needs `issuer`.",
        ),
        key(
            "audience",
            Kind::Text,
            "\"mcp-gateway\"",
            "The audience parameter of the token request (RFC 8693, Auth0, Google). Needs `issuer`.",
        ),
        key(
            "resource",
            Kind::Text,
            "\"https://mcp.example.com/mcp\"",
            "The resource parameter (RFC 8707). Omit: from the server's metadata. \"\": do not send it.",
        ),
        key(
            "extra",
            Kind::Parameters,
            "{ tenant = \"blue\" }",
            "Further form parameters of the token request. `{ identity = \"NAME\" }` as a value is a token of that identity, made for the issuer. Needs `issuer`.",
        ),
        key(
            "allow",
            Kind::Rules,
            "[{ uid = 1000 }]",
            "Who may have tokens, by uid, gid, exe, sha256, unit; scopes for a ceiling of its own. Omit: the daemon's own user.",
        ),
        key("required", Kind::Flag, "true", "Readiness waits for it, and its token is kept fresh at all times."),
        later("tools", "Which tools may be called through bridge and proxy."),
        later("bare_token", "Hand out bare tokens in spite of tool rules."),
        key("revoke_on_exit", Kind::Flag, "false", "Revoke at shutdown what is held for it (RFC 7009)."),
        key("rate", Kind::Rate, "\"20/s\"", "How often each calling user may ask for it. Omit: as often as it likes."),
        key(
            "outer",
            Kind::FrontDoor,
            "{ exchange = \"gcp\", audience = \"123-abc.apps.googleusercontent.com\" }",
            "A second credential, for a front door before the server. Needs `issuer`; what the server publishes behind it is not read, so `scopes`, `resource` and `dpop` are as written here.",
        ),
    ],
};

pub(super) const OUTER: Table = Table {
    name: "servers.NAME.outer",
    doc: "A second credential, for the front door before the server.",
    keys: &[
        key("exchange", Kind::Text, "\"gcp\"", "How it is made: a row of the table of exchanges."),
        key("issuer", Kind::Text, "\"https://gateway.example.com\"", "The authorization server of the front door."),
        key(
            "token_endpoint",
            Kind::Text,
            "\"https://gateway.example.com/token\"",
            "Its token endpoint, if it publishes no metadata.",
        ),
        key(
            "audience",
            Kind::Text,
            "\"123-abc.apps.googleusercontent.com\"",
            "For whom: with \"gcp\" the OAuth client's id (Identity-Aware Proxy) or the service's URL (Cloud Run).",
        ),
        key(
            "header",
            Kind::Text,
            "\"X-Serverless-Authorization\"",
            "The field that it goes into. Omit: Proxy-Authorization.",
        ),
        key("identity", Kind::Text, "\"google\"", "An identity of [identities]. Omit: the default one."),
        key("scopes", Kind::Texts, "[\"gateway\"]", "What is asked for there, and the ceiling."),
        key(
            "subject_audience",
            Kind::Text,
            "\"api://gateway\"",
            "The audience of the identity token. Omit: the issuer.",
        ),
        key(
            "resource",
            Kind::Text,
            "\"https://gateway.example.com\"",
            "The resource parameter (RFC 8707). Omit: it is not sent.",
        ),
        key(
            "extra",
            Kind::Parameters,
            "{ tenant = \"blue\" }",
            "Further form parameters of the token request; a value may be `{ identity = \"NAME\" }`.",
        ),
        key(
            "idp",
            Kind::Provider,
            "{ issuer = \"https://idp.example.com\" }",
            "The identity provider of `exchange = \"id-jag\"`.",
        ),
        key("client_id", Kind::Text, "\"agent\"", "The OAuth client that we are there."),
        key("client_auth", Kind::Text, "\"workload\"", "How that client proves itself."),
        SECRET_FILE,
        SECRET_ENV,
        SECRET_METHOD,
        KEY_FILE,
        KEY_ID,
        CERT_FILE,
        ASSERTION_AUDIENCE,
        ASSERTION_TYPE,
    ],
};

pub(super) const RULE: Table = Table {
    name: "servers.NAME.allow",
    doc: "One entry: all its keys must match.",
    keys: &[
        key("uid", Kind::Number, "1000", "The caller's effective user."),
        key(
            "gid",
            Kind::Number,
            "2000",
            "The caller's effective group; a group that it is only a further member of does not count.",
        ),
        key("scopes", Kind::Texts, "[\"deploy:read\"]", "The ceiling for callers that match."),
        key(
            "exe",
            Kind::Text,
            "\"/usr/bin/agent\"",
            "The file that the connecting process runs (never a parent's). Without `sha256` only in the daemon's mount namespace.",
        ),
        key(
            "sha256",
            Kind::Text,
            "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
            "The digest of the file that runs, as sha256sum prints it. Without `exe`: wherever it stands.",
        ),
        key(
            "unit",
            Kind::Text,
            "\"agent.service\"",
            "The systemd unit of the connecting process: the system's, or one of the user `uid` (omitted: the daemon's own user).",
        ),
    ],
};

pub(super) const LISTEN: Table = Table {
    name: "listen",
    doc: "Where the daemon listens.",
    keys: &[
        key(
            "socket",
            Kind::Text,
            "\"/run/safeconduct/safeconduct.sock\"",
            "The Unix socket. Omit: a directory of our own in the user's runtime directory.",
        ),
        key("socket_mode", Kind::Text, "\"0600\"", "0600, or 0660 together with `socket_group`."),
        key(
            "socket_group",
            Kind::Text,
            "\"agents\"",
            "The group, by name or number, that may connect under mode 0660.",
        ),
        key(
            "http",
            Kind::Text,
            "\"127.0.0.1:7878\"",
            "The same API on loopback TCP. Callers need the secret in `http.secret` beside the socket.",
        ),
        key(
            "http_owner",
            Kind::Flag,
            "true",
            "On `http` the proxy also serves whoever `allow` names by `uid`, as the owner of the connecting socket.",
        ),
        key(
            "oauth_token",
            Kind::Flag,
            "false",
            "On `http`: /oauth/token for clients that speak OAuth only. Their secrets are in `oauth/` beside the socket.",
        ),
        key(
            "health",
            Kind::Text,
            "\"0.0.0.0:9464\"",
            "A listener for /healthz, /readyz and /metrics alone, which names no server.",
        ),
        key(
            "unlisted",
            Kind::Flag,
            "false",
            "Serve URLs that are not configured to the daemon's own user, all discovered.",
        ),
        key("linger", Kind::Span, "\"0s\"", "Keep serving after SIGTERM, while the agent drains."),
    ],
};

pub(super) const EGRESS: Table = Table {
    name: "egress",
    doc: "Where we may connect to.",
    keys: &[
        key(
            "allow",
            Kind::Texts,
            "[\"login.example.com\", \"10.1.0.0/16\"]",
            "Given: only these hosts and networks, and for each server what is configured for it. Omitted: any public https host.",
        ),
        key(
            "issuers",
            Kind::Texts,
            "[\"https://login.example.com/tenant1\"]",
            "Given: without a pin only these get an identity token.",
        ),
        key("ca_file", Kind::Text, "\"/etc/ssl/our-ca.pem\"", "Further roots, as PEM."),
        key("insecure_loopback", Kind::Flag, "false", "Plain http and loopback addresses are fine: development."),
        key(
            "proxy",
            Kind::Text,
            "\"http://proxy.example.com:3128\"",
            "A forward proxy for named hosts. Omit: HTTPS_PROXY, else ALL_PROXY. NO_PROXY names what does not go through it.",
        ),
    ],
};

pub(super) const AUDIT: Table = Table {
    name: "audit",
    doc: "A record of every decision, served or refused. What cannot be recorded is not served.",
    keys: &[key(
        "file",
        Kind::Text,
        "\"/var/log/safeconduct/audit.jsonl\"",
        "One hash-chained line of JSON for each. In a directory that only we or root can write.",
    )],
};

pub(super) const KEYRING: Table = Table {
    name: "keyring",
    doc: "What survives a restart: registered clients and own keys, never tokens.",
    keys: &[key("enabled", Kind::Flag, "false", "Keep them in the platform's keyring.")],
};

const CLIENT_METADATA: Key = key(
    "client_metadata",
    Kind::Text,
    "\"https://agent.example.com/client.json\"",
    "The URL of the client's metadata document, its identifier where the server takes that. Needs `issuer`.",
);
const REGISTER: Key =
    key("register", Kind::Flag, "false", "Register a client where there is no identifier (RFC 7591). Needs `issuer`.");
const SECRET_FILE: Key =
    key("client_secret_file", Kind::Text, "\"/run/secrets/client\"", "The file with the client's secret.");
const SECRET_ENV: Key =
    key("client_secret_env", Kind::Text, "\"CLIENT_SECRET\"", "The variable with the client's secret.");
const SECRET_METHOD: Key = key(
    "client_secret_method",
    Kind::Text,
    "\"basic\"",
    "Where the secret goes: \"basic\" or \"post\". Omit: as the server's metadata says.",
);
const KEY_FILE: Key = key(
    "client_key_file",
    Kind::Text,
    "\"/run/secrets/client.pem\"",
    "The client's private key, for \"private-key-jwt\" and \"mtls\".",
);
const KEY_ID: Key = key("client_key_id", Kind::Text, "\"key-1\"", "The name of that key at the server (`kid`).");
const CERT_FILE: Key = key(
    "client_cert_file",
    Kind::Text,
    "\"/run/secrets/client.crt\"",
    "The client's certificate with its chain, for \"mtls\". Omit: the workload's X.509-SVID.",
);

const ASSERTION_AUDIENCE: Key = key(
    "assertion_audience",
    Kind::Text,
    "\"issuer\"",
    "For whom the client's key signs its assertions: \"issuer\", \"token_endpoint\" or a URL.",
);
const ASSERTION_TYPE: Key = key(
    "assertion_type",
    Kind::Text,
    "\"jwt-bearer\"",
    "How the identity token is called as the client's assertion: \"jwt-bearer\" or \"jwt-spiffe\". Omit: by what it is.",
);

/// The keys of `idp` and of a link in `[identities]`.
const LINK: [Key; 16] = [
    key("issuer", Kind::Text, "\"https://idp.example.com\"", "Who changes the identity."),
    key(
        "token_endpoint",
        Kind::Text,
        "\"https://idp.example.com/token\"",
        "Its endpoint, if it publishes no metadata.",
    ),
    key("client_id", Kind::Text, "\"agent\"", "The OAuth client that we are there."),
    key("client_auth", Kind::Text, "\"workload\"", "How that client proves itself."),
    SECRET_FILE,
    SECRET_ENV,
    SECRET_METHOD,
    KEY_FILE,
    KEY_ID,
    CERT_FILE,
    ASSERTION_AUDIENCE,
    ASSERTION_TYPE,
    key("subject_audience", Kind::Text, "\"api://idp\"", "The audience of what goes in. Omit: the issuer."),
    key("scopes", Kind::Texts, "[\"openid\"]", "What is asked for there, for \"token-exchange\"."),
    key(
        "extra",
        Kind::Parameters,
        "{ connector_id = \"ci\" }",
        "Further form parameters of the request, all of them texts, for \"token-exchange\".",
    ),
    key("exchange", Kind::Text, "\"token-exchange\"", "How it is changed."),
];

pub(super) const IDP: Table =
    Table { name: "servers.NAME.idp", doc: "The identity provider of \"id-jag\".", keys: &LINK };

/// The keys of `[identities.NAME]`: `source`, `from`, then all of a link.
const IDENTITY_KEYS: [Key; 2 + LINK.len()] = {
    let source = key("source", Kind::Text, "\"github-actions\"", "As in [identity]; its own keys stand beside it.");
    let mut keys = [source; 2 + LINK.len()];
    keys[1] = key("from", Kind::Text, "\"default\"", "The identity that is changed into this one.");
    let mut at = 0;
    while at < LINK.len() {
        keys[2 + at] = LINK[at];
        at += 1;
    }
    keys
};

pub(super) const IDENTITIES: Table = Table {
    name: "identities.NAME",
    doc: "A further identity: a `source` of its own, or a link `from` another one.",
    keys: &IDENTITY_KEYS,
};

pub(super) const TABLES: &[&Table] =
    &[&IDENTITY, &IDENTITIES, &SERVER, &IDP, &OUTER, &RULE, &LISTEN, &EGRESS, &AUDIT, &KEYRING];
