//! The requirements: one row each, with the party that must meet it and the section that states it.
//!
//! Codes are stable, because scripts read them. `MCP` is the authorization chapter of the Model Context Protocol. The
//! revisions 2026-07-28 and 2025-11-25 are both named where they say the same under the same heading.

use super::Party;
use super::check::Rule;

const SERVER: &str = "MCP server";
const CHALLENGE: &str = "challenge";
const RESOURCE: &str = "resource metadata";
const ISSUER: &str = "server metadata";
const IDENTITY: &str = "identity";
const EXCHANGE: &str = "exchange";
const FEDERATION: &str = "identity federation";
const USE: &str = "use of the token";

macro_rules! both {
    ($heading:literal, $more:literal) => {
        concat!("MCP 2026-07-28 and 2025-11-25, Authorization: ", $heading, "; ", $more)
    };
}

macro_rules! discovery {
    ($heading:literal, $more:literal) => {
        concat!(
            "MCP 2026-07-28, Authorization Server Discovery, and 2025-11-25, Authorization: ",
            $heading,
            "; ",
            $more
        )
    };
}

macro_rules! security {
    ($heading:literal, $more:literal) => {
        concat!(
            "MCP 2026-07-28, Authorization Security Considerations, and 2025-11-25, Authorization: ",
            $heading,
            "; ",
            $more
        )
    };
}

use Party::{AuthorizationServer, McpServer, Platform, Workload};

pub(super) const MCP_HTTPS: Rule =
    Rule::new(SERVER, "mcp-https", McpServer, security!("Communication Security", "RFC 6750 section 5.3"));
pub(super) const MCP_REACHABLE: Rule =
    Rule::new(SERVER, "mcp-reachable", McpServer, "MCP 2026-07-28 and 2025-11-25, Transports: Streamable HTTP");
pub(super) const MCP_NO_REDIRECT: Rule =
    Rule::new(SERVER, "mcp-no-redirect", McpServer, both!("Error Handling", "RFC 9110 section 15.5.2"));

pub(super) const FRONT_DOOR: Rule =
    Rule::new(SERVER, "front-door", Platform, "Google Cloud, Programmatic authentication (Identity-Aware Proxy)");

pub(super) const CHALLENGE_STATUS: Rule =
    Rule::new(CHALLENGE, "challenge-status", McpServer, both!("Error Handling", "RFC 6750 section 3.1"));
pub(super) const CHALLENGE_HEADER: Rule =
    Rule::new(CHALLENGE, "challenge-header", McpServer, "RFC 9110 section 15.5.2; RFC 6750 section 3");
pub(super) const CHALLENGE_SCHEME: Rule =
    Rule::new(CHALLENGE, "challenge-scheme", McpServer, "RFC 6750 section 3; RFC 9449 section 7.1");
pub(super) const CHALLENGE_METADATA: Rule = Rule::new(
    CHALLENGE,
    "challenge-resource-metadata",
    McpServer,
    discovery!("Protected Resource Metadata Discovery Requirements", "RFC 9728 section 5.1"),
);

pub(super) const RESOURCE_METADATA: Rule = Rule::new(
    RESOURCE,
    "resource-metadata",
    McpServer,
    discovery!("Protected Resource Metadata Discovery Requirements", "RFC 9728 section 3"),
);
pub(super) const RESOURCE_DOCUMENT: Rule =
    Rule::new(RESOURCE, "resource-metadata-document", McpServer, "RFC 9728 section 3.2");
pub(super) const RESOURCE_PLACES: Rule =
    Rule::new(RESOURCE, "resource-metadata-places", McpServer, "RFC 9728 section 3.1");
pub(super) const RESOURCE_IDENTIFIER: Rule = Rule::new(
    RESOURCE,
    "resource-identifier",
    McpServer,
    "RFC 9728 section 3.3; MCP 2026-07-28 and 2025-11-25, Authorization: Canonical Server URI",
);
pub(super) const AUTHORIZATION_SERVERS: Rule = Rule::new(
    RESOURCE,
    "authorization-servers",
    McpServer,
    discovery!("Authorization Server Location", "RFC 9728 section 2"),
);
pub(super) const ISSUER_CHOSEN: Rule = Rule::new(RESOURCE, "issuer-chosen", McpServer, "RFC 9728 section 7.6");
pub(super) const SCOPES_PUBLISHED: Rule =
    Rule::new(RESOURCE, "scopes-published", McpServer, both!("Scope Selection Strategy", "RFC 6750 section 3"));
pub(super) const BEARER_METHODS: Rule = Rule::new(
    RESOURCE,
    "bearer-methods",
    McpServer,
    both!("Access Token Usage, Token Requirements", "RFC 9728 section 2"),
);

pub(super) const SERVER_METADATA: Rule = Rule::new(
    ISSUER,
    "server-metadata",
    AuthorizationServer,
    discovery!("Authorization Server Metadata Discovery", "RFC 8414 sections 3.1 and 5"),
);
pub(super) const SERVER_DOCUMENT: Rule =
    Rule::new(ISSUER, "server-metadata-document", AuthorizationServer, "RFC 8414 section 3.2");
pub(super) const SERVER_PLACES: Rule =
    Rule::new(ISSUER, "server-metadata-places", AuthorizationServer, "RFC 8414 section 5");
pub(super) const SERVER_ISSUER: Rule = Rule::new(
    ISSUER,
    "server-issuer",
    AuthorizationServer,
    discovery!("Authorization Server Metadata Discovery", "RFC 8414 section 3.3"),
);
pub(super) const TOKEN_ENDPOINT: Rule = Rule::new(
    ISSUER,
    "token-endpoint",
    AuthorizationServer,
    security!("Communication Security", "RFC 8414 section 2; RFC 6749 section 3.2"),
);
pub(super) const GRANT_TYPES: Rule = Rule::new(
    ISSUER,
    "grant-types",
    AuthorizationServer,
    "RFC 8414 section 2; RFC 7523 section 2.1; MCP workload identity federation (SEP-1933)",
);
pub(super) const AUTH_METHODS: Rule =
    Rule::new(ISSUER, "client-auth-methods", AuthorizationServer, "RFC 8414 section 2; RFC 7523 section 2.2");
pub(super) const DPOP_ALGORITHMS: Rule =
    Rule::new(ISSUER, "dpop-algorithms", AuthorizationServer, "RFC 9449 section 5.1; RFC 9728 section 2");
pub(super) const REVOCATION: Rule =
    Rule::new(ISSUER, "revocation-endpoint", AuthorizationServer, "RFC 8414 section 2; RFC 7009 section 2");

pub(super) const IDENTITY_FOUND: Rule =
    Rule::new(IDENTITY, "identity-found", Workload, "RFC 7521 section 4.1: an assertion is needed");
pub(super) const SUBJECT_TOKEN: Rule = Rule::new(IDENTITY, "subject-token", Platform, "RFC 7521 section 4.1");
pub(super) const SUBJECT_AUDIENCE: Rule = Rule::new(
    IDENTITY,
    "subject-audience",
    Platform,
    "RFC 7523 section 3 item 3; MCP workload identity federation (SEP-1933)",
);
pub(super) const SUBJECT_EXPIRY: Rule = Rule::new(IDENTITY, "subject-expiry", Platform, "RFC 7523 section 3 item 4");
pub(super) const SUBJECT_JTI: Rule = Rule::new(
    IDENTITY,
    "subject-jti",
    Platform,
    "RFC 7523 section 3 item 7; MCP workload identity federation (SEP-1933)",
);
pub(super) const CLOCKS: Rule =
    Rule::new(IDENTITY, "clocks", Party::Machine, "RFC 7523 section 3 items 4 to 6; RFC 7519 section 4.1.4");

pub(super) const TOKEN_ISSUED: Rule = Rule::new(
    EXCHANGE,
    "token-issued",
    AuthorizationServer,
    "RFC 6749 sections 5.1 and 5.2; RFC 7523 sections 2.1 and 3.1",
);
pub(super) const TOKEN_BOUND: Rule = Rule::new(
    EXCHANGE,
    "token-bound-to-resource",
    AuthorizationServer,
    "RFC 8707 section 2; RFC 9068 section 3; MCP 2026-07-28 and 2025-11-25, Authorization: Resource Parameter \
     Implementation, Token Audience Binding and Validation",
);
pub(super) const TOKEN_LIFETIME: Rule = Rule::new(
    EXCHANGE,
    "token-lifetime",
    AuthorizationServer,
    security!("Token Theft", "RFC 6749 section 5.1 (expires_in)"),
);
pub(super) const TOKEN_SCOPE: Rule =
    Rule::new(EXCHANGE, "token-scope", AuthorizationServer, "RFC 6749 sections 3.3 and 5.1");

pub(super) const TOKEN_ACCEPTED: Rule =
    Rule::new(USE, "token-accepted", McpServer, both!("Access Token Usage, Token Handling", "RFC 6750 section 2.1"));
pub(super) const EVERY_REQUEST: Rule = Rule::new(
    USE,
    "authorization-on-every-request",
    McpServer,
    both!("Access Token Usage, Token Requirements", "RFC 6750 section 3.1"),
);
pub(super) const GARBAGE_REFUSED: Rule = Rule::new(
    USE,
    "garbage-refused",
    McpServer,
    both!("Access Token Usage, Token Handling", "RFC 6750 section 3.1 (invalid_token)"),
);
pub(super) const TAMPERED_REFUSED: Rule = Rule::new(
    USE,
    "tampered-refused",
    McpServer,
    both!("Access Token Usage, Token Handling", "RFC 9068 section 4; RFC 7519 section 7.2"),
);
pub(super) const QUERY_REFUSED: Rule = Rule::new(
    USE,
    "query-token-refused",
    McpServer,
    both!("Access Token Usage, Token Requirements", "RFC 9700 section 4.3.2"),
);
pub(super) const EXPIRED_REFUSED: Rule = Rule::new(
    USE,
    "expired-refused",
    McpServer,
    both!("Access Token Usage, Token Handling", "RFC 7519 section 4.1.4; RFC 9068 section 4"),
);
pub(super) const AUDIENCE_REFUSED: Rule = Rule::new(
    USE,
    "wrong-audience-refused",
    McpServer,
    security!("Token Audience Binding and Validation, Access Token Privilege Restriction", "RFC 8707 section 2"),
);
const OF_THE_DRAFT: &str = "RFC 7523 section 3 item 3; MCP workload identity federation (SEP-1933)";
pub(super) const ASSERTION_AUDIENCE: Rule =
    Rule::new(FEDERATION, "assertion-audience", AuthorizationServer, OF_THE_DRAFT);
pub(super) const ASSERTION_AGE: Rule =
    Rule::new(FEDERATION, "assertion-age", AuthorizationServer, "RFC 7523 section 3 items 4 and 6");
pub(super) const ASSERTION_ONCE: Rule =
    Rule::new(FEDERATION, "assertion-single-use", AuthorizationServer, "RFC 7523 section 3 item 7");
pub(super) const ASSERTION_TYP: Rule =
    Rule::new(FEDERATION, "assertion-typ", AuthorizationServer, "RFC 7519 section 5.1; RFC 8725 section 3.11");
pub(super) const RESOURCE_PARAMETER: Rule =
    Rule::new(FEDERATION, "resource-parameter", AuthorizationServer, "RFC 8707 section 2");
pub(super) const TOKEN_OUTLIVES: Rule = Rule::new(
    FEDERATION,
    "token-outlives-identity",
    AuthorizationServer,
    "MCP workload identity federation (SEP-1933): short lifetimes",
);
/// The rows of every report that ends in time, measured or not.
pub(super) const FEDERATION_ROWS: [Rule; 6] =
    [ASSERTION_AUDIENCE, ASSERTION_AGE, ASSERTION_ONCE, ASSERTION_TYP, RESOURCE_PARAMETER, TOKEN_OUTLIVES];
pub(super) const TOKENS_REVOKED: Rule =
    Rule::new(FEDERATION, "tokens-revoked", AuthorizationServer, "RFC 7009 section 2");
pub(super) const IN_TIME: Rule = Rule::new(USE, "in-time", Party::Machine, "`--timeout` of this command");
