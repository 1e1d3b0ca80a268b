//! Several users of one cache: none can take anything from another.

use super::*;

const HOSTILE: u32 = 666;

fn by(user: u32) -> Wish {
    Wish { user: Some(user), ..Wish::ANY }
}

fn key_of(name: usize) -> Key {
    Digest::of(&name.to_be_bytes())
}

impl Rig {
    async fn get(&self, key: Key, wish: Wish) -> Result<Arc<Token>, Fail> {
        match self.cache.hit(&key, &wish) {
            Some(token) => Ok(token),
            None => self.cache.token(key, &wish, || self.recipe()).await,
        }
    }

    /// Asks for this many keys, each under its own name, and hangs up at once. Gives how many were refused.
    async fn ask_and_hang_up(&self, user: u32, names: std::ops::Range<usize>) -> usize {
        let mut refused = 0;
        for name in names {
            let asked = tokio::time::timeout(Duration::ZERO, self.get(key_of(name), by(user))).await;
            refused += usize::from(matches!(asked, Ok(Err(Fail::Lost(Lost::Crowded)))));
        }
        refused
    }

    fn entries(&self) -> usize {
        self.cache.lock().entries.len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_that_asks_for_ever_new_keys_and_hangs_up_has_sixteen_flights() {
    let rig = Rig::new(Mood::Stalls);
    let refused = rig.ask_and_hang_up(HOSTILE, 0..400).await;
    assert_eq!((refused, rig.entries()), (400 - 16, 16), "what is refused leaves nothing behind");
    sleep(1).await;
    assert_eq!(rig.issuer.calls(), 16);
    rig.issuer.set(Mood::Fine { life: 60 });
    let joined = tokio::time::timeout(Duration::from_secs(5), rig.get(key_of(0), by(2))).await;
    assert!(joined.is_err(), "another user shares the flight that there is, which stalls");
    assert!(rig.get(key_of(1_000), by(2)).await.is_ok(), "another user has flights of its own");
    sleep(91).await;
    assert!(rig.get(key_of(1_001), by(HOSTILE)).await.is_ok(), "the flights have ended");
}

#[tokio::test(start_paused = true)]
async fn flights_are_bounded_in_all_and_a_user_without_one_still_starts_its_first() {
    let rig = Rig::new(Mood::Stalls);
    let mut refused = 0;
    for user in 0..50 {
        let from = user as usize * 20;
        refused += rig.ask_and_hang_up(user, from..from + 20).await;
    }
    // Eight users have sixteen each; the 42 after them have one each.
    assert_eq!(rig.entries(), 128 + 42);
    assert_eq!(refused, 50 * 20 - (128 + 42));
    for user in 100..400 {
        refused = rig.ask_and_hang_up(user, 5_000 + user as usize..5_001 + user as usize).await;
    }
    assert_eq!((rig.entries(), refused), (256, 1));
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_of_flights_a_valid_token_is_given_and_none_is_lost() {
    let rig = Rig::new(Mood::Fine { life: 600 });
    let first = rig.get(key(), by(HOSTILE)).await.expect("issued");
    rig.issuer.set(Mood::Stalls);
    rig.ask_and_hang_up(HOSTILE, 0..20).await;
    sleep(2).await;
    let newer_than = Some(rig.clock.just_before(Duration::from_secs(1)));
    let forced = rig.get(key(), Wish { newer_than, ..by(HOSTILE) }).await.expect("the one there is");
    assert_eq!(forced.digest, first.digest);
}

#[tokio::test(start_paused = true)]
async fn a_user_with_many_keys_loses_its_own_and_the_tokens_of_others_stay() {
    let rig = Rig::new(Mood::Fine { life: 86_400 });
    let honest = rig.get(key(), by(1)).await.expect("issued");
    let shared = rig.get(key_of(0), by(HOSTILE)).await.expect("issued");
    rig.get(key_of(0), by(1)).await.expect("held");
    for name in 1..3_000 {
        rig.get(key_of(name), by(HOSTILE)).await.expect("issued");
    }
    assert_eq!(rig.entries(), 1 + policy::CAP_OF_USER);
    let held = |key, wish: Wish| rig.cache.hit(&key, &wish).map(|token| token.digest);
    assert_eq!(held(key(), by(1)), Some(honest.digest));
    assert_eq!(held(key_of(0), by(1)), Some(shared.digest), "it is not the hostile user's alone");
    assert!(held(key_of(2_999), by(HOSTILE)).is_some() && held(key_of(1), by(HOSTILE)).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_entry_with_a_valid_token_is_removed_last() {
    let rig = Rig::new(Mood::Fine { life: 86_400 });
    for name in 0..policy::CAP - 1 {
        rig.get(key_of(name), by((name % 8) as u32)).await.expect("issued");
    }
    rig.issuer.set(Mood::Refuses);
    assert!(rig.get(key_of(10_000), by(9)).await.is_err());
    assert_eq!(rig.entries(), policy::CAP);
    rig.issuer.set(Mood::Fine { life: 86_400 });
    sleep(1).await;
    assert!(rig.get(key_of(10_001), by(10)).await.is_ok());
    let lost = (0..policy::CAP - 1).filter(|name| rig.cache.peek(&key_of(*name)).0.is_none()).count();
    assert_eq!((rig.entries(), lost), (policy::CAP, 0), "the failed one went, though it was the newest");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_one_user_rejects_is_served_to_others_until_the_next_one_is_there() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.get(key(), by(1)).await.expect("issued").digest;
    sleep(6).await;
    assert!(rig.cache.reject(&key(), &first, HOSTILE));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.issuer.calls(), 2, "a flight starts at once");
    assert_eq!(rig.cache.hit(&key(), &by(1)).map(|token| token.digest), Some(first), "others do not wait");
    assert!(rig.cache.hit(&key(), &by(HOSTILE)).is_none());
    let next = rig.get(key(), by(HOSTILE)).await.expect("who rejects waits for the next one").digest;
    assert_ne!(next, first);
    assert_eq!(rig.cache.hit(&key(), &by(1)).map(|token| token.digest), Some(next));
    assert_eq!(rig.issuer.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_during_an_outage_takes_the_token_from_who_rejects_alone() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.get(key(), by(1)).await.expect("issued").digest;
    rig.issuer.set(Mood::Down);
    sleep(6).await;
    assert!(rig.cache.reject(&key(), &first, HOSTILE));
    for _ in 0..10 {
        sleep(1).await;
        assert_eq!(rig.get(key(), by(1)).await.map(|token| token.digest), Ok(first));
        assert!(rig.get(key(), by(HOSTILE)).await.is_err());
    }
    let rig = Rig::new(Mood::Fine { life: 60 });
    let first = rig.get(key(), by(1)).await.expect("issued").digest;
    rig.issuer.set(Mood::Down);
    sleep(6).await;
    assert!(rig.cache.reject(&key(), &first, HOSTILE) && rig.cache.reject(&key(), &first, 1));
    assert!(rig.get(key(), by(1)).await.is_err(), "it was refused to this one too");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_very_many_users_reject_is_dropped() {
    let rig = Rig::new(Mood::Fine { life: 600 });
    let first = rig.get(key(), by(1)).await.expect("issued").digest;
    rig.issuer.set(Mood::Stalls);
    sleep(6).await;
    for user in 2..=18 {
        assert!(rig.cache.reject(&key(), &first, user), "{user}");
    }
    assert!(rig.cache.hit(&key(), &by(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn forced_mints_of_one_user_leave_another_its_own() {
    let rig = Rig::new(Mood::Fine { life: 600 });
    rig.get(key(), by(1)).await.expect("issued");
    let force = |user| {
        let newer_than = Some(rig.clock.just_before(Duration::from_secs(1)));
        rig.get(key(), Wish { newer_than, ..by(user) })
    };
    for _ in 0..5 {
        sleep(1).await;
        force(HOSTILE).await.expect("a token");
    }
    sleep(2).await;
    let before = rig.issuer.calls();
    force(HOSTILE).await.expect("the one there is");
    assert_eq!(rig.issuer.calls(), before, "the hostile user has used up its own");
    force(1).await.expect("a new one");
    assert_eq!(rig.issuer.calls(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_given_up_for_their_only_user_or_the_operator_and_as_often_as_mints_are_forced() {
    let rig = Rig::new(Mood::Fine { life: 600 });
    let (own, others) = (Revoker { user: HOSTILE, is_operator: false }, Revoker { user: 0, is_operator: true });
    rig.get(key(), by(HOSTILE)).await.expect("issued");
    assert_eq!(rig.cache.give_up(&key(), own).map(|tokens| tokens.len()), Ok(1));
    rig.get(key(), by(1)).await.expect("issued");
    assert_eq!(rig.cache.give_up(&key(), own).map(drop), Err(Kept::Shared));
    assert_eq!(rig.cache.give_up(&key(), others).map(|tokens| tokens.len()), Ok(1));
    let mut mints = 0;
    for _ in 0..34 {
        rig.get(key_of(1), by(HOSTILE)).await.expect("a token");
        mints += usize::from(rig.cache.give_up(&key_of(1), own).is_ok());
    }
    assert!((3..=4).contains(&mints), "{mints}");
}

#[tokio::test(start_paused = true)]
async fn a_flight_says_how_urgent_it_is_and_for_whom() {
    let rig = Rig::new(Mood::Fine { life: 60 });
    let turns = Arc::new(Mutex::new(Vec::new()));
    let recipe: Recipe<Fail> = {
        let (turns, inner) = (Arc::clone(&turns), rig.recipe());
        Arc::new(move |urgency: Urgency| {
            turns.lock().expect("whole").push((urgency.first_user(), urgency.level()));
            inner(urgency)
        })
    };
    rig.cache.token(key(), &by(1), || recipe).await.expect("issued");
    sleep(58).await;
    rig.cache.hit(&key(), &by(2)).expect("renewed");
    sleep(50).await;
    let turns = turns.lock().expect("whole").clone();
    assert_eq!(turns, [(Some(1), Level::Awaited), (Some(1), Level::Renewal), (None, Level::Renewal)]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_taken_over_again_counts_once_for_its_user() {
    let (before, after) = (Rig::new(Mood::Fine { life: 600 }), Rig::new(Mood::Fine { life: 600 }));
    let first = before.get(key_of(0), by(1)).await.expect("issued");
    let keys = || after.cache.lock().load.keys(Some(1));
    for _ in 0..3 {
        after.cache.inherit(&before.cache, |_, _| Some(after.recipe()));
        assert_eq!((keys(), after.entries()), (1, 1));
    }
    let held = after.get(key_of(0), by(1)).await.expect("taken over");
    assert_eq!((held.digest == first.digest, after.issuer.calls()), (true, 0));
    after.cache.lock().remove(&key_of(0));
    assert_eq!(keys(), 0, "nothing is counted for ever");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_taken_over_does_not_replace_one_that_is_there() {
    let (before, after) = (Rig::new(Mood::Fine { life: 600 }), Rig::new(Mood::Stalls));
    before.get(key_of(0), by(1)).await.expect("issued");
    assert_eq!(after.ask_and_hang_up(2, 0..1).await, 0);
    after.cache.inherit(&before.cache, |_, _| Some(after.recipe()));
    let keys = |user| after.cache.lock().load.keys(Some(user));
    assert_eq!((keys(1), keys(2), after.entries()), (0, 1, 1), "its maker and its flight are known");
}
