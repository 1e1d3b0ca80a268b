//! The rules as tables. Times are seconds; the token is minted at 1000.

use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::clock::Clock;
use crate::oauth::{Issuer, Resource, Scopes};
use crate::token::{AccessToken, Credential};

const MINTED: f64 = 1_000.0;

fn at(seconds: f64) -> Boot {
    Clock::system().just_before(Duration::MAX) + Duration::from_secs_f64(seconds)
}

fn span(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn token(life: f64) -> Token {
    let access_token = AccessToken::parse("a-token".to_owned()).expect("visible ASCII");
    Token {
        digest: access_token.digest(),
        credential: Credential::Bearer(access_token),
        scopes: Scopes::default(),
        missing: Default::default(),
        server: "a".into(),
        resource: Resource::verbatim("https://mcp.example.com"),
        issuer: Issuer::parse("https://as.example.com").expect("good"),
        minted: at(MINTED),
        minted_wall: SystemTime::UNIX_EPOCH,
        expires_at: String::new(),
        dates_itself: true,
        is_cut: false,
        life: span(life),
        jti: None,
        hops: Arc::default(),
        is_for_nobody: false,
        beside_token: Default::default(),
        in_audit: Default::default(),
    }
}

const BUSY: Verdict = Verdict::Temporary { retry_after: None, tried_patiently: false, absent: false };
const ABSENT: Verdict = Verdict::Temporary { retry_after: None, tried_patiently: false, absent: true };
const PATIENT: Verdict = Verdict::Temporary { retry_after: None, tried_patiently: true, absent: false };

fn retry_after(seconds: u64) -> Verdict {
    Verdict::Temporary { retry_after: Some(Duration::from_secs(seconds)), tried_patiently: false, absent: false }
}

#[test]
fn a_token_is_served_until_its_expiry_less_ten_seconds_or_5_percent() {
    for (life, age, served) in [
        (60.0, 0.0, true),
        (60.0, 56.9, true),
        (60.0, 57.0, false),
        (60.0, 61.0, false),
        (3_600.0, 3_589.0, true),
        (3_600.0, 3_590.0, false),
        (0.0, 0.0, false),
    ] {
        assert_eq!(may_be_served(&token(life), at(MINTED + age)), served, "{age} s of {life} s");
    }
}

#[test]
fn the_renewal_point_spreads_over_70_to_85_percent_of_a_life() {
    let jitter = Jitter::seeded(3);
    for life in [2.0, 60.0, 86_400.0] {
        let points: Vec<Boot> = (0..200).map(|_| renewal_point(&token(life), &jitter)).collect();
        let part = |part: f64| at(MINTED + life * part);
        assert!(points.iter().all(|point| (part(0.7)..=part(0.85)).contains(point)), "{life}");
        assert!(points.iter().any(|point| *point < part(0.72)) && points.iter().any(|point| *point > part(0.83)));
    }
}

#[test]
fn the_plan_renews_a_key_in_use_and_forgets_one_that_nobody_asks_for() {
    use Plan::{Forget, LookAt, Renew};
    // A token of 60 s from 1000 to 1060, to be renewed at 1045, last asked for at 1000.
    let held = Times {
        used: at(MINTED),
        always: false,
        life: span(60.0),
        expires: Some(at(1_060.0)),
        renew_at: at(1_045.0),
        failed_until: None,
        repeats_until: None,
    };
    let unused = Times { used: at(900.0), ..held };
    let kept = Times { used: at(0.0), always: true, ..held };
    let failing = Times { failed_until: Some(at(1_100.0)), ..held };
    let repeated = Times { repeats_until: Some(at(1_052.0)), ..held };
    let never = Times { life: Duration::ZERO, expires: None, renew_at: at(MINTED), ..held };
    let refused = Times { failed_until: Some(at(1_100.0)), ..never };
    for (name, times, now, wanted) in [
        ("before the renewal point", held, 1_044.0, LookAt(at(1_045.0))),
        ("at the renewal point", held, 1_045.0, Renew),
        ("asked for one life ago", held, 1_060.0, Renew),
        ("asked for longer ago than one life", held, 1_060.1, Forget),
        ("unused, before the renewal point", unused, 1_001.0, LookAt(at(1_045.0))),
        ("unused, at the renewal point: it lapses", unused, 1_045.0, LookAt(at(1_061.0))),
        ("unused and expired", unused, 1_061.0, Forget),
        ("always kept", kept, 1_045.0, Renew),
        ("always kept, long after", kept, 9_999.0, Renew),
        ("backing off", failing, 1_050.0, LookAt(at(1_100.0))),
        ("the back-off is over, and nobody asked", failing, 1_100.0, LookAt(at(1_101.0))),
        ("the issuer repeats its token", repeated, 1_045.0, LookAt(at(1_052.0))),
        ("it may have another one now", repeated, 1_052.0, Renew),
        ("never had a token", never, 1_000.0, LookAt(at(1_061.0))),
        ("never had a token, a minute later", never, 1_060.1, Forget),
        ("never had a token and is refused", refused, 1_070.0, LookAt(at(1_101.0))),
    ] {
        assert_eq!(plan(&times, at(now)), wanted, "{name}");
    }
}

#[test]
fn the_wait_after_a_failure_follows_its_verdict() {
    let jitter = Jitter::seeded(7);
    for (verdict, failures, shortest, longest) in [
        (Verdict::Permanent, 1, 30.0, 30.0),
        (Verdict::Permanent, 9, 30.0, 30.0),
        (Verdict::UntilIdentityChanges, 1, 0.5, 1.0),
        (Verdict::UntilIdentityChanges, 99, 0.5, 5.0),
        (BUSY, 1, 0.5, 1.0),
        (BUSY, 2, 0.5, 2.0),
        (BUSY, 7, 0.5, 60.0),
        (BUSY, 40, 0.5, 60.0),
        (retry_after(0), 1, 0.5, 1.0),
        (retry_after(40), 1, 40.0, 40.0),
        (retry_after(600), 40, 600.0, 600.0),
    ] {
        let waits: Vec<Duration> = (0..200).map(|_| wait_after(verdict, failures, &jitter)).collect();
        let allowed = span(shortest)..=span(longest);
        assert!(waits.iter().all(|wait| allowed.contains(wait)), "{verdict:?} {failures}");
        let width = span((longest - shortest) / 4.0);
        let spread = waits.iter().max().zip(waits.iter().min()).map(|(most, least)| *most - *least);
        assert!(spread >= Some(width), "full jitter: {verdict:?} {failures}");
    }
}

#[test]
fn a_flight_tries_again_only_where_that_helps() {
    let (daemon, one_shot) = (Persistence::Daemon, Persistence::OneShot(Duration::from_secs(10)));
    let jitter = Jitter::seeded(11);
    for (name, persistence, verdict, tries, took, between) in [
        ("a hiccup", daemon, BUSY, 1, 0.0, (0.2, 0.4)),
        ("a second one", daemon, BUSY, 2, 1.0, (0.2, 0.5)),
        ("one shot", one_shot, BUSY, 1, 0.0, (0.5, 1.0)),
        ("one shot, a patient source", one_shot, PATIENT, 2, 1.0, (0.5, 2.0)),
        ("one shot, a busy server", one_shot, retry_after(4), 1, 0.0, (4.0, 4.0)),
        ("one shot, nobody there yet", one_shot, ABSENT, 1, 0.0, (0.5, 1.0)),
        ("one shot, just enough time", one_shot, retry_after(4), 1, 4.5, (4.0, 4.0)),
    ] {
        let next = next_try(persistence, verdict, Progress { tries, in_outage: false, took: span(took) }, &jitter);
        let allowed = span(between.0)..=span(between.1);
        assert!(matches!(next, Next::Again(wait) if allowed.contains(&wait)), "{name}: {next:?}");
    }
    for (name, persistence, verdict, tries, in_outage, took, wanted) in [
        ("a third hiccup", daemon, BUSY, 3, false, 2.0, Next::Fail),
        ("an outage", daemon, BUSY, 1, true, 0.0, Next::Fail),
        ("a patient source", daemon, PATIENT, 1, false, 0.0, Next::Fail),
        ("a busy server", daemon, retry_after(0), 1, false, 0.0, Next::Fail),
        ("a refusal", daemon, Verdict::Permanent, 1, false, 0.0, Next::Fail),
        ("one shot, a very busy server", one_shot, retry_after(11), 1, false, 0.0, Next::Fail),
        ("one shot, too little time", one_shot, retry_after(4), 1, false, 4.6, Next::Fail),
        ("one shot, a refusal", one_shot, Verdict::Permanent, 1, false, 9.0, Next::Fail),
        ("one shot, nobody there", one_shot, ABSENT, 2, false, 2.0, Next::Fail),
        ("one shot, cut short", one_shot, BUSY, 2, false, 9.0, Next::OutOfTime),
    ] {
        let progress = Progress { tries, in_outage, took: span(took) };
        assert_eq!(next_try(persistence, verdict, progress, &jitter), wanted, "{name}");
    }
}

#[test]
fn a_one_shot_keeps_a_tenth_of_its_time_to_report() {
    for (limit, for_requests) in [(0.5, 0.4), (4.0, 3.6), (60.0, 59.0), (0.05, 0.0)] {
        assert_eq!(Persistence::OneShot(span(limit)).for_requests(), Some(span(for_requests)));
    }
    assert_eq!(Persistence::Daemon.for_requests(), None);
}

#[test]
fn forced_mints_are_three_and_then_one_every_ten_seconds() {
    let mut forced = forced_mints();
    let taken: Vec<bool> =
        [0.0, 0.0, 0.0, 0.0, 9.9, 10.0, 10.0, 20.0].map(|now| forced.take(at(MINTED + now)).is_ok()).into();
    assert_eq!(taken, [true, true, true, false, false, true, false, true]);
}

#[test]
fn a_token_younger_than_five_seconds_or_10_percent_is_not_dropped() {
    for (life, age, too_young) in
        [(600.0, 4.9, true), (600.0, 5.0, false), (20.0, 1.9, true), (20.0, 2.0, false), (0.0, 0.0, false)]
    {
        assert_eq!(too_young_to_reject(&token(life), at(MINTED + age)), too_young, "{age} s of {life} s");
    }
}

#[test]
fn a_wish_mints_only_where_a_new_token_meets_it() {
    for (name, life, age, least, would_help) in [
        ("it has the life", 600.0, 100.0, 500.0, false),
        ("it has less", 600.0, 100.1, 500.0, true),
        ("no token of this issuer has it", 600.0, 300.0, 601.0, false),
        ("it is nearly new", 600.0, 59.0, 600.0, false),
        ("it is no longer nearly new", 600.0, 60.0, 600.0, true),
    ] {
        assert_eq!(newer_would_last(&token(life), span(least), at(MINTED + age)), would_help, "{name}");
    }
}

#[test]
fn a_helper_wants_a_fifth_of_a_life_and_at_most_a_minute() {
    for (life, least) in [(10.0, 2.0), (300.0, 60.0), (3_600.0, 60.0)] {
        assert_eq!(least_for_helper(span(life)), span(least));
    }
}

#[test]
fn an_issuer_that_repeats_its_token_rests_for_half_of_what_is_left() {
    for (age, pause) in [(0.0, 30.0), (40.0, 10.0), (59.5, 1.0), (70.0, 1.0)] {
        assert_eq!(repeat_pause(&token(60.0), at(MINTED + age)), span(pause));
    }
}

#[test]
fn a_flight_has_a_limit() {
    assert_eq!(flight_limit(Persistence::Daemon), span(90.0));
    assert_eq!(flight_limit(Persistence::OneShot(span(7.0))), span(7.0));
}
