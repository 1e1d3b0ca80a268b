//! How to fix a refusal, chosen by the error's code and by phrases in its description that are more specific.
//!
//! The phrases are data, each with its source. They select only the hint: what is sent, retried or cached never depends
//! on them. The whole description is searched, although users see only a part of it.

/// A hint for descriptions that contain all of these phrases. The comparison ignores case.
struct Words {
    all: &'static [&'static str],
    cure: &'static str,
}

const LEAVE_OUT_RESOURCE: &str = "this server takes no `resource`, or not that one beside these scopes: leave it out with `resource = \"\"`, and name the target by `scopes`";
const DEFAULT_SCOPE: &str = "this server wants one scope for a client that asks for itself, the target's identifier with `/.default` at its end: set `scopes` to that";
const OTHER_AUDIENCE: &str = "this server wants another audience in the identity token than its issuer: set `subject_audience` to the one that it expects";
const NAME_AUDIENCE: &str =
    "this server wants to be told the target: set `audience` to the identifier under which it knows the MCP server";
const UNKNOWN_AUDIENCE: &str = "this server knows no target of that name: set `audience` to the identifier under which the MCP server is registered there, character by character";
const NOT_FOR_THIS_CLIENT: &str =
    "it knows the client and the target: its operator must authorize this client for that target";
const ALLOW_GRANT: &str = "it knows the client, which may not use this grant: its operator must allow it, or set `exchange` to the one that is allowed";
const BIND: &str = "this server issues only tokens that are bound to a key: set `dpop = true`, or its operator lets this client have bearer tokens";
const NAME_SCOPES: &str = "this server has no default: set `scopes` to those that its operator made for the MCP server";
const LINK_SUBJECT: &str = "it trusts the platform but knows nobody of this subject: its operator must link the `sub` that `safeconduct whoami --audience ISSUER` shows to an account";
const MINT_ANEW: &str = "this server takes an identity token once, and soon after it was issued: use a source that mints anew (`safeconduct whoami` says whether it does), or have its operator allow more";
const NO_JTI: &str = "this server wants a `jti`, and some platforms' identity tokens have none (Google's, Entra's): its operator must take them without (RFC 7523 leaves it to the server), or a token service between can add one (`from` in [identities])";
const TRUST: &str = "the authorization server does not trust this identity: compare `safeconduct whoami --audience ISSUER` with its trust policy (iss, sub, aud), and both clocks";

const FEDERATE: &str = "give the application a federated credential with exactly the issuer, the subject and the audience that `safeconduct whoami --audience api://AzureADTokenExchange` shows; a renamed repository or branch has another subject";
const NOT_IN_TIME: &str = "to Entra the identity token was over, or not yet valid: compare both clocks; from a file or a variable it may be older than it should be (`safeconduct whoami`)";
const NO_APPLICATION: &str = "the tenant has no application of that identifier: check `scopes` (in a chain, the audience of what comes after) and `tenant`; its operator registers it there, or adds its service principal";
const NO_CLIENT: &str = "the tenant has no application of this `client_id`: check both; the application of another tenant needs a service principal there";
const NO_TENANT: &str = "check `tenant`, and `cloud` for a tenant of a sovereign one";
const NAME_AGENT: &str =
    "this application is the blueprint of agents and gets no token for itself: name the agent with `agent_identity`";
const CLIENT_SECRET: &str = "the secret is not this client's, or over: its value is wanted, not its id. Better a federated credential, which needs none: `client_auth = \"workload\"`";
const ASSIGN_ROLE: &str = "the target gives tokens only to applications with a role: its operator assigns an application role to this `client_id` (of a managed identity: to its service principal)";

const WORDS: &[Words] = &[
    // RFC 7523 section 3, item 7: optional in the RFC, required by the MCP profile of workload identity federation.
    Words { all: &["jti is missing"], cure: NO_JTI },
    // Microsoft, "Microsoft Entra authentication and authorization error codes".
    Words { all: &["aadsts9010010"], cure: LEAVE_OUT_RESOURCE },
    Words { all: &["aadsts901002:"], cure: LEAVE_OUT_RESOURCE },
    Words { all: &["aadsts1002012"], cure: DEFAULT_SCOPE },
    Words { all: &["aadsts700212"], cure: OTHER_AUDIENCE },
    // The subject, the issuer, or both do not match.
    Words { all: &["aadsts700213"], cure: FEDERATE },
    Words { all: &["aadsts700211"], cure: FEDERATE },
    Words { all: &["aadsts70021:"], cure: FEDERATE },
    Words { all: &["aadsts70025:"], cure: FEDERATE },
    Words { all: &["aadsts700024"], cure: NOT_IN_TIME },
    Words { all: &["aadsts500011"], cure: NO_APPLICATION },
    Words { all: &["aadsts700016"], cure: NO_CLIENT },
    Words { all: &["aadsts90002:"], cure: NO_TENANT },
    Words { all: &["aadsts7000215"], cure: CLIENT_SECRET },
    Words { all: &["aadsts7000222"], cure: CLIENT_SECRET },
    Words { all: &["aadsts501051"], cure: ASSIGN_ROLE },
    // Microsoft, "Agent OAuth flows"; wording from user reports.
    Words { all: &["aadsts82001"], cure: NAME_AGENT },
    // Google, Security Token Service; wording from user reports.
    Words { all: &["audience in id token", "expected audience"], cure: OTHER_AUDIENCE },
    // Ory Hydra, fosite's rfc7523 handler. Its code is the same for every problem with a grant.
    Words { all: &["must contain an \"aud\" (audience) claim containing a value"], cure: OTHER_AUDIENCE },
    Words { all: &["not allowed to use authorization grant"], cure: ALLOW_GRANT },
    // Keycloak, JWTAuthorizationGrantType and AbstractBaseJWTValidator.
    Words { all: &["user not found"], cure: LINK_SUBJECT },
    Words { all: &["token reuse detected"], cure: MINT_ANEW },
    Words { all: &["issued too far in the past"], cure: MINT_ANEW },
    Words { all: &["invalid token audience"], cure: OTHER_AUDIENCE },
    // Auth0; wording from user reports.
    Words { all: &["no audience parameter was provided"], cure: NAME_AUDIENCE },
    Words { all: &["service not enabled within domain"], cure: UNKNOWN_AUDIENCE },
    Words { all: &["client is not authorized to access"], cure: NOT_FOR_THIS_CLIENT },
    Words { all: &["grant type", "not allowed"], cure: ALLOW_GRANT },
    // Okta, "Configure OAuth 2.0 Demonstrating Proof-of-Possession"; wording from user reports.
    Words { all: &["dpop proof", "missing"], cure: BIND },
    Words { all: &["default scopes", "must be provided"], cure: NAME_SCOPES },
];

/// The hint for a refusal with this code and description.
pub(super) fn cure(code: &str, description: Option<&str>) -> &'static str {
    // Servers quote with either kind of quotes.
    let description = description
        .unwrap_or_default()
        .to_ascii_lowercase()
        .replace(['\'', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}'], "\"");
    let says = |words: &&Words| words.all.iter().all(|word| description.contains(word));
    WORDS.iter().find(says).map_or_else(|| by_code(code), |words| words.cure)
}

fn by_code(code: &str) -> &'static str {
    match code {
        "invalid_grant" => TRUST,
        "invalid_client" | "unauthorized_client" => {
            "the authorization server does not know this client or its proof, or wants one where none is named: check `client_id` and `client_auth` with its operator, and what it trusts with `safeconduct whoami --audience ISSUER`"
        }
        "access_denied" => {
            "the authorization server knows the client and does not let it have this: its operator must authorize it; check `audience` and `scopes`"
        }
        "invalid_target" => {
            "the authorization server does not know this `resource` or `audience`: its operator must register it, or set `resource` (\"\": do not send it), or `audience`"
        }
        "invalid_scope" => "the authorization server does not grant these scopes: check `scopes` with its operator",
        "invalid_request" => {
            "something is missing that this server wants, most often `client_id`, or it does not take `resource` (\"\": do not send it): ask its operator which parameters"
        }
        "invalid_dpop_proof" => {
            "the authorization server does not take the proof, or wants one where none came: set `dpop = true`, and compare both clocks"
        }
        "unsupported_grant_type" => {
            "the authorization server does not have this grant for this client: its operator must allow it, or set `exchange`"
        }
        _ => "ask the operator of the authorization server, with the time and these words",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_more_than_the_code() {
        let words =
            "AADSTS9010010: The resource parameter provided in the request doesn't match with the requested scopes.";
        assert_eq!(cure("invalid_target", Some(words)), LEAVE_OUT_RESOURCE);
        assert_ne!(cure("invalid_target", None), LEAVE_OUT_RESOURCE);
        assert_eq!(cure("invalid_grant", Some("User not found")), LINK_SUBJECT);
        assert_eq!(cure("invalid_grant", Some("something else")), TRUST);
    }

    #[test]
    fn either_kind_of_quotes_is_read() {
        for quote in ['"', '\'', '\u{201d}'] {
            let words = format!("The JWT must contain an {quote}aud{quote} (audience) claim containing a value …");
            assert_eq!(cure("invalid_grant", Some(&words)), OTHER_AUDIENCE, "{quote}");
        }
    }

    #[test]
    fn one_code_is_not_taken_for_another_that_begins_with_it() {
        assert_eq!(cure("invalid_client", Some("AADSTS700212: No matching …")), OTHER_AUDIENCE);
        assert_eq!(cure("invalid_client", Some("AADSTS70021: No matching …")), FEDERATE);
        assert_eq!(cure("invalid_client", Some("AADSTS700024: Client assertion …")), NOT_IN_TIME);
        assert_ne!(cure("invalid_request", Some("AADSTS9010021: …")), LEAVE_OUT_RESOURCE);
    }

    #[test]
    fn every_entry_can_be_reached() {
        for (at, words) in WORDS.iter().enumerate() {
            assert!(words.all.iter().all(|word| word.to_ascii_lowercase() == **word), "{:?} is never found", words.all);
            let text = words.all.join(" … ");
            let first = WORDS.iter().position(|other| other.all.iter().all(|word| text.contains(word)));
            assert_eq!(first, Some(at), "{:?} hides behind another", words.all);
        }
    }
}
