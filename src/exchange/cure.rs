//! How to fix a refusal, chosen by the error's code and by phrases in its description that are more specific.
//!
//! The phrases are data, each with its source. They select only the hint: what a flight sends, retries or caches never depends on
//! them. `doctor` alone chooses by the hint ([`Demand`]) what else it tries. The whole description is searched, although users see
//! only a part of it.

use super::client_auth::Proof;
use super::{Error, Request};

/// A hint for descriptions that contain all of these phrases. The comparison ignores case.
struct Words {
    all: &'static [&'static str],
    cure: &'static str,
}

/// What a server wants otherwise in an identity token, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    Audience,
    Age,
    Once,
    Typ,
    Resource,
}

impl Error {
    /// What the server wants otherwise, where it says so: the hint that was chosen tells.
    pub(crate) fn demand(&self) -> Option<Demand> {
        let cure = match self {
            Self::Refused { cure, .. } => *cure,
            Self::Busy { by_resource: true, .. } => return Some(Demand::Resource),
            _ => return None,
        };
        match cure {
            OTHER_AUDIENCE | LEAVE_OUT_AUDIENCE => Some(Demand::Audience),
            TOO_OLD | NOT_ACTIVE | NOT_IN_TIME => Some(Demand::Age),
            MINT_ANEW => Some(Demand::Once),
            OTHER_TYP => Some(Demand::Typ),
            LEAVE_OUT_RESOURCE => Some(Demand::Resource),
            _ => None,
        }
    }
}

/// What the refused request had in it, as far as a hint depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// It named no client and proved none.
    is_nameless: bool,
    /// The identity token was the client's proof.
    is_federated: bool,
    /// The identity token was the client's proof, and a JWT-SVID that said so.
    is_svid: bool,
    /// The configuration says which audience the identity token has.
    has_own_audience: bool,
    /// It had the parameter `resource`.
    pub(super) has_resource: bool,
}

impl Sent {
    pub(super) fn of(request: &Request) -> Self {
        let (id, proof) = (&request.client.id, &request.client.proof);
        let is_svid = match proof {
            Proof::Workload(subject, None) => subject.claims.is_svid(),
            _ => false,
        };
        Self {
            is_nameless: id.is_none() && matches!(proof, Proof::None),
            is_federated: matches!(proof, Proof::Workload(..)),
            is_svid,
            has_own_audience: request.subject_audience.is_some(),
            has_resource: request.resource.is_some(),
        }
    }
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
const LINK_SUBJECT: &str = "it trusts the platform but knows nobody of this subject: its operator must link the `sub` that was presented to an account";
const MINT_ANEW: &str = "this server takes an identity token once: use a source that mints anew (`safeconduct whoami` says whether it does), let one daemon ask for all, or have its operator allow reuse (Keycloak: `supportsClientAssertionReuse` of the identity provider)";
const TOO_OLD: &str = "this server takes an identity token only for a while after its `iat`, whatever its `exp` says (Keycloak: 300 s, from a provider of type `kubernetes` an hour): use a source that mints anew (`safeconduct whoami` says whether it does), a projected token with an `expirationSeconds` of at most 3600, or have its operator allow more";
const NOT_ACTIVE: &str = "to this server the identity token is over, or not yet valid: one from a file or a variable may be older than it should be (`safeconduct whoami` shows its `exp`); compare both clocks";
const OTHER_TYP: &str = "this server wants another `typ` in the header of the identity token: its operator must take the platform's (most write \"JWT\"), or a token service between can issue one (`from` in [identities])";
const LESS_LIFE: &str = "this server wants identity tokens that live for a shorter time: have the platform make them so, or its operator allow more (Hydra: `oauth2.grant.jwt.max_ttl`)";
const NO_JTI: &str = "this server wants a `jti`, and some platforms' identity tokens have none (Google's, Entra's, SPIRE's): its operator must take them without (RFC 7523 leaves it to the server), or a token service between can add one (`from` in [identities]). Keycloak takes JWT-SVIDs by an identity provider of type `spiffe`, not by one of type `oidc`";
const LEAVE_OUT_CLIENT_ID: &str =
    "this server finds the client by the identity token's `sub` (Keycloak before 26.7): leave `client_id` out";
const LEAVE_OUT_AUDIENCE: &str = "this server wants its own issuer as the only audience of the identity token: leave `subject_audience` out, so that it is made for `issuer`";
const CLIENT_AUDIENCE: &str = "this server wants its token endpoint as audience of the client's assertion: set `assertion_audience = \"token_endpoint\"`";
const ADD_KEY: &str = "its operator must register the platform's key for this issuer and subject (Hydra has one record for each key, so that a new key of the platform needs a new one); what was presented has both";
const ALLOW_PROVIDER: &str = "its operator must let the platform's identity provider take part in this grant, and allow it for this client; the `iss` that was presented is the one that it must have";
const SUBJECT_TYPE: &str =
    "this server takes another type of subject token: set `subject_token_type` (Dex wants \"id_token\")";
const REQUESTED_TYPE: &str = "this server issues no token of that type: set `requested_token_type` at the link (Dex has \"id_token\" and \"access_token\")";
const CONNECTOR: &str =
    "Dex wants the id of a connector that takes the platform's tokens: `extra = { connector_id = \"ID\" }`";
const TRUSTED_HOSTS: &str = "its operator must let this machine register clients (Keycloak: the policy \"Trusted Hosts\"), or register one by hand: then set `client_id` and `client_auth`";
const WANTS_CLIENT: &str = "this server wants a client. If it federates clients with this workload's platform (Keycloak, Okta, Entra), two lines and the pin will do: `exchange = \"client-credentials\"` and `client_auth = \"workload\"`, with `issuer`; else its operator says which `client_id` and `client_auth`";
const SVID_CLIENT: &str = "a JWT-SVID goes out as jwt-spiffe: the server must know its SPIFFE ID as a client of the trust domain (Keycloak: an identity provider of type `spiffe`; one of type `oidc` takes none). For a server that takes it as a plain JWT set `assertion_type = \"jwt-bearer\"`";
const FEDERATED_CLIENT: &str = "the authorization server does not know this client or its proof: compare what was presented with what its operator bound to the client, check `client_id`, and leave that out where the server finds the client by `sub` (Keycloak)";
const TRUST_OR_ENDPOINT: &str = "the authorization server does not trust this identity, or has taken this token before (`safeconduct whoami` says whether each is new; a daemon keeps what it got): compare what was presented with its trust policy, and both clocks; `safeconduct trust-policy TARGET --for PRODUCT` prints the policy that its operator must install. Some servers want their token endpoint as audience (ToolHive, Hydra): `subject_audience = \"token_endpoint\"`, with `issuer`";
const WORDLESS: &str = "its operator must authorize this client for what it asks for (check `audience` and `scopes`), or did not mean this identity: Dex refuses without a word where its connector does not take the subject token; compare what was presented with what it trusts, and both clocks";
const TRUST: &str = "the authorization server does not trust this identity: compare what was presented with its trust policy, and both clocks; `safeconduct trust-policy TARGET --for PRODUCT` prints the policy that its operator must install";

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
    Words { all: &["token jti claim is required"], cure: NO_JTI },
    Words { all: &["must contain", "\"jti\""], cure: NO_JTI },
    // jose (JavaScript), Nimbus, Spring Security: RFC 8725 section 3.11.
    Words { all: &["unexpected \"typ\" jwt header"], cure: OTHER_TYP },
    Words { all: &["jose header typ"], cure: OTHER_TYP },
    Words { all: &["the given typ value"], cure: OTHER_TYP },
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
    Words { all: &["from \"client_assertion\" must match", "token endpoint"], cure: CLIENT_AUDIENCE },
    Words { all: &["no public jwk was registered"], cure: ADD_KEY },
    Words { all: &["request parameter expired"], cure: NOT_ACTIVE },
    Words { all: &["unreasonably far in the future"], cure: LESS_LIFE },
    Words { all: &["jti was already used"], cure: MINT_ANEW },
    Words { all: &["not allowed to use authorization grant"], cure: ALLOW_GRANT },
    // Keycloak, JWTAuthorizationGrantType, AbstractBaseJWTValidator and FederatedJWTClientValidator.
    Words { all: &["user not found"], cure: LINK_SUBJECT },
    Words { all: &["token reuse detected"], cure: MINT_ANEW },
    Words { all: &["issued too far in the past"], cure: TOO_OLD },
    Words { all: &["token is not active"], cure: NOT_ACTIVE },
    Words { all: &["token was issued in the future"], cure: NOT_ACTIVE },
    Words { all: &["client_id parameter does not match sub"], cure: LEAVE_OUT_CLIENT_ID },
    Words { all: &["jwt authorization grant is not supported for"], cure: ALLOW_GRANT },
    Words { all: &["no identity provider for provided issuer"], cure: ALLOW_PROVIDER },
    Words { all: &["identity provider is not"], cure: ALLOW_PROVIDER },
    Words { all: &["trusted hosts"], cure: TRUSTED_HOSTS },
    Words { all: &["invalid token audience"], cure: OTHER_AUDIENCE },
    // Dex, handleTokenExchange.
    Words { all: &["invalid subject_token_type"], cure: SUBJECT_TYPE },
    Words { all: &["invalid requested_token_type"], cure: REQUESTED_TYPE },
    Words { all: &["requested connector does not"], cure: CONNECTOR },
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
pub(super) fn cure(code: &str, description: Option<&str>, sent: Sent) -> &'static str {
    // Servers quote with either kind of quotes.
    let words = description
        .unwrap_or_default()
        .to_ascii_lowercase()
        .replace(['\'', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}'], "\"");
    let says = |one: &&Words| one.all.iter().all(|word| words.contains(word));
    match WORDS.iter().find(says).map(|words| words.cure) {
        // Keycloak says so too where the configuration has it made for somebody else.
        Some(OTHER_AUDIENCE) if sent.has_own_audience && words.contains("invalid token audience") => LEAVE_OUT_AUDIENCE,
        Some(cure) => cure,
        None if code == "invalid_grant" && is_replay(&words) => MINT_ANEW,
        None => by_code(code, description, sent),
    }
}

/// As servers say it that are not known by name: the token was taken before. In lower case.
fn is_replay(words: &str) -> bool {
    words.contains("already been used") || words.contains("replay") || words.contains("jti") && words.contains("used")
}

fn by_code(code: &str, description: Option<&str>, sent: Sent) -> &'static str {
    match code {
        "invalid_grant" if sent.has_own_audience => TRUST,
        "invalid_grant" => TRUST_OR_ENDPOINT,
        "jti_known" | "jti_reused" => MINT_ANEW,
        "invalid_client" if sent.is_nameless => WANTS_CLIENT,
        "invalid_client" if sent.is_svid => SVID_CLIENT,
        "invalid_client" if sent.is_federated => FEDERATED_CLIENT,
        "invalid_client" | "unauthorized_client" => {
            "the authorization server does not know this client or its proof, or wants one where none is named: check `client_id` and `client_auth` with its operator, and what that trusts"
        }
        "access_denied" if description.is_none() => WORDLESS,
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

    fn cure(code: &str, description: Option<&str>) -> &'static str {
        super::cure(code, description, Sent::default())
    }

    #[test]
    fn a_request_with_another_audience_is_told_to_take_it_away() {
        let own = Sent { has_own_audience: true, ..Sent::default() };
        let words = Some("Invalid token audience");
        assert_eq!(super::cure("invalid_client", words, own), LEAVE_OUT_AUDIENCE);
        assert_eq!(cure("invalid_client", words), OTHER_AUDIENCE);
        let google = Some("The audience in ID Token [x] does not match the expected audience y.");
        assert_eq!(super::cure("invalid_grant", google, own), OTHER_AUDIENCE);
    }

    #[test]
    fn who_named_no_client_is_told_the_lines_that_name_one() {
        let words = Some("Invalid client or Invalid client credentials");
        let sent = |is_nameless, is_svid, is_federated| Sent { is_nameless, is_svid, is_federated, ..Sent::default() };
        for (sent, wanted) in [
            (sent(true, false, false), WANTS_CLIENT),
            (sent(false, true, false), SVID_CLIENT),
            (sent(false, true, true), SVID_CLIENT),
            (sent(false, false, true), FEDERATED_CLIENT),
        ] {
            assert_eq!(super::cure("invalid_client", words, sent), wanted, "{sent:?}");
        }
    }

    #[test]
    fn an_unknown_server_that_took_the_token_before_is_understood_and_a_proof_of_dpop_is_not_meant() {
        for words in ["this assertion (jti) was used before", "Assertion has already been used", "replay detected"] {
            assert_eq!(cure("invalid_grant", Some(words)), MINT_ANEW, "{words}");
            assert_ne!(cure("invalid_dpop_proof", Some(words)), MINT_ANEW, "{words}");
        }
    }

    #[test]
    fn the_strings_of_real_servers_lead_to_their_own_cures() {
        for (words, wanted) in [
            ("Token jti claim is required", NO_JTI),
            ("The JWT in 'assertion' request parameter MUST contain an 'jti' (JWT ID) claim.", NO_JTI),
            ("client_id parameter does not match sub claim", LEAVE_OUT_CLIENT_ID),
            ("Token is not active", NOT_ACTIVE),
            ("Token was issued too far in the past to be used now", TOO_OLD),
            ("JWT Authorization Grant is not supported for the requested client", ALLOW_GRANT),
            ("Identity Provider is not allowed for the client", ALLOW_PROVIDER),
            (
                "Policy 'Trusted Hosts' rejected request to client-registration service. Details: Host not trusted.",
                TRUSTED_HOSTS,
            ),
            (
                "Claim 'audience' from 'client_assertion' must match the authorization server's token endpoint 'https://h/t'.",
                CLIENT_AUDIENCE,
            ),
            ("No public JWK was registered for issuer 'a' and subject 'b', and public key is required", ADD_KEY),
            ("Invalid subject_token_type.", SUBJECT_TYPE),
            ("Requested connector does not exist.", CONNECTOR),
            ("Requested connector does not support token exchange.", CONNECTOR),
            ("The jti was already used.", MINT_ANEW),
        ] {
            assert_eq!(cure("invalid_client", Some(words)), wanted, "{words}");
        }
    }

    #[test]
    fn words_say_more_than_the_code() {
        let words =
            "AADSTS9010010: The resource parameter provided in the request doesn't match with the requested scopes.";
        assert_eq!(cure("invalid_target", Some(words)), LEAVE_OUT_RESOURCE);
        assert_ne!(cure("invalid_target", None), LEAVE_OUT_RESOURCE);
        assert_eq!(cure("invalid_grant", Some("User not found")), LINK_SUBJECT);
        assert_eq!(cure("invalid_grant", Some("something else")), TRUST_OR_ENDPOINT);
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
