//! A hostile caller beside an honest one, in random sequences over everything that a caller can ask for, on the virtual
//! clock. The honest caller gets what it gets when it is alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::env::Env;
use crate::exchange::{self, Asks, Exchange, Grant, Issued, Provider, TokenEndpoint, Traits};
use crate::oauth::{Issuer, OauthError, Scopes, ServerUrl};
use crate::outbound::{self, Outbound};
use crate::policy::Rule;
use crate::store::Store;
use crate::token::{AccessToken, Digest, SubjectToken};

const DAEMON: u32 = 1;
const HONEST: u32 = 1_000;
const HOSTILE: u32 = 2_000;
const LIFE: Duration = Duration::from_secs(60);
/// The honest caller never waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
const ISSUER: &str = "https://as.example.com";

/// An authorization server that takes 0.1 s, and refuses a scope that begins with `bad`.
#[derive(Debug, Default)]
struct Issuing {
    serial: AtomicUsize,
}

#[async_trait]
impl Exchange for Issuing {
    fn name(&self) -> &'static str {
        "issuing"
    }

    fn traits(&self) -> Traits {
        let (issuer, token_endpoint) = (issuer(), format!("{ISSUER}/token"));
        let provider = Provider { issuer, token_endpoint, subject_audience: ISSUER.to_owned(), role_arn: None };
        Traits { asks: Asks::Provider(provider), subject: exchange::Subject::None, ..Traits::of_grant("issuing") }
    }

    async fn exchange(
        &self,
        _: &TokenEndpoint<'_>,
        _: Option<&SubjectToken>,
        request: &exchange::Request,
    ) -> Result<Issued, exchange::Error> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if request.scopes.iter().any(|scope| scope.starts_with("bad")) {
            let error = OauthError::new("invalid_grant", None, None);
            return Err(exchange::Error::Refused { issuer: issuer(), error, cure: "ask for another scope" });
        }
        let token = AccessToken::parse(format!("token-{}", self.serial.fetch_add(1, Ordering::SeqCst)));
        let grant = Grant::Token(token.expect("visible ASCII"));
        Ok(Issued { grant, expires_in: Some(LIFE), scopes: None })
    }
}

fn issuer() -> Issuer {
    Issuer::parse(ISSUER).expect("good")
}

/// Both callers may use both servers; the tokens of the second are bound to a key.
const SERVERS: [&str; 2] = ["plain", "bound"];

fn url(server: usize) -> ServerUrl {
    ServerUrl::parse(&format!("https://{}.example.com/mcp", SERVERS[server])).expect("good")
}

fn broker(clock: &Clock) -> Broker {
    let issuing: Arc<dyn Exchange> = Arc::new(Issuing::default());
    let server = |at: usize| {
        let allow = [HONEST, HOSTILE].map(|uid| Rule { uid: Some(uid), ..Rule::default() });
        let mut server = Server::discovered(SERVERS[at].into(), url(at), allow.to_vec());
        for order in server.orders_mut() {
            let (issuer, token_endpoint) = (issuer(), Some(format!("{ISSUER}/token")));
            order.pin = Some(Pin { issuer, token_endpoint, assertions: Vec::new() });
            order.exchange = Some(Arc::clone(&issuing));
            order.dpop = Some(at == 1);
        }
        server
    };
    Broker::new(Parts {
        servers: (0..SERVERS.len()).map(server).collect(),
        issuers: None,
        identities: Default::default(),
        store: Store::new(false),
        env: Env::from_vars([]),
        unlisted_for: None,
        outbound: Outbound::new(outbound::Config::default()),
        clock: clock.clone(),
        metrics: Arc::default(),
        persistence: Persistence::Daemon,
        audit: None,
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    })
}

/// What a caller does.
#[derive(Clone, Debug)]
enum Act {
    /// Asks for a token or header fields.
    Ask(Ask),
    /// Asks for many sets of scopes and hangs up.
    Flood {
        count: usize,
        bad: bool,
    },
    /// Reports that the token it got last was refused.
    Reject,
    Revoke {
        server: usize,
    },
    Look,
    Ready {
        server: usize,
    },
    Wait {
        milliseconds: u64,
    },
}

#[derive(Clone, Debug)]
struct Ask {
    server: usize,
    scopes: Option<String>,
    least: u64,
    fresh: bool,
    retry: bool,
    nonce: Option<String>,
    /// When it hangs up.
    patience: Duration,
}

fn ask(nonce: &'static str) -> impl Strategy<Value = Ask> {
    let scopes = prop_oneof![3 => Just(None), 2 => (0..4).prop_map(|i| Some(format!("s{i}"))), 1 => Just(Some("bad".to_owned()))];
    let nonce = prop_oneof![Just(None), Just(Some(nonce.to_owned()))];
    (0..SERVERS.len(), scopes, 0u64..70, any::<bool>(), any::<bool>(), nonce).prop_map(
        |(server, scopes, least, fresh, retry, nonce)| Ask {
            server,
            scopes,
            least,
            fresh,
            retry,
            nonce,
            patience: PATIENCE,
        },
    )
}

fn honest() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => ask("honest-nonce").prop_map(Act::Ask),
        1 => Just(Act::Reject),
        5 => (1u64..20_000).prop_map(|milliseconds| Act::Wait { milliseconds }),
    ]
}

fn hostile() -> impl Strategy<Value = Act> {
    let hangs_up = (ask("hostile-nonce"), 0u64..500)
        .prop_map(|(ask, patience)| Act::Ask(Ask { patience: Duration::from_millis(patience), ..ask }));
    prop_oneof![
        4 => hangs_up,
        2 => (1usize..200, any::<bool>()).prop_map(|(count, bad)| Act::Flood { count, bad }),
        3 => Just(Act::Reject),
        3 => (0..SERVERS.len()).prop_map(|server| Act::Revoke { server }),
        1 => Just(Act::Look),
        1 => (0..SERVERS.len()).prop_map(|server| Act::Ready { server }),
        4 => (1u64..10_000).prop_map(|milliseconds| Act::Wait { milliseconds }),
    ]
}

/// What the honest caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// Header fields for these scopes, whose proof has this nonce.
    Fields {
        scopes: String,
        nonce: Option<String>,
    },
    Token {
        scopes: String,
    },
    Refused {
        class: &'static str,
        code: String,
    },
}

struct Player<'a> {
    broker: &'a Broker,
    clock: &'a Clock,
    caller: Caller,
    /// The last token: its server and its digest.
    last: Option<(usize, Digest)>,
    rejected: Vec<Digest>,
    told: Vec<Told>,
    floods: usize,
}

impl<'a> Player<'a> {
    fn new(broker: &'a Broker, clock: &'a Clock, uid: u32) -> Self {
        let caller = Caller::on_socket(uid, uid, None);
        Self { broker, clock, caller, last: None, rejected: Vec::new(), told: Vec::new(), floods: 0 }
    }

    async fn play(mut self, acts: &[Act]) -> Vec<Told> {
        for act in acts {
            match act {
                Act::Ask(ask) => {
                    let answer = tokio::time::timeout(ask.patience, self.ask(ask)).await;
                    if let Ok(told) = answer {
                        self.told.push(told);
                    } else {
                        assert_eq!(self.caller.uid, HOSTILE, "the honest caller waits in vain for {ask:?}");
                    }
                }
                Act::Flood { count, bad } => self.flood(*count, *bad).await,
                Act::Reject => self.reject(),
                Act::Revoke { server } => drop(self.broker.revoke(&self.caller, DAEMON, &target(*server)).await),
                Act::Look => drop(self.broker.explain(&self.caller, DAEMON)),
                Act::Ready { server } => {
                    let names = [SERVERS[*server].to_owned()];
                    drop(self.broker.keep_named(&self.caller, DAEMON, &names));
                    drop(self.broker.not_ready(&self.caller, DAEMON, &names));
                }
                Act::Wait { milliseconds } => tokio::time::sleep(Duration::from_millis(*milliseconds)).await,
            }
        }
        self.told
    }

    async fn ask(&mut self, ask: &Ask) -> Told {
        let action = if ask.server == 1 || ask.retry { Action::Headers } else { Action::Token };
        let request = Request {
            target: target(ask.server),
            scopes: ask.scopes.as_ref().map(|text| Scopes::parse(text).expect("good")),
            least: Least::Of(Duration::from_secs(ask.least)),
            fresh: ask.fresh,
            action,
            helper: ask.retry,
            may_be_a_retry: ask.retry && action == Action::Headers,
        };
        let head =
            Head { method: Some("POST".to_owned()), url: url(ask.server), nonce: ask.nonce.clone(), body_sha256: None };
        let answer = match action {
            Action::Headers => {
                let answer = self.broker.headers(&self.caller, &request, Some(&head)).await;
                answer.map(|(lease, authorized)| (lease, Some(authorized)))
            }
            _ => self.broker.token(&self.caller, &request).await.map(|lease| (lease, None)),
        };
        match answer {
            Ok((lease, fields)) => self.got(ask, &lease, fields.as_ref()),
            Err(error) => Told::Refused { class: error.class().as_str(), code: error.code().to_owned() },
        }
    }

    fn got(&mut self, ask: &Ask, lease: &Lease, fields: Option<&Authorized>) -> Told {
        let token = &lease.token;
        assert!(token.left(self.clock.boot()) > Duration::ZERO, "an expired token");
        if self.caller.uid == HONEST {
            assert!(!self.rejected.contains(&token.digest), "a token that its server refused");
        }
        self.last = Some((ask.server, token.digest));
        let scopes = token.scopes.to_string();
        match fields {
            None => Told::Token { scopes },
            Some(authorized) => Told::Fields { scopes, nonce: nonce_of(authorized) },
        }
    }

    fn reject(&mut self) {
        let Some((server, digest)) = self.last else { return };
        let noted = self.broker.reject(&self.caller, &target(server), &digest).expect("it may use the server");
        if noted {
            self.rejected.push(digest);
        }
    }

    async fn flood(&mut self, count: usize, bad: bool) {
        let word = if bad { "bad" } else { "odd" };
        let asks = (self.floods..self.floods + count).map(|i| Ask {
            server: i % SERVERS.len(),
            scopes: Some(format!("{word}-{i}")),
            least: 0,
            fresh: false,
            retry: false,
            nonce: None,
            patience: Duration::from_millis(1),
        });
        self.floods += count;
        for ask in asks {
            drop(tokio::time::timeout(ask.patience, self.ask(&ask)).await);
        }
    }
}

fn target(server: usize) -> Target {
    Target::Name(SERVERS[server].to_owned())
}

/// The nonce in the proof of possession, if there is a proof with a nonce.
fn nonce_of(authorized: &Authorized) -> Option<String> {
    let (_, proof) = authorized.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("dpop"))?;
    let payload = proof.split('.').nth(1).expect("a JWT");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let claims: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    claims["nonce"].as_str().map(str::to_owned)
}

/// What the honest caller is told, beside a hostile one if there are acts of such.
fn told(honest: &[Act], hostile: &[Act]) -> Vec<Told> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let broker = broker(&clock);
        let ours = Player::new(&broker, &clock, HONEST).play(honest);
        let theirs = Player::new(&broker, &clock, HOSTILE).play(hostile);
        tokio::join!(ours, theirs).0
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn an_honest_caller_gets_beside_a_hostile_one_what_it_gets_alone(
        honest in prop::collection::vec(honest(), 1..40),
        hostile in prop::collection::vec(hostile(), 1..60),
    ) {
        let alone = told(&honest, &[]);
        prop_assert_eq!(told(&honest, &hostile), alone);
    }
}

fn plain(server: usize) -> Act {
    let (scopes, nonce) = (None, None);
    Act::Ask(Ask { server, scopes, least: 0, fresh: false, retry: false, nonce, patience: PATIENCE })
}

#[test]
fn a_callers_nonce_is_in_no_other_callers_proof() {
    let mut theirs = plain(1);
    if let Act::Ask(ask) = &mut theirs {
        ask.nonce = Some("hostile-nonce".to_owned());
    }
    let fields = Told::Fields { scopes: String::new(), nonce: None };
    assert_eq!(told(&[Act::Wait { milliseconds: 5_000 }, plain(1)], &[theirs]), [fields]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_others_use_is_revoked_for_the_operator_and_not_for_a_caller() {
    let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
    let broker = broker(&clock);
    for uid in [HONEST, HOSTILE] {
        Player::new(&broker, &clock, uid).play(&[plain(0)]).await;
    }
    let revoke = |uid, own| {
        let caller = Caller::on_socket(uid, uid, None);
        let broker = &broker;
        async move {
            let revoked = broker.revoke(&caller, own, &target(0)).await;
            revoked.map_err(|error| (error.class(), error.code().to_owned()))
        }
    };
    let held = || broker.cache.held().len();
    assert_eq!(revoke(HOSTILE, DAEMON).await, Err((Class::Denied, "access_denied".to_owned())));
    assert_eq!(held(), 1, "nothing is forgotten");
    assert!(revoke(0, DAEMON).await.is_err(), "no rule names root");
    assert_eq!(held(), 1);
    // The issuer cannot be reached for the revocation.
    assert!(revoke(HONEST, HONEST).await.is_err(), "the daemon's own user");
    assert_eq!(held(), 0);
}

#[tokio::test(start_paused = true)]
async fn revocations_of_one_caller_are_as_rare_as_forced_mints_and_count_under_the_rate() {
    let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
    let broker = broker(&clock);
    let mut given_up = 0;
    for _ in 0..34 {
        Player::new(&broker, &clock, HOSTILE).play(&[plain(0)]).await;
        let caller = Caller::on_socket(HOSTILE, HOSTILE, None);
        let before = broker.cache.held().len();
        let error = broker.revoke(&caller, DAEMON, &target(0)).await.expect_err("no revocation endpoint");
        if broker.cache.held().len() < before {
            given_up += 1;
        } else {
            assert_eq!((error.class(), error.code()), (Class::Temporary, "asked_too_often"));
            assert!(error.retry_in().is_some_and(|wait| wait <= Duration::from_secs(10)));
        }
    }
    assert_eq!(given_up, 3);
}

/// All that a refusal tells.
fn all_of(error: &Error) -> (Class, String, String, Option<String>, Option<String>) {
    (error.class(), error.code().to_owned(), error.to_string(), error.hint(), error.server().map(str::to_owned))
}

/// Every way to name a server, for a caller that no rule names and for one that rules for other servers name.
#[tokio::test(start_paused = true)]
async fn a_server_of_others_and_one_that_does_not_exist_get_the_same_answer() {
    let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
    let mut broker = broker(&clock);
    let own_uid = broker.maker.env.uid();
    let hidden = Server::discovered("hidden".into(), named("https://hidden.example.com/mcp"), vec![Rule::user(4_711)]);
    broker.servers.push(Arc::new(hidden));
    let head = Head { method: Some("POST".to_owned()), url: url(0), nonce: None, body_sha256: None };
    for (uid, knows) in [(3_000, false), (HONEST, true)] {
        let caller = Caller::on_socket(uid, uid, None);
        for (of_others, unknown) in [
            (Target::Name("hidden".to_owned()), Target::Name("nosuch".to_owned())),
            (
                Target::Url(named("https://hidden.example.com/mcp")),
                Target::Url(named("https://nosuch.example.com/mcp")),
            ),
        ] {
            let told = async |target: &Target| {
                let mut told = Vec::new();
                let request = Request { target: target.clone(), ..request(Action::Token) };
                told.push(broker.token(&caller, &request).await.map(drop));
                told.push(broker.headers(&caller, &request, Some(&head)).await.map(drop));
                told.push(broker.configured(&caller, target).map(drop));
                told.push(broker.reject(&caller, target, &Digest::of(b"x")).map(drop));
                told.push(broker.revoke(&caller, own_uid, target).await.map(drop));
                if let Target::Name(name) = target {
                    told.push(broker.keep_named(&caller, own_uid, std::slice::from_ref(name)));
                }
                told.iter().map(|one| all_of(one.as_ref().expect_err("refused"))).collect::<Vec<_>>()
            };
            let (of_others, unknown) = (told(&of_others).await, told(&unknown).await);
            assert_eq!(of_others, unknown);
            for (class, _, words, hint, server) in of_others {
                let hint = hint.expect("a cure");
                assert_eq!((class, server), (Class::Denied, None), "{words}");
                assert!(hint.contains(&format!("uid = {uid}")), "{hint}");
                assert_eq!(hint.contains("configured: plain, bound"), knows, "{hint}");
                assert!(!words.contains("hidden") && !hint.contains("hidden"), "{words} {hint}");
            }
        }
    }
}

fn named(text: &str) -> ServerUrl {
    ServerUrl::parse(text).expect("good")
}

fn request(action: Action) -> Request {
    let (target, least) = (target(0), Least::Of(Duration::ZERO));
    Request { target, scopes: None, least, fresh: false, action, helper: false, may_be_a_retry: false }
}
