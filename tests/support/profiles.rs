//! Makes [`FakeAs`](super::authorization_server::FakeAs) behave like the authorization servers of several vendors.
//!
//! The differences in behaviour are from the vendor's documents or source. The error messages are from there too if the table says so; *seen*
//! messages were reported by users of the server; *ours* are invented, because the case is not documented.

use std::time::Duration;

use super::authorization_server::{Profile, Published, Target, Words};
use super::scene::{SCOPES, Scene};

const fn words(ours: &'static str, status: u16, code: &'static str, text: &'static str) -> Words {
    Words { ours, status, code, text }
}

const APPENDED: Published = Published { oauth: false, openid_inserted: false, openid_appended: true };

/// Moves the server to this issuer path, publishes OpenID's form, and makes the MCP server name it.
fn at(scene: &Scene, path: &str, published: Published) {
    scene.authorization_server.set_issuer_path(path);
    scene.authorization_server.publish(published);
    scene.mcp.set_issuer(&scene.authorization_server.issuer());
}

/// Keycloak 26.5, JWT authorization grant. A realm's audience mapper decides on `aud`; `resource` is ignored.
pub fn keycloak_grant(scene: &Scene, linked: &str) {
    at(scene, "/realms/agents", APPENDED);
    scene.authorization_server.require_clients(true);
    scene.authorization_server.set_profile(Profile {
        target: Target::Fixed(scene.mcp.url()),
        scopes: &SCOPES,
        oldest_assertion: Some(Duration::from_secs(300)),
        linked: Some(vec![linked.to_owned()]),
        words: KEYCLOAK,
        ..Profile::default()
    });
}

/// From the source: `JWTAuthorizationGrantType`, `AbstractBaseJWTValidator`, `AuthenticateClient`.
const KEYCLOAK: &[Words] = &[
    words("no client proved", 401, "invalid_client", "Invalid client or Invalid client credentials"),
    words("iss is not trusted", 400, "invalid_grant", "No Identity Provider for provided issuer"),
    words("aud is not", 400, "invalid_grant", "Invalid token audience"),
    words("exp has passed", 400, "invalid_grant", "Token is not active"),
    words("iat is too long ago", 400, "invalid_grant", "Token was issued too far in the past to be used now"),
    words("jti was used", 400, "invalid_grant", "Token reuse detected"),
    words("sub has no account", 400, "invalid_grant", "User not found"),
];

/// Keycloak 26.5, federated clients. The assertion's `sub` finds the client, and a `client_id` beside it must be that `sub`.
/// `knows_svids`: the trust domain is an identity provider of type `spiffe`; else the platform is one of type `oidc`.
pub fn keycloak_federated(scene: &Scene, knows_svids: bool) {
    at(scene, "/realms/agents", APPENDED);
    scene.authorization_server.set_profile(Profile {
        target: Target::Fixed(scene.mcp.url()),
        scopes: &SCOPES,
        oldest_assertion: Some(Duration::from_secs(300)),
        finds_clients_by_subject: true,
        knows_no_svids: !knows_svids,
        jti_optional: knows_svids,
        words: KEYCLOAK_CLIENT,
        ..Profile::default()
    });
}

/// From the source: `FederatedJWTClientValidator`, `AbstractBaseJWTValidator`, `ClientAuthUtil`; as seen with 26.5.6.
const KEYCLOAK_CLIENT: &[Words] = &[
    words("client_id is not sub", 400, "invalid_client", "client_id parameter does not match sub claim"),
    words("aud is not", 400, "invalid_client", "Invalid token audience"),
    words("exp has passed", 400, "invalid_client", "Token is not active"),
    words("iat is too long ago", 400, "invalid_client", "Token was issued too far in the past to be used now"),
    words("jti was used", 400, "invalid_client", "Token reuse detected"),
    words("jti is missing", 400, "invalid_client", "Token jti claim is required"),
    words("iss is not trusted", 401, "invalid_client", GENERIC),
    words("client_assertion_type", 401, "invalid_client", GENERIC),
    words("client_assertion is missing", 401, "invalid_client", GENERIC),
    words("no client has that subject", 401, "invalid_client", GENERIC),
];

const GENERIC: &str = "Invalid client or Invalid client credentials";

/// Auth0, a machine-to-machine application. Its issuer ends in a slash, and `audience` names the API.
pub fn auth0(scene: &Scene) {
    at(scene, "/", APPENDED);
    scene.authorization_server.require_clients(true);
    scene.authorization_server.set_profile(Profile {
        target: Target::Audience(scene.mcp.url()),
        scopes: &SCOPES,
        only_grant: Some("client_credentials"),
        words: AUTH0,
        ..Profile::default()
    });
}

/// As seen; the one about the grant is from the documentation.
const AUTH0: &[Words] = &[
    words(
        "audience is missing",
        403,
        "access_denied",
        "No audience parameter was provided, and no default audience has been configured",
    ),
    words("audience is unknown", 403, "access_denied", "Service not enabled within domain: https://acme.eu.auth0.com/"),
    words(
        "this grant is not allowed",
        403,
        "unauthorized_client",
        "Grant type 'urn:ietf:params:oauth:grant-type:jwt-bearer' not allowed for the client.",
    ),
    words("no client proved", 401, "access_denied", "Unauthorized"),
];

/// Okta, a custom authorization server, whose settings decide on `aud`. New applications require DPoP.
pub fn okta(scene: &Scene, wants_proof: bool) {
    at(scene, "/oauth2/aus1234567890abcdef", APPENDED);
    scene.authorization_server.require_clients(true);
    scene.authorization_server.set_profile(Profile {
        target: Target::Fixed(scene.mcp.url()),
        scopes: &SCOPES,
        wants_scope: true,
        wants_proof,
        words: OKTA,
        ..Profile::default()
    });
}

/// As seen; the one about scopes that do not exist is from the documentation.
const OKTA: &[Words] = &[
    words("the DPoP proof is missing", 400, "invalid_dpop_proof", "The DPoP proof JWT header is missing."),
    words(
        "scope is missing",
        400,
        "invalid_scope",
        "The authorization server resource does not have any configured default scopes, 'scope' must be provided.",
    ),
    words(
        "scope is not granted",
        400,
        "invalid_scope",
        "One or more scopes are not configured for the authorization server resource.",
    ),
];

/// Any server that trusts Google: its identity tokens have no `jti`.
pub fn of_google(scene: &Scene) {
    scene.authorization_server.set_profile(Profile { jti_optional: true, ..Profile::default() });
}

/// Ory Hydra, a trusted issuer. The assertion is for the token endpoint, and its audience becomes the token's.
pub fn hydra(scene: &Scene) {
    at(scene, "", APPENDED);
    scene.authorization_server.require_clients(true);
    scene.authorization_server.set_profile(Profile {
        target: Target::Fixed(scene.authorization_server.token_endpoint()),
        scopes: &["demo:read"],
        assertion_audience: Some(scene.authorization_server.token_endpoint()),
        client_audience: Some(scene.authorization_server.token_endpoint()),
        words: HYDRA,
        ..Profile::default()
    });
}

/// From the source (fosite): a sentence for the code, then one for the case.
const HYDRA: &[Words] = &[
    words("jti was used", 400, "jti_known", "The jti was already used."),
    words(
        "assertion: InvalidAudience",
        401,
        "invalid_client",
        "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method). Claim 'audience' from 'client_assertion' must match the authorization server's token endpoint 'https://hydra.example.com/oauth2/token'.",
    ),
    words(
        "iss is not trusted",
        400,
        "invalid_grant",
        "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token is invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued to another client. No public JWK was registered for issuer 'https://elsewhere.example' and subject 'sub', and public key is required to check signature of JWT in 'assertion' request parameter.",
    ),
    words(
        "no client proved",
        401,
        "invalid_client",
        "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method).",
    ),
    words(
        "aud is not",
        400,
        "invalid_grant",
        "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token is invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued to another client. The JWT in \"assertion\" request parameter MUST contain an \"aud\" (audience) claim containing a value \"https://hydra.example.com/oauth2/token\" that identifies the authorization server as an intended audience.",
    ),
    words(
        "scope is not granted",
        400,
        "invalid_scope",
        "The requested scope is invalid, unknown, or malformed. The public key registered for issuer and subject is not allowed to request that scope.",
    ),
];

/// Dex 2.45: a connector `ci` trusts the platform, and a client with a secret asks. There is no `scope` in its answers, and
/// `resource` is ignored: the audience of a token is the client.
pub fn dex(scene: &Scene) {
    at(scene, "/dex", APPENDED);
    scene.authorization_server.require_clients(true);
    scene.authorization_server.set_profile(Profile {
        connector: Some("ci"),
        silent_about_scope: true,
        jti_optional: true,
        ..Profile::default()
    });
}

/// ToolHive's authorization server: its token endpoint is the audience unless an operator says otherwise, each assertion is
/// taken once by its digest, and no scope is granted. It lists the grant, and says nothing about a refusal.
pub fn toolhive(scene: &Scene, audience: Option<String>) {
    let server = &scene.authorization_server;
    server.set_profile(Profile {
        assertion_audience: Some(audience.unwrap_or_else(|| server.token_endpoint())),
        once_by_digest: true,
        grants_no_scope: true,
        words: TOOLHIVE,
        ..Profile::default()
    });
}

/// As seen: the code alone.
const TOOLHIVE: &[Words] = &[
    words("aud is not", 400, "invalid_grant", ""),
    words("iss is not trusted", 400, "invalid_grant", ""),
    words("jti was used", 400, "invalid_grant", ""),
];
