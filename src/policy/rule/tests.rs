use super::*;
use crate::caller::Facts;

fn digest(of: char) -> Digest {
    Digest::parse_hex(&of.to_string().repeat(64)).expect("hexadecimal")
}

/// A process that runs `/usr/bin/agent`, seen from its own mount namespace.
fn agent() -> Program {
    Program {
        path: "/usr/bin/agent".to_owned(),
        stands_at: vec!["/usr/bin/agent".into()],
        sees_our_files: true,
        sha256: Ok(digest('a')),
        is_helper: false,
    }
}

fn named(unit: &str) -> UnitName {
    UnitName::parse(unit).expect("a service or scope")
}

fn unit(system: &str, user: Option<(u32, &str)>) -> Unit {
    Unit { system: named(system), user: user.map(|(uid, name)| UserUnit { uid, name: named(name) }) }
}

fn caller(program: Result<Program, Why>, unit: Result<Unit, Why>) -> Caller {
    Caller::on_socket(1000, 2000, Some(7)).with(Facts { program, unit })
}

fn running(program: Program) -> Caller {
    caller(Ok(program), Err(Why::NoUnit))
}

fn within(unit: Unit) -> Caller {
    caller(Err(Why::Forbidden), Ok(unit))
}

fn by_exe(sha256: Option<Digest>) -> Rule {
    Rule { exe: Some("/usr/bin/agent".into()), sha256, ..Rule::default() }
}

fn by_unit(name: &str) -> Rule {
    Rule { unit: Some(WantedUnit { name: named(name), of_user: 1000 }), ..Rule::default() }
}

fn why(rule: &Rule, caller: &Caller) -> String {
    assert!(!rule.matches(caller));
    rule.misses(caller).map(|miss| miss.to_string()).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_program_matches_by_the_file_that_stands_at_the_path() {
    assert!(by_exe(None).matches(&running(agent())));
    // A link at the configured path leads to the file that runs.
    assert!(by_exe(None).matches(&running(Program { path: "/usr/lib/agent-7".to_owned(), ..agent() })));
    let copy = Program { path: "/tmp/agent".to_owned(), stands_at: Vec::new(), ..agent() };
    assert_eq!(why(&by_exe(None), &running(copy)), "`exe` is another than \"/tmp/agent\"");
}

#[test]
fn a_name_without_the_file_behind_it_proves_nothing() {
    let replaced = Program { stands_at: Vec::new(), ..agent() };
    assert!(why(&by_exe(None), &running(replaced.clone())).contains("start the program again"));
    assert!(by_exe(Some(digest('a'))).matches(&running(replaced)), "its digest does");
}

#[test]
fn another_mount_namespace_needs_the_digest() {
    for stands_at in [agent().stands_at, Vec::new()] {
        let elsewhere = Program { sees_our_files: false, stands_at, ..agent() };
        assert!(why(&by_exe(None), &running(elsewhere.clone())).contains("`sha256`"));
        assert!(by_exe(Some(digest('a'))).matches(&running(elsewhere)));
    }
}

#[test]
fn a_digest_must_match_and_alone_it_identifies() {
    let by_digest = |of| Rule { sha256: Some(digest(of)), ..Rule::default() };
    let moved = Program { path: "/elsewhere".to_owned(), stands_at: Vec::new(), sees_our_files: false, ..agent() };
    assert!(by_digest('a').matches(&running(moved.clone())));
    assert!(why(&by_digest('b'), &running(moved.clone())).contains(&digest('a').to_string()));
    assert!(why(&by_exe(Some(digest('b'))), &running(agent())).starts_with("`sha256` is another"));
    assert!(why(&by_exe(Some(digest('a'))), &running(moved)).starts_with("`exe` is another"));
    let unread = Program { sha256: Err(Why::TooLarge), ..agent() };
    assert!(why(&by_exe(Some(digest('a'))), &running(unread)).contains("256 MiB"));
}

#[test]
fn what_is_not_known_matches_nothing_and_says_why() {
    for reason in [Why::NotRead, Why::Gone, Why::Forbidden, Why::OtherPidNamespace, Why::NotLinux, Why::Earlier] {
        let caller = caller(Err(reason.clone()), Err(reason.clone()));
        for (rule, key) in [(by_exe(None), "exe"), (by_unit("a.service"), "unit")] {
            assert_eq!(why(&rule, &caller), format!("`{key}` cannot be told: {reason}"));
        }
    }
    assert!(Why::OtherPidNamespace.to_string().contains("shareProcessNamespace"));
    assert!(Why::Forbidden.to_string().contains("CAP_SYS_PTRACE"));
}

#[test]
fn behind_a_helper_the_hint_says_that_no_program_can_match() {
    let helper = Program { path: "/usr/bin/safeconduct".to_owned(), stands_at: Vec::new(), is_helper: true, ..agent() };
    assert!(why(&by_exe(None), &running(helper)).contains("behind a helper"));
}

#[test]
fn a_unit_matches_by_its_whole_name() {
    assert!(by_unit("agent.service").matches(&within(unit("agent.service", None))));
    for other in ["agent.scope", "agent@1.service", "my-agent.service", "Agent.service"] {
        assert_eq!(
            why(&by_unit("agent.service"), &within(unit(other, None))),
            format!("`unit` is another than {other}")
        );
    }
}

#[test]
fn a_users_unit_matches_only_for_the_user_that_the_rule_means() {
    let of = |uid| within(unit(&format!("user@{uid}.service"), Some((uid, "agent.service"))));
    assert!(by_unit("agent.service").matches(&of(1000)));
    assert!(why(&by_unit("agent.service"), &of(1001)).contains("agent.service of user 1001"));
    assert!(by_unit("user@1001.service").matches(&of(1001)), "all that a user's manager started");
}

#[test]
fn all_keys_must_match() {
    let both = Rule { uid: Some(1000), gid: Some(2000), unit: by_unit("agent.service").unit, ..by_exe(None) };
    let fine = caller(Ok(agent()), Ok(unit("agent.service", None)));
    assert!(both.matches(&fine));
    assert!(!Rule { uid: Some(1), ..both.clone() }.matches(&fine));
    assert!(!Rule { gid: Some(1), ..both.clone() }.matches(&fine));
    assert!(!Rule { unit: by_unit("x.service").unit, ..both.clone() }.matches(&fine));
    let nothing = caller(Err(Why::Gone), Err(Why::Gone));
    assert_eq!(both.misses(&nothing).count(), 2);
    assert_eq!(Rule { uid: Some(1), ..both }.misses(&nothing).count(), 0, "it is for somebody else");
}

#[test]
fn over_tcp_only_the_user_can_match() {
    let caller = Caller::by_tcp(1000);
    assert!(Rule::user(1000).matches(&caller));
    assert!(!Rule::user(1001).matches(&caller));
    let sha256 = Rule { sha256: Some(digest('a')), ..Rule::default() };
    let gid = Rule { gid: Some(2000), ..Rule::default() };
    for rule in [by_exe(None), by_exe(Some(digest('a'))), sha256, by_unit("agent.service"), gid] {
        assert!(!rule.matches(&caller), "{rule:?}");
        assert!(!Rule { uid: Some(1000), ..rule.clone() }.matches(&caller), "{rule:?}");
    }
    assert!(why(&by_exe(None), &caller).contains("over TCP only `uid` can match"));
}

#[test]
fn only_what_a_rule_for_this_caller_asks_is_needed() {
    let needs = |rule: &Rule| {
        let mut needs = Needs::default();
        rule.need(&Caller::on_socket(1000, 2000, Some(7)), &mut needs);
        needs
    };
    assert!(needs(&Rule::user(1000)).is_empty());
    assert!(needs(&Rule { uid: Some(1), ..by_exe(Some(digest('a'))) }).is_empty(), "it is for somebody else");
    let with_digest = needs(&Rule { uid: Some(1000), ..by_exe(Some(digest('a'))) });
    assert!(with_digest.programs[0].digest && !with_digest.any_digest && !with_digest.unit);
    assert!(needs(&Rule { sha256: Some(digest('a')), ..Rule::default() }).any_digest);
    assert!(needs(&by_unit("a.service")).unit && !needs(&by_unit("a.service")).program());
}
