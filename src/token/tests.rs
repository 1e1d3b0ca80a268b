use super::*;
use crate::clock::Clock;

fn jwt(payload: &str) -> String {
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(payload))
}

fn subject(payload: &str) -> SubjectToken {
    SubjectToken::parse(SecretString::from(jwt(payload))).expect("a JWT")
}

const AS: &str = "https://as.example.com/";

fn fit(payload: &str, now: i64) -> Result<(), Unfit> {
    subject(payload).fit_for(&Audience::from(AS), now, Duration::ZERO)
}

#[test]
fn a_token_for_this_audience_that_is_still_good_may_leave() {
    assert_eq!(fit(r#"{"aud":"https://as.example.com/","exp":100}"#, 99), Ok(()));
    assert_eq!(fit(r#"{"aud":["https://as.example.com/"],"exp":100.5}"#, 99), Ok(()));
}

#[test]
fn the_audience_is_compared_byte_for_byte() {
    assert!(matches!(fit(r#"{"aud":"https://as.example.com","exp":100}"#, 0), Err(Unfit::OtherAudience { .. })));
}

#[test]
fn only_the_token_exchange_of_entra_has_two_names() {
    let (uri, id) = ("api://AzureADTokenExchange", "fb60f99c-7a34-4190-8149-302f77469936");
    let fits = |wanted: &str, aud: &str| {
        let token = subject(&format!(r#"{{"aud":"{aud}","exp":100}}"#));
        token.fit_for(&Audience::from(wanted), 0, Duration::ZERO).is_ok()
    };
    assert!(fits(uri, id) && fits(id, uri) && fits(uri, uri) && fits(id, id));
    for other in [AS, "api://AzureADTokenExchangeChina", "FB60F99C-7A34-4190-8149-302F77469936"] {
        assert!(!fits(other, id) && !fits(uri, other), "{other}");
    }
}

#[test]
fn several_audiences_or_none_may_not_leave() {
    let several = r#"{"aud":["https://as.example.com/","https://b.example.com"],"exp":100}"#;
    assert_eq!(fit(several, 0), Err(Unfit::SeveralAudiences { count: 2 }));
    assert_eq!(fit(r#"{"exp":100}"#, 0), Err(Unfit::NoAudience));
}

#[test]
fn an_expired_token_may_not_leave_unless_our_clock_may_be_wrong() {
    let token = subject(r#"{"aud":"https://as.example.com/","exp":100}"#);
    let audience = Audience::from(AS);
    assert_eq!(token.fit_for(&audience, 130, Duration::ZERO), Err(Unfit::Expired { seconds: 30 }));
    assert_eq!(token.fit_for(&audience, 130, Duration::from_secs(300)), Ok(()));
    assert_eq!(token.fit_for(&audience, 401, Duration::from_secs(300)), Err(Unfit::Expired { seconds: 301 }));
}

#[test]
fn what_is_not_a_jwt_is_refused() {
    for text in ["", "abc", "a.b", "a.b.c.d", ".e30.c2ln", "a.!!.b", "a.bm90IGpzb24.b", "a.WzFd.b"] {
        assert_eq!(Claims::read(text), Err(NotJwt), "{text}");
    }
}

#[test]
fn an_access_token_must_be_visible_ascii_of_bounded_length() {
    assert!(AccessToken::parse("abc.def-ghi_~+/=".to_owned()).is_ok());
    for text in ["", "a b", "a\r\nX: y", "é"] {
        assert_eq!(AccessToken::parse(text.to_owned()).map(|_| ()), Err(BadToken::Characters), "{text:?}");
    }
    assert_eq!(AccessToken::parse("x".repeat(32 * 1024 + 1)).map(|_| ()), Err(BadToken::TooLong));
}

#[test]
fn debug_shows_no_secret() {
    let text = jwt(r#"{"aud":"a","exp":1}"#);
    let shown = format!("{:?}", SubjectToken::parse(SecretString::from(text.clone())).expect("a JWT"));
    assert!(!shown.contains(&text[..20]), "{shown}");
    assert_eq!(format!("{:?}", AccessToken::parse("secret".to_owned()).expect("fine")), "AccessToken(..)");
}

#[test]
fn a_token_that_expires_before_it_is_issued_has_no_life() {
    let life = |payload: &str| Claims::read(&jwt(payload)).expect("a JWT").life();
    assert_eq!(life(r#"{"exp":100,"iat":40}"#), Some(Duration::from_secs(60)));
    assert_eq!(life(r#"{"exp":40,"iat":100}"#), Some(Duration::ZERO));
    assert_eq!(life(r#"{"exp":40}"#), None);
}

#[test]
fn a_token_ends_at_its_own_expiry_whatever_else_is_said_of_it() {
    const SKEW: Duration = Duration::from_secs(300);
    let now = 10_000;
    let life = |payload: &str| Claims::read(&jwt(payload)).expect("a JWT").life_from(now, SKEW);
    let seconds = |count| Ok(Some(Duration::from_secs(count)));
    assert_eq!(life("{}"), Ok(None));
    assert_eq!(life(r#"{"exp":10003}"#), seconds(3));
    assert_eq!(life(r#"{"exp":10003,"iat":7000}"#), seconds(3), "it was issued before");
    assert_eq!(life(r#"{"exp":10600,"iat":10000}"#), seconds(600));
    // Our clock is behind: the span counts.
    assert_eq!(life(r#"{"exp":10900,"iat":10300}"#), seconds(600));
    // Our clock may be ahead by five minutes.
    assert_eq!(life(r#"{"exp":9800,"iat":9740}"#), seconds(60));
    assert_eq!(life(r#"{"exp":9900,"iat":9000}"#), seconds(1), "its age is more than our clock may be wrong");
    assert_eq!(life(r#"{"exp":9900}"#), seconds(1));
    assert_eq!(life(r#"{"exp":9701}"#), seconds(1));
    assert_eq!(life(r#"{"exp":9700}"#), Err(300));
    assert_eq!(life(r#"{"exp":9700,"iat":9690}"#), Err(300));
    assert_eq!(life(r#"{"exp":10003,"iat":10010}"#), seconds(0), "it ends before it is issued");
    for absurd in [r#"{"exp":-1e300}"#, r#"{"exp":0}"#] {
        assert!(life(absurd).is_err(), "{absurd}");
    }
    assert!(life(r#"{"exp":1e300}"#).is_ok_and(|life| life > Some(SKEW)));
}

#[test]
fn an_identity_token_is_base64url_in_all_three_parts() {
    let good = jwt(r#"{"aud":"a","exp":1}"#);
    let parse = |text: String| SubjectToken::parse(SecretString::from(text)).map(|_| ());
    assert_eq!(parse(good.clone()), Ok(()));
    assert_eq!(parse(format!("{good}==")), Ok(()), "padding does no harm");
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    for bad in
        ["\nX-Evil: 1", "\r\n", "\0", "\u{1b}[2J", " x", "\t", "&client_id=evil", "%26", "!", "+", "/", "ä", "\u{feff}"]
    {
        for text in [
            format!("{header}{bad}.{payload}.{signature}"),
            format!("{bad}{header}.{payload}.{signature}"),
            format!("{header}.{payload}.{bad}{signature}"),
            format!("{header}.{payload}.{signature}{bad}x"),
        ] {
            assert_eq!(parse(text.clone()), Err(NotJwt), "{text:?}");
        }
    }
    for odd in ["AAAA", "W10", "bnVsbA", "Ig"] {
        assert_eq!(
            parse(format!("{odd}.{payload}.{signature}")),
            Err(NotJwt),
            "a header that is no JSON object: {odd}"
        );
    }
    for bad in ["=", "==", "c2ln==="] {
        assert_eq!(parse(format!("{header}.{payload}.{bad}")), Err(NotJwt), "{bad}");
    }
}

/// A token that was received now and lasts this long.
pub(crate) fn lasting(life: Duration, clock: &Clock) -> Token {
    let Now { boot: minted, wall: minted_wall } = clock.now();
    let text = AccessToken::parse("token".to_owned()).expect("visible ASCII");
    Token {
        digest: text.digest(),
        credential: Credential::Bearer(text),
        scopes: Scopes::default(),
        missing: BTreeSet::new(),
        server: "a".into(),
        resource: Resource::verbatim("https://mcp.example.com"),
        issuer: Issuer::parse("https://as.example.com").expect("good"),
        minted,
        minted_wall,
        expires_at: rfc3339(minted_wall + life),
        dates_itself: false,
        is_cut: false,
        life,
        jti: None,
        hops: Arc::default(),
        is_for_nobody: false,
        beside_token: OfSecond::default(),
        in_audit: OnceLock::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_the_end_by_the_clock_as_it_is_set_now() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let clock = Clock::virtual_at(noon);
    let token = lasting(HOUR, &clock);
    let says = |wanted: SystemTime| {
        let now = clock.now();
        assert_eq!(token.expires_at(now), rfc3339(wanted));
        assert!(wanted > now.wall, "a live token never ended in the past");
    };
    says(noon + HOUR);
    tokio::time::advance(HOUR / 2).await;
    assert!(matches!(token.expires_at(clock.now()), Cow::Borrowed(_)), "it is not written anew for each answer");
    says(noon + HOUR);
    // The clock was hours behind, and then NTP sets it. Or it was ahead.
    for now in [noon + 5 * HOUR, noon - 5 * HOUR, noon + HOUR / 2] {
        clock.set_wall(now);
        says(now + HOUR / 2);
    }
    clock.suspend(HOUR / 4);
    says(noon + HOUR);
}
