//! The rules of a token's life on a virtual clock, and a model that tries to break them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::oauth::{Issuer, Resource, Scopes};
use crate::token::{AccessToken, Credential};

#[derive(Clone, Debug, PartialEq)]
enum Fail {
    Temporary(Option<Duration>),
    Permanent,
    Lost(Lost),
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Failure for Fail {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Temporary(retry_after) => {
                Verdict::Temporary { retry_after: *retry_after, tried_patiently: false, absent: false }
            }
            _ => Verdict::Permanent,
        }
    }

    fn lost(how: Lost) -> Self {
        Self::Lost(how)
    }

    fn retry_in(self, _: Duration) -> Self {
        self
    }
}

/// What the authorization server does next.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Fine { life: u64 },
    SameToken { life: u64 },
    Down,
    Busy { retry_after: u64 },
    Refuses,
    Panics,
    Stalls,
}

/// An authorization server that counts, on the virtual clock.
struct Issuing {
    clock: Clock,
    mood: Mutex<Mood>,
    takes: Duration,
    calls: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    serial: AtomicU64,
}

impl Issuing {
    fn new(clock: &Clock, mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            mood: Mutex::new(mood),
            takes: Duration::from_millis(200),
            calls: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            serial: AtomicU64::new(0),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().expect("not poisoned") = mood;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn issue(&self) -> Result<Token, Fail> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.takes).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let mood = *self.mood.lock().expect("not poisoned");
        match mood {
            Mood::Fine { life } => Ok(self.token(self.serial.fetch_add(1, Ordering::SeqCst) + 1, life)),
            Mood::SameToken { life } => Ok(self.token(self.serial.load(Ordering::SeqCst), life)),
            Mood::Down => Err(Fail::Temporary(None)),
            Mood::Busy { retry_after } => Err(Fail::Temporary(Some(Duration::from_secs(retry_after)))),
            Mood::Refuses => Err(Fail::Permanent),
            Mood::Panics => panic!("a bug in a maker"),
            Mood::Stalls => std::future::pending().await,
        }
    }

    fn token(&self, serial: u64, life: u64) -> Token {
        let access_token = AccessToken::parse(format!("token-{serial}")).expect("visible ASCII");
        Token {
            digest: access_token.digest(),
            credential: Credential::Bearer(access_token),
            scopes: Scopes::default(),
            missing: Default::default(),
            server: "a".into(),
            resource: Resource::verbatim("https://mcp.example.com"),
            issuer: Issuer::parse("https://as.example.com").expect("good"),
            minted: self.clock.boot(),
            minted_wall: self.clock.wall(),
            expires_at: String::new(),
            dates_itself: true,
            is_cut: false,
            life: Duration::from_secs(life),
            jti: None,
            hops: Arc::default(),
            is_for_nobody: false,
            beside_token: Default::default(),
            in_audit: Default::default(),
        }
    }
}

struct Unobserved;

impl Observer for Unobserved {
    fn hit(&self) {}
    fn flight(&self) {}
    fn landed(&self, _: Duration, _: bool) {}
}

/// A cache before an issuer, with one key.
struct Rig {
    cache: Cache<Fail>,
    issuer: Arc<Issuing>,
    clock: Clock,
}

impl Rig {
    fn new(mood: Mood) -> Self {
        Self::with(mood, Persistence::Daemon)
    }

    fn with(mood: Mood, persistence: Persistence) -> Self {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let issuer = Issuing::new(&clock, mood);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (clock_of_cache, jitter, observer) = (clock.clone(), Jitter::seeded(1), Box::new(Unobserved));
        let cache = Cache::new(Parts { clock: clock_of_cache, jitter, persistence, tasks, stop, observer });
        Self { cache, issuer, clock }
    }

    fn recipe(&self) -> Recipe<Fail> {
        let issuer = Arc::clone(&self.issuer);
        Arc::new(move |_| {
            let issuer = Arc::clone(&issuer);
            async move { issuer.issue().await }.boxed()
        })
    }

    async fn ask(&self, wish: Wish) -> Result<Arc<Token>, Fail> {
        // As the broker does: the quick way first.
        match self.cache.hit(&key(), &wish) {
            Some(token) => Ok(token),
            None => self.cache.token(key(), &wish, || self.recipe()).await,
        }
    }

    async fn any(&self) -> Result<Arc<Token>, Fail> {
        self.ask(ANY).await
    }

    async fn fresh(&self) -> Result<Arc<Token>, Fail> {
        let newer_than = Some(self.clock.just_before(Duration::from_secs(1)));
        self.ask(Wish { newer_than, ..ANY }).await
    }

    async fn insisted(&self) -> Result<Arc<Token>, Fail> {
        let newer_than = Some(self.clock.just_before(Duration::from_secs(1)));
        self.ask(Wish { newer_than, insists: true, ..ANY }).await
    }

    async fn at_least(&self, seconds: u64) -> Result<Arc<Token>, Fail> {
        self.ask(Wish { least: Least::Of(Duration::from_secs(seconds)), ..ANY }).await
    }
}

/// The only user in most tests.
const USER: Option<u32> = Some(1);
const ANY: Wish = Wish { user: USER, ..Wish::ANY };

fn key() -> Key {
    Digest::of(b"key")
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn who_insists_on_a_new_token_is_told_that_there_is_none_and_others_keep_the_old_one() {
    let rig = Rig::new(Mood::Fine { life: 600 });
    let first = rig.any().await.expect("issued");
    sleep(10).await;
    rig.issuer.set(Mood::Refuses);
    for _ in 0..3 {
        assert!(rig.insisted().await.is_err(), "by the flight, and in its back-off");
        assert_eq!(rig.fresh().await.expect("as a wish").digest, first.digest);
        assert_eq!(rig.any().await.expect("still good").digest, first.digest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_on_a_cold_key_share_one_flight() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let asked = futures_util::future::join_all((0..1_000).map(|_| rig.any())).await;
    assert!(asked.iter().all(Result::is_ok));
    assert_eq!(rig.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_one_failure() {
    let rig = Rig::new(Mood::Refuses);
    let asked = futures_util::future::join_all((0..1_000).map(|_| rig.any())).await;
    assert!(asked.iter().all(|outcome| matches!(outcome, Err(Fail::Permanent))));
    assert_eq!(rig.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_does_not_cancel_the_flight() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    assert!(tokio::time::timeout(Duration::from_millis(50), rig.any()).await.is_err());
    sleep(1).await;
    assert!(rig.cache.hit(&key(), &ANY).is_some());
    assert_eq!(rig.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_minute_asked_for_every_second_keeps_nobody_waiting() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    rig.any().await.expect("the first one waits");
    for second in 0..600 {
        sleep(1).await;
        let token = rig.cache.hit(&key(), &ANY).unwrap_or_else(|| panic!("somebody waits at {second} s"));
        assert!(may_be_served(&token, rig.clock.boot()));
    }
    // One renewal at 70 to 85 % of each life.
    assert!((11..=16).contains(&rig.issuer.calls()), "{}", rig.issuer.calls());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_used_now_and_then_is_renewed_between_the_uses() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    rig.any().await.expect("issued");
    for _ in 0..10 {
        sleep(50).await;
        assert!(rig.cache.hit(&key(), &ANY).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_asks_for_lapses_and_is_forgotten() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    rig.any().await.expect("issued");
    sleep(600).await;
    // It was in use until a lifetime after the last question: one or two renewals, then rest.
    assert!(rig.issuer.calls() <= 3, "{}", rig.issuer.calls());
    assert!(rig.cache.lock().entries.is_empty(), "nothing is left in memory");
}

#[tokio::test(start_paused = true)]
async fn a_required_token_is_always_there() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    rig.cache.always(key(), &"a".into(), || rig.recipe());
    sleep(1).await;
    for _ in 0..20 {
        assert!(rig.cache.peek(&key()).0.is_some());
        sleep(37).await;
    }
}

/// A CI job of two hours whose step has left a daemon behind. Nobody asks, and the issuer is away now and then.
#[tokio::test(start_paused = true)]
async fn a_required_token_lasts_through_a_job_of_two_hours() {
    const JOB: u64 = 2 * 3_600;
    for life in [300, 600, 3_600] {
        let rig = Rig::new(Mood::Fine { life });
        rig.cache.always(key(), &"a".into(), || rig.recipe());
        sleep(1).await;
        for second in 0..JOB {
            // An outage of a tenth of the token's life in each of its lives.
            let is_away = second % life > life * 8 / 10 && second % life < life * 9 / 10;
            rig.issuer.set(if is_away { Mood::Down } else { Mood::Fine { life } });
            sleep(1).await;
            let (token, _) = rig.cache.peek(&key());
            assert!(token.is_some_and(|token| !token.left(rig.clock.boot()).is_zero()), "{life} s, after {second} s");
        }
        let renewals = usize::try_from(JOB / life).expect("it fits");
        assert!((renewals..=16 * renewals).contains(&rig.issuer.calls()), "{life} s: {} calls", rig.issuer.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_required_token_comes_when_the_issuer_comes_back() {
    let rig = Rig::new(Mood::Down);
    rig.cache.always(key(), &"a".into(), || rig.recipe());
    sleep(600).await;
    assert!(rig.issuer.calls() < 60, "{}", rig.issuer.calls());
    rig.issuer.set(Mood::Fine { life: 60 });
    sleep(61).await;
    assert!(rig.cache.peek(&key()).0.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_felt_until_the_token_really_expires() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.any().await.expect("issued");
    rig.issuer.set(Mood::Down);
    for _ in 0..56 {
        sleep(1).await;
        assert_eq!(rig.any().await.expect("still good").digest, first.digest);
    }
    sleep(4).await;
    assert_eq!(rig.any().await.map(|_| ()), Err(Fail::Temporary(None)));
    rig.issuer.set(Mood::Fine { life: 60 });
    sleep(61).await;
    assert!(rig.any().await.is_ok(), "recovered without a restart");
}

#[tokio::test(start_paused = true)]
async fn temporary_failures_back_off_and_a_hiccup_is_not_seen() {
    let rig = Rig::new(Mood::Down);
    let asked = rig.any();
    let heal = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.issuer.set(Mood::Fine { life: 60 });
    };
    let (asked, ()) = tokio::join!(asked, heal);
    assert!(asked.is_ok());

    let rig = Rig::new(Mood::Down);
    for _ in 0..600 {
        assert!(rig.any().await.is_err());
        sleep(1).await;
    }
    // Three tries a flight, delays that double to a minute: not one call a question.
    assert!(rig.issuer.calls() < 120, "{}", rig.issuer.calls());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_end_of_an_outage_is_served_within_ten_seconds_of_it() {
    let waits = Wish { waits: true, ..ANY };
    for outage in [20, 200, 2_000] {
        let rig = Rig::new(Mood::Down);
        for _ in 0..outage {
            assert!(rig.any().await.is_err());
            sleep(1).await;
        }
        let calls = rig.issuer.calls();
        for _ in 0..64 {
            assert!(rig.ask(waits).await.is_err());
            sleep(1).await;
        }
        assert!(rig.issuer.calls() - calls <= 8 + 1, "not one call a question");
        rig.issuer.set(Mood::Fine { life: 60 });
        sleep(8).await;
        assert!(rig.ask(waits).await.is_ok(), "after {outage} s");
    }
    // Others are not asked by us sooner than they want.
    let rig = Rig::new(Mood::Busy { retry_after: 40 });
    for _ in 0..39 {
        assert!(rig.ask(waits).await.is_err());
        sleep(1).await;
    }
    assert_eq!(rig.issuer.calls(), 1);
}

/// The back-off of an outage never lasts to the end of the token that is served meanwhile.
#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_just_before_the_token_is_not_felt() {
    let rig = Rig::new(Mood::Fine { life: 600 });
    for round in 0..8 {
        assert!(rig.any().await.is_ok());
        let newest = rig.any().await.expect("valid");
        sleep(410).await;
        rig.issuer.set(Mood::Down);
        sleep(175).await;
        rig.issuer.set(Mood::Fine { life: 600 });
        sleep(4).await;
        assert!(rig.any().await.is_ok_and(|token| token.digest != newest.digest), "in round {round}");
    }
    assert!(rig.issuer.calls() < 8 * 40, "{}", rig.issuer.calls());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let rig = Rig::new(Mood::Busy { retry_after: 40 });
    assert!(rig.any().await.is_err());
    for _ in 0..38 {
        sleep(1).await;
        assert!(rig.any().await.is_err());
    }
    assert_eq!(rig.issuer.calls(), 1);
    sleep(3).await;
    rig.issuer.set(Mood::Fine { life: 60 });
    assert!(rig.any().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_thirty_seconds() {
    let rig = Rig::new(Mood::Refuses);
    for _ in 0..29 {
        assert_eq!(rig.any().await.map(|_| ()), Err(Fail::Permanent));
        sleep(1).await;
    }
    assert_eq!(rig.issuer.calls(), 1);
    sleep(2).await;
    assert!(rig.any().await.is_err());
    assert_eq!(rig.issuer.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_refused_renewal_is_forgotten_before_the_token_in_use_ends() {
    for life in [5, 20, 60] {
        let rig = Rig::new(Mood::Fine { life });
        rig.any().await.expect("a token");
        // A renewal meets a captive portal, which is gone a moment later.
        rig.issuer.set(Mood::Refuses);
        while rig.issuer.calls() == 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            rig.any().await.expect("the first token is valid");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.issuer.set(Mood::Fine { life });
        for _ in 0..10 * life {
            tokio::time::sleep(Duration::from_millis(100)).await;
            rig.any().await.expect("nobody feels it");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_on_time_after_a_suspend() {
    let rig = Rig::new(Mood::Fine { life: 3_600 });
    rig.cache.always(key(), &"a".into(), || rig.recipe());
    sleep(60).await;
    assert_eq!(rig.issuer.calls(), 1);
    // By night the lid is closed, until after the token's renewal point, or after its end.
    for (suspended, calls) in [(3_200, 2), (8 * 3_600, 3)] {
        rig.clock.suspend(Duration::from_secs(suspended));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(rig.issuer.calls(), calls, "after {suspended} s");
        let (token, _) = rig.cache.peek(&key());
        assert!(token.is_some_and(|token| token.left(rig.clock.boot()) > Duration::from_secs(3_590)));
    }
}

#[tokio::test(start_paused = true)]
async fn forced_mints_are_three_and_then_one_every_ten_seconds() {
    let rig = Rig::new(Mood::Fine { life: 3_600 });
    rig.any().await.expect("issued");
    for _ in 0..20 {
        sleep(2).await;
        assert!(rig.fresh().await.is_ok());
    }
    // 40 s: the first, three at once, four from the refill.
    assert!((7..=9).contains(&rig.issuer.calls()), "{}", rig.issuer.calls());
}

#[tokio::test(start_paused = true)]
async fn a_token_minted_within_the_last_second_is_fresh_enough() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.any().await.expect("issued");
    assert_eq!(rig.fresh().await.expect("the same").digest, first.digest);
    sleep(2).await;
    assert_ne!(rig.fresh().await.expect("a new one").digest, first.digest);
}

#[tokio::test(start_paused = true)]
async fn a_failed_forced_mint_gives_the_valid_token() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.any().await.expect("issued");
    rig.issuer.set(Mood::Refuses);
    sleep(2).await;
    assert_eq!(rig.fresh().await.expect("the valid one").digest, first.digest);
}

#[tokio::test(start_paused = true)]
async fn a_wish_waits_for_one_flight_and_is_then_met_as_well_as_possible() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    rig.any().await.expect("issued");
    sleep(30).await;
    assert!(rig.at_least(45).await.expect("renewed for the wish").left(rig.clock.boot()) > Duration::from_secs(45));
    assert_eq!(rig.issuer.calls(), 2);
    for _ in 0..50 {
        assert!(rig.at_least(600).await.is_ok(), "no token of this issuer lives so long");
    }
    for _ in 0..50 {
        assert!(rig.at_least(60).await.is_ok());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.issuer.calls(), 2, "nothing is minted per request");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_returns_the_same_token_is_not_asked_in_a_loop() {
    let rig = Rig::new(Mood::Fine { life: 600 });
    rig.any().await.expect("issued");
    rig.issuer.set(Mood::SameToken { life: 600 });
    for _ in 0..560 {
        sleep(1).await;
        let token = rig.at_least(300).await.expect("the one there is");
        assert!(may_be_served(&token, rig.clock.boot()), "a repeated token is no younger than at first");
    }
    assert!(rig.issuer.calls() < 12, "{}", rig.issuer.calls());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_token_is_noticed_also_after_it_was_dropped() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.any().await.expect("issued");
    rig.issuer.set(Mood::SameToken { life: 60 });
    sleep(20).await;
    assert!(rig.cache.reject(&key(), &first.digest, 1));
    let again = rig.any().await.expect("the same one");
    assert_eq!((again.digest, again.minted), (first.digest, first.minted), "no younger than at first");
}

#[tokio::test(start_paused = true)]
async fn a_server_may_ask_for_more_patience_than_ours_never_for_less() {
    let rig = Rig::new(Mood::Busy { retry_after: 0 });
    for _ in 0..600 {
        assert!(rig.any().await.is_err());
        sleep(1).await;
    }
    assert!(rig.issuer.calls() < 60, "{}", rig.issuer.calls());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_with_less_life_does_not_blank_the_token_before_it() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.any().await.expect("issued");
    sleep(40).await;
    rig.issuer.set(Mood::Fine { life: 2 });
    let short = rig.fresh().await.expect("the newest");
    assert_ne!(short.digest, first.digest);
    rig.issuer.set(Mood::Refuses);
    sleep(3).await;
    assert_eq!(rig.any().await.expect("still valid").digest, first.digest);
    assert!(rig.cache.reject(&key(), &first.digest, 1), "nor is it given again when the server refuses it");
    assert!(rig.any().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_is_not_renewed_by_itself() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    rig.any().await.expect("issued");
    let by = Revoker { user: 1, is_operator: false };
    assert_eq!(rig.cache.give_up(&key(), by).expect("nobody else asked for it").len(), 1);
    sleep(300).await;
    assert_eq!(rig.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_unless_it_is_too_young_or_another() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.any().await.expect("issued");
    assert!(!rig.cache.reject(&key(), &first.digest, 1), "younger than 5 s: the server refuses for another reason");
    sleep(6).await;
    assert!(!rig.cache.reject(&key(), &Digest::of(b"another"), 1));
    assert!(rig.cache.reject(&key(), &first.digest, 1));
    assert_ne!(rig.any().await.expect("a new one").digest, first.digest);
    assert!(!rig.cache.reject(&key(), &first.digest, 1), "another caller already got a new token");
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_panics_or_stalls_lands_all_the_same() {
    let rig = Rig::new(Mood::Panics);
    assert_eq!(rig.any().await.map(|_| ()), Err(Fail::Lost(Lost::Panic)));
    rig.issuer.set(Mood::Stalls);
    sleep(31).await;
    assert_eq!(rig.any().await.map(|_| ()), Err(Fail::Lost(Lost::TooLong)));
    rig.issuer.set(Mood::Fine { life: 60 });
    sleep(31).await;
    assert!(rig.any().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_shot_tries_until_its_callers_time_out() {
    let rig = Rig::with(Mood::Down, Persistence::OneShot(Duration::from_secs(30)));
    let started = rig.clock.boot();
    assert!(rig.any().await.is_err());
    let took = rig.clock.boot().since(started);
    assert!(took <= Duration::from_secs(30) && rig.issuer.calls() > 3, "{took:?}, {} calls", rig.issuer.calls());
    let rig = Rig::with(Mood::Refuses, Persistence::OneShot(Duration::from_secs(30)));
    assert!(rig.any().await.is_err());
    assert_eq!(rig.issuer.calls(), 1, "a refusal is final");
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_tells_the_last_real_failure_not_that_a_try_was_cut_short() {
    let limit = Duration::from_secs(4);
    let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let persistence = Persistence::OneShot(limit);
    let (jitter, observer) = (Jitter::seeded(1), Box::new(Unobserved));
    let cache = Cache::new(Parts { clock, jitter, persistence, tasks, stop, observer });
    let end = tokio::time::Instant::now() + persistence.for_requests().expect("it has an end");
    let calls = Arc::new(AtomicUsize::new(0));
    let recipe: Recipe<Fail> = Arc::new({
        let calls = Arc::clone(&calls);
        move |_| {
            let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    return Err(Fail::Temporary(Some(Duration::ZERO)));
                }
                tokio::time::sleep_until(end).await;
                Err(Fail::Temporary(None))
            }
            .boxed()
        }
    });
    let outcome = cache.token(key(), &Wish::ANY, || recipe).await;
    assert_eq!(outcome.map(|_| ()), Err(Fail::Temporary(Some(Duration::ZERO))), "what the first try said");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

mod users;

/// One step of the model.
#[derive(Clone, Debug)]
enum Act {
    Ask,
    AskTogether(usize),
    Wish(u64),
    Fresh,
    Reject,
    Wait(u64),
    Become(Mood),
}

fn act() -> impl Strategy<Value = Act> {
    let mood = prop_oneof![
        4 => (2u64..200).prop_map(|life| Mood::Fine { life }),
        1 => (2u64..200).prop_map(|life| Mood::SameToken { life }),
        2 => Just(Mood::Down),
        1 => (0u64..100).prop_map(|retry_after| Mood::Busy { retry_after }),
        1 => Just(Mood::Refuses),
    ];
    prop_oneof![
        6 => Just(Act::Ask),
        2 => (2usize..20).prop_map(Act::AskTogether),
        2 => (1u64..400).prop_map(Act::Wish),
        1 => Just(Act::Fresh),
        1 => Just(Act::Reject),
        6 => (1u64..30_000).prop_map(Act::Wait),
        2 => mood.prop_map(Act::Become),
    ]
}

/// The longest life and the moment of expiry that the model knows of the last token served.
struct Model {
    last: Option<Arc<Token>>,
    rejected: bool,
}

impl Model {
    /// Whatever was asked: no expired token is served, and a good one is never blanked.
    fn judge(&mut self, rig: &Rig, outcome: &Result<Arc<Token>, Fail>) -> Result<(), TestCaseError> {
        let now = rig.clock.boot();
        match outcome {
            Ok(token) => {
                prop_assert!(token.left(now) > Duration::ZERO, "an expired token was served");
                self.last = Some(Arc::clone(token));
                self.rejected = false;
            }
            Err(error) => {
                let good = self.last.as_ref().is_some_and(|token| may_be_served(token, now)) && !self.rejected;
                prop_assert!(!good, "a good token was blanked by {error:?}");
            }
        }
        Ok(())
    }
}

async fn play(acts: Vec<Act>) -> Result<(), TestCaseError> {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let started = rig.clock.boot();
    let mut model = Model { last: None, rejected: false };
    for act in acts {
        match act {
            Act::Ask => model.judge(&rig, &rig.any().await)?,
            Act::AskTogether(count) => {
                let before = rig.issuer.calls();
                for outcome in futures_util::future::join_all((0..count).map(|_| rig.any())).await {
                    model.judge(&rig, &outcome)?;
                }
                prop_assert!(rig.issuer.calls() - before <= policy::QUICK_TRIES as usize, "one flight for all");
            }
            Act::Wish(seconds) => model.judge(&rig, &rig.at_least(seconds).await)?,
            Act::Fresh => model.judge(&rig, &rig.fresh().await)?,
            Act::Reject => {
                if let Some(token) = &model.last {
                    model.rejected |= rig.cache.reject(&key(), &token.digest, 1);
                }
            }
            Act::Wait(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
            Act::Become(mood) => rig.issuer.set(mood),
        }
        prop_assert!(rig.issuer.most_in_flight.load(Ordering::SeqCst) <= 1, "two flights for one key");
    }
    // The shortest life is 2 s, so at most one mint every 1.4 s; forced mints, wishes (ten a life) and the three tries
    // of a failed flight, at least half a second apart, come on top.
    let seconds = rig.clock.boot().since(started).as_secs_f64();
    let bound = 20.0 + seconds * (1.0 / 1.4 + 0.1 + 10.0 / 2.0 + 6.0);
    prop_assert!((rig.issuer.calls() as f64) < bound, "{} calls in {seconds} s", rig.issuer.calls());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_events_breaks_the_rules(acts in prop::collection::vec(act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(play(acts))?;
    }
}
