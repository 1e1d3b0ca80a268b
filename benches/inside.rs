//! The cost of one request inside the process: cache hit, key digest, header rendering, reading of claims.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use safeconduct::Clock;
use safeconduct::inside::{
    AccessToken, Cache, CacheParts, Claims, Credential, Digest, Failure, Issuer, Jitter, Lost, Observer, Persistence,
    Recipe, Resource, Scopes, Token, Verdict, Wish, header_json,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone)]
struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("never")
    }
}

impl Failure for Never {
    fn verdict(&self) -> Verdict {
        Verdict::Permanent
    }

    fn lost(_: Lost) -> Self {
        Self
    }

    fn retry_in(self, _: Duration) -> Self {
        self
    }
}

struct Unobserved;

impl Observer for Unobserved {
    fn hit(&self) {}
    fn flight(&self) {}
    fn landed(&self, _: Duration, _: bool) {}
}

fn jwt() -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = r#"{"iss":"https://token.actions.githubusercontent.com","sub":"repo:octo-org/octo-repo:ref:refs/heads/main","aud":"https://as.example.com","exp":1700000300,"iat":1700000000,"jti":"01234567-89ab-cdef"}"#;
    format!("eyJhbGciOiJFUzI1NiJ9.{}.{}", URL_SAFE_NO_PAD.encode(payload), "c".repeat(86))
}

fn token(clock: &Clock) -> Token {
    let access_token = AccessToken::parse(jwt()).expect("visible ASCII");
    Token {
        digest: access_token.digest(),
        credential: Credential::Bearer(access_token),
        scopes: Scopes::parse("deploy:read deploy:write").expect("good scopes"),
        missing: Default::default(),
        server: "deploy".into(),
        resource: Resource::verbatim("https://mcp.example.com/mcp"),
        issuer: Issuer::parse("https://as.example.com").expect("a good issuer"),
        minted: clock.boot(),
        minted_wall: SystemTime::UNIX_EPOCH,
        expires_at: String::new(),
        dates_itself: true,
        is_cut: false,
        life: Duration::from_secs(86_400),
        jti: None,
        is_for_nobody: false,
        hops: Arc::default(),
        beside_token: Default::default(),
        in_audit: Default::default(),
    }
}

fn cache_hit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let clock = Clock::system();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let parts = CacheParts {
        clock: clock.clone(),
        jitter: Jitter::seeded(1),
        persistence: Persistence::Daemon,
        tasks,
        stop,
        observer: Box::new(Unobserved),
    };
    let cache: Cache<Never> = Cache::new(parts);
    for i in 0..50u8 {
        let clock = clock.clone();
        let recipe: Recipe<Never> = Arc::new(move |_| {
            let token = token(&clock);
            async move { Ok(token) }.boxed()
        });
        let asked = runtime.block_on(cache.token(Digest::of(&[i]), &Wish::ANY, || recipe));
        assert!(asked.is_ok());
    }
    let key = Digest::of(&[7]);
    criterion.bench_function("cache hit among 50", |bencher| bencher.iter(|| cache.hit(black_box(&key), &Wish::ANY)));
}

fn key_digest(criterion: &mut Criterion) {
    let fields = ["deploy", "https://mcp.example.com/mcp", "https://as.example.com", "", "*", "=deploy:read", "*", "*"];
    criterion.bench_function("key digest", |bencher| {
        bencher.iter(|| Digest::of_fields(black_box(&fields).iter().map(|field| field.as_bytes())));
    });
}

fn header_render(criterion: &mut Criterion) {
    let token = AccessToken::parse(jwt()).expect("visible ASCII");
    criterion.bench_function("header render", |bencher| bencher.iter(|| header_json(black_box(&token))));
}

fn claim_read(criterion: &mut Criterion) {
    let jwt = jwt();
    criterion.bench_function("claim read", |bencher| bencher.iter(|| Claims::read(black_box(&jwt))));
}

criterion_group!(inside, cache_hit, key_digest, header_render, claim_read);
criterion_main!(inside);
