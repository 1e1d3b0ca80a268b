//! Servers of other projects as their users run them, and safeconduct as its users run it. `tests/real/fetch` gets the servers;
//! tests/real/README.md says what each proves.
//!
//! | file | what |
//! |---|---|
//! | `fetched.rs` | where `tests/real/fetch` has put a server |
//! | `keycloak.rs` `realm.rs` | one Keycloak for all tests, and a realm with its platform for each test |
//! | `federated.rs` | the platform's JWT proves a client (federated client authentication) |
//! | `grant.rs` | the platform's JWT is the grant (JWT authorization grant) |
//! | `bound.rs` | tokens that are bound to a key or to a certificate |
//! | `outage.rs` | Keycloak is gone for a while, and the platform changes its key |
//! | `indicators.rs` | Keycloak looks at `resource` (RFC 8707) |
//! | `policy.rs` | what `trust-policy` prints, installed as printed |
//! | `hydra.rs` | the platform's JWT as grant at Ory Hydra |
//! | `kubernetes.rs` | the API server of Kubernetes admits our manifests, and gives our Role what it needs |
//! | `spire.rs` `svid.rs` | SPIRE, and what its workloads get and do not get |
//! | `chains.rs` | from a real platform over Keycloak to an MCP server |
//! | `tethered.rs` | a server that ends with its test |
//! | `fastmcp.rs` | an MCP server of FastMCP, behind Keycloak and alone |

mod bound;
mod chains;
mod fastmcp;
mod federated;
mod fetched;
mod grant;
mod hydra;
mod indicators;
mod keycloak;
mod kubernetes;
mod outage;
mod policy;
mod realm;
mod spire;
mod svid;
mod tethered;
