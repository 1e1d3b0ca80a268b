use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::verify::LINE_CAP;
use super::*;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::oauth::{Issuer, Resource, Scopes};
use crate::token::{AccessToken, Credential, Digest, Hop, Token};

pub(crate) struct Place {
    pub(crate) directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("ours");
        Self { directory }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    fn config(&self) -> Config {
        Config { file: self.path(), uid: nix::unistd::geteuid().as_raw() }
    }

    pub(crate) fn hold(&self) -> Audit {
        Audit::hold(self.config()).expect("nothing is in the way")
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.path()).expect("ASCII")
    }
}

pub(crate) fn refusal<'a>(caller: &'a Caller, server: &'a str) -> Decision<'a> {
    Decision {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        action: Action::Token,
        outcome: Outcome::Refused { class: "bad_request", error: "unknown_server" },
        caller,
        helper: false,
        server: Some(server),
        asked: None,
        token: None,
        outer: None,
        rejected: None,
        call: None,
        done: None,
    }
}

fn note(audit: &Audit, count: usize) {
    let caller = Caller::on_socket(1, 2, None);
    for i in 0..count {
        audit.note(&refusal(&caller, &format!("server-{i}"))).expect("written");
    }
}

fn verified(texts: &[&str], wanted: Option<Digest>) -> Result<Report, Broken> {
    let mut verifier = Verifier::new(wanted);
    for text in texts {
        verifier.read(text.as_bytes()).expect("memory can be read")?;
    }
    Ok(verifier.report())
}

fn broken(text: &str) -> (u64, &'static str) {
    let broken = verified(&[text], None).expect_err("it is broken");
    (broken.at.line, broken.code)
}

/// Five lines of a chain.
fn five() -> String {
    let place = Place::new();
    note(&place.hold(), 5);
    place.text()
}

pub(crate) fn token(words: &str) -> Token {
    let access_token = AccessToken::parse("never-in-any-line-of-it".to_owned()).expect("it can be one");
    Token {
        digest: access_token.digest(),
        credential: Credential::Bearer(access_token),
        scopes: Scopes::parse("a b").expect("scopes"),
        missing: [].into(),
        server: "demo".into(),
        resource: Resource::verbatim("https://mcp.example.com/mcp"),
        issuer: Issuer::parse("https://as.example.com").expect("an issuer"),
        minted: Clock::system().boot(),
        minted_wall: SystemTime::UNIX_EPOCH,
        expires_at: "2023-11-14T22:13:20Z".to_owned(),
        dates_itself: false,
        is_cut: false,
        life: Duration::from_secs(60),
        jti: Some(words.to_owned()),
        hops: [
            Hop {
                source: "github-actions",
                iss: Some("https://ci.example.com".to_owned()),
                sub: Some(words.to_owned()),
            },
            Hop { source: "aws-role", iss: None, sub: Some("role".to_owned()) },
        ]
        .into(),
        is_for_nobody: false,
        beside_token: Default::default(),
        in_audit: Default::default(),
    }
}

// What a line says.

#[test]
fn a_line_says_who_got_what_for_which_server_as_whom() {
    let place = Place::new();
    let (caller, token) = (Caller::on_socket(1000, 100, None), token("repo:a/b"));
    let asked = Scopes::parse("a b c").expect("scopes");
    let served = Decision {
        outcome: Outcome::Served,
        helper: true,
        asked: Some(&asked),
        token: Some(&token),
        ..refusal(&caller, "demo")
    };
    place.hold().note(&served).expect("written");
    let line: serde_json::Value = serde_json::from_str(&place.text()).expect("one line of JSON");
    let expected = serde_json::json!({
        "prev": "0".repeat(64), "seq": 1, "time": "2023-11-14T22:13:20.123Z", "action": "token", "outcome": "served",
        "caller": { "uid": 1000, "gid": 100 }, "helper": true, "server": "demo", "asked": "a b c", "scopes": "a b",
        "identity": [
            { "source": "github-actions", "iss": "https://ci.example.com", "sub": "repo:a/b" },
            { "source": "aws-role", "sub": "role" },
        ],
        "sha256": token.digest.hex(), "jti": "repo:a/b", "issuer": "https://as.example.com",
        "resource": "https://mcp.example.com/mcp", "expires_at": "2023-11-14T22:13:20Z", "hash": line["hash"],
    });
    assert_eq!(line, expected);
    assert!(!place.text().contains("never-in-any-line"));
}

#[test]
fn words_of_others_are_escaped_and_cut() {
    let place = Place::new();
    let caller = Caller::on_socket(1, 1, None);
    let wild = "\u{202e}\n\"\\\u{7f}\u{1f600}".repeat(5_000);
    let token = token(&wild);
    let many: Vec<String> = (0..9_000).map(|i| format!("scope-{i}")).collect();
    let many = Scopes::from_list(many.iter().map(String::as_str)).expect("scopes");
    let (token, outer) = (Some(&token), Some(&token));
    let call = Some(CallSubject { id: "1", tool: Some(&wild) });
    let served = Decision { token, outer, asked: Some(&many), call, ..refusal(&caller, &wild) };
    place.hold().note(&served).expect("written");
    let text = place.text();
    assert!(text.is_ascii() && text.matches('\n').count() == 1 && text.len() < LINE_CAP, "{}", text.len());
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON all the same");
    assert!(line["server"].as_str().is_some_and(|server| server.starts_with("\u{202e}\n\"\\\u{7f}\u{1f600}")));
    assert_eq!(verified(&[&text], None).expect("whole").lines, 1);
}

// The chain.

#[test]
fn a_chain_goes_on_after_a_restart() {
    let place = Place::new();
    note(&place.hold(), 2);
    let audit = place.hold();
    note(&audit, 2);
    let report = verified(&[&place.text()], None).expect("whole");
    assert_eq!((report.lines, report.head, report.continues), (4, Some(audit.head()), None));
    assert_eq!(audit.head().seq, 4);
}

#[test]
fn a_stranger_finds_the_hash_of_a_line_without_its_hash() {
    let text = five();
    let line = text.lines().nth(2).expect("a third");
    let (body, hash) = line.split_once(",\"hash\":\"").expect("it comes last");
    assert_eq!(Digest::of(format!("{body}}}").as_bytes()).hex(), hash.trim_end_matches("\"}"));
}

#[test]
fn a_changed_byte_is_found_with_its_line() {
    let text = five();
    assert_eq!(broken(&text.replace("server-2", "server-9")), (3, "changed"));
    let hash = text.lines().nth(4).and_then(|line| line.rsplit('"').nth(1)).expect("its hash");
    let shout = hash.to_ascii_uppercase();
    assert_eq!(broken(&text.replace(hash, &shout)), (5, "changed"), "also the same hash in other letters");
}

#[test]
fn deleted_inserted_and_reordered_lines_are_told_apart() {
    let text = five();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let of = |order: &[usize]| order.iter().map(|&at| lines[at]).collect::<String>();
    assert_eq!(broken(&of(&[0, 1, 3, 4])), (3, "missing"));
    assert_eq!(broken(&of(&[0, 1, 1, 2, 3, 4])), (3, "out_of_order"));
    assert_eq!(broken(&of(&[0, 2, 1, 3, 4])), (2, "missing"));
    let reordered = verified(&[&of(&[0, 2, 1, 3, 4])], None).expect_err("broken");
    assert!(reordered.what.contains("the line that is due is line 3"), "{}", reordered.what);
    let deleted = verified(&[&of(&[0, 1, 3, 4])], None).expect_err("broken");
    assert!(deleted.what.contains("1 line is missing") && !deleted.what.contains("due is line"), "{}", deleted.what);
    let (stranger, caller) = (Place::new(), Caller::on_socket(7, 7, None));
    let audit = stranger.hold();
    audit.note(&refusal(&caller, "x")).expect("written");
    note(&audit, 1);
    let foreign = stranger.text();
    let other = foreign.split_inclusive('\n').nth(1).expect("a second");
    assert_eq!(broken(&[lines[0], other, lines[1]].concat()), (2, "not_continued"));
    assert_eq!(broken(&[lines[0], "{\"seq\":2}\n", lines[1]].concat()), (2, "changed"));
    assert_eq!(broken(&[lines[0], "nonsense\n", lines[1]].concat()), (2, "changed"));
}

#[test]
fn a_cut_end_is_found_with_a_head_that_was_noted() {
    let text = five();
    let whole = verified(&[&text], None).expect("whole");
    let head = whole.head.expect("it has lines").hash;
    let cut: String = text.split_inclusive('\n').take(3).collect();
    let earlier = verified(&[&cut], None).expect("a cut chain is whole in itself").head.expect("it has lines").hash;
    assert_eq!(verified(&[&cut], Some(head)).expect("whole").found, None);
    let line = |report: Report| report.found.map(|place| place.line);
    assert_eq!(line(verified(&[&text], Some(head)).expect("whole")), Some(5));
    assert_eq!(line(verified(&[&text], Some(earlier)).expect("whole")), Some(3), "lines may follow");
}

#[test]
fn a_torn_end_is_no_whole_chain() {
    let text = five();
    assert_eq!(broken(&text[..text.len() - 1]), (5, "torn_end"));
    assert_eq!(broken(&text[..text.len() - 40]), (5, "torn_end"));
}

proptest! {
    #[test]
    fn any_single_changed_byte_is_found(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = five().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(Verifier::new(None).read(&bytes[..]).expect("memory can be read").is_err());
    }

    #[test]
    fn after_any_loss_of_the_end_the_chain_goes_on(cut in any::<prop::sample::Index>(), zeros in 0..3_usize) {
        let place = Place::new();
        note(&place.hold(), 3);
        let mut bytes = place.text().into_bytes();
        bytes.truncate(cut.index(bytes.len()));
        bytes.extend_from_slice(&[0, 0][..zeros.min(2)]);
        fs::write(place.path(), &bytes).expect("ours");
        note(&place.hold(), 2);
        note(&place.hold(), 1);
        let now = fs::read(place.path()).expect("ours");
        prop_assert!(now.starts_with(&bytes), "what was there is kept");
        let mut verifier = Verifier::new(None);
        prop_assert_eq!(verifier.read(&now[..]).expect("memory can be read"), Ok(()));
        prop_assert!(verifier.report().torn_count <= 1);
    }
}

// Loss of power.

#[test]
fn a_torn_line_is_kept_and_told_and_the_chain_goes_on() {
    let place = Place::new();
    note(&place.hold(), 3);
    let whole = place.text();
    let torn = whole.len() - 100;
    fs::write(place.path(), &whole[..torn]).expect("ours");
    note(&place.hold(), 1);
    let report = verified(&[&place.text()], None).expect("whole but for what was told");
    assert_eq!((report.lines, report.torn_count), (4, 1));
    assert_eq!(report.torn[0].0.line, 3);
    // A change of the corrupt bytes is found, and a change of their `repair` too.
    let now = place.text();
    assert_eq!(broken(&now.replacen("\"seq\":3", "\"seq\":9", 1)).0, 3);
    let without: String =
        now.split_inclusive('\n').enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| line).collect();
    assert_eq!(broken(&without), (3, "deleted"));
}

#[test]
fn a_repair_that_was_torn_itself_is_repaired() {
    let place = Place::new();
    note(&place.hold(), 2);
    let whole = place.text();
    fs::write(place.path(), format!("{}\n{{\"prev\":\"12", &whole[..whole.len() - 50])).expect("ours");
    note(&place.hold(), 1);
    let report = verified(&[&place.text()], None).expect("whole");
    assert_eq!((report.lines, report.torn_count), (3, 1));
}

#[test]
fn a_line_that_only_lacks_its_end_is_whole() {
    let place = Place::new();
    note(&place.hold(), 2);
    let whole = place.text();
    fs::write(place.path(), whole.trim_end()).expect("ours");
    note(&place.hold(), 1);
    let report = verified(&[&place.text()], None).expect("whole");
    assert_eq!((report.lines, report.torn_count), (3, 0));
}

#[test]
fn a_changed_last_line_and_a_foreign_file_are_not_continued() {
    let place = Place::new();
    note(&place.hold(), 2);
    fs::write(place.path(), place.text().replace("server-1", "server-7")).expect("ours");
    let refused = Audit::hold(place.config()).expect_err("it was changed");
    assert!(matches!(&refused, Error::Chain { .. }) && refused.hint().contains("audit verify"), "{refused}");
    fs::write(place.path(), vec![b'x'; 5 * LINE_CAP]).expect("ours");
    assert!(matches!(Audit::hold(place.config()), Err(Error::Chain { .. })));
}

// The file.

#[test]
fn one_writer_holds_the_file() {
    let place = Place::new();
    let audit = place.hold();
    let second = Audit::hold(place.config()).expect_err("it is held");
    assert!(matches!(&second, Error::Held { .. }), "{second}");
    assert!(second.hint().contains("one daemon writes to one file"));
    // Not every file system has the inode in /proc/locks that stat(2) shows.
    let named = second.to_string();
    assert!(!named.contains("(pid ") || named.contains(&format!("(pid {})", std::process::id())), "{named}");
    drop(audit);
    drop(place.hold());
}

#[test]
fn commands_take_turns() {
    let place = Place::new();
    let config = place.config();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let config = config.clone();
            std::thread::spawn(move || note(&Audit::visit(config).expect("free soon"), 5))
        })
        .collect();
    for writer in writers {
        writer.join().expect("it wrote");
    }
    assert_eq!(verified(&[&place.text()], None).expect("whole").lines, 40);
}

#[test]
fn the_file_is_private_and_in_a_private_place() {
    let place = Place::new();
    drop(place.hold());
    assert_eq!(fs::metadata(place.path()).expect("made").mode() & 0o777, 0o600);
    let refused = |wanted: &str| {
        let error = Audit::hold(place.config()).expect_err(wanted);
        assert!(matches!(&error, Error::Unsafe { .. }) && error.to_string().contains(wanted), "{error}");
    };
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o620)).expect("ours");
    refused("it can be written by others");
    fs::rename(place.path(), place.directory.path().join("real")).expect("ours");
    symlink(place.directory.path().join("real"), place.path()).expect("free");
    refused("symbolic link");
    fs::remove_file(place.path()).expect("ours");
    fs::create_dir(place.path()).expect("free");
    refused("no regular file");
    fs::remove_dir(place.path()).expect("ours");
    nix::unistd::mkfifo(&place.path(), nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).expect("free");
    refused("no regular file");
    fs::remove_file(place.path()).expect("ours");
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o770)).expect("ours");
    refused("its directory can be written by others");
}

#[test]
fn a_rotation_carries_the_head_on() {
    let place = Place::new();
    let audit = place.hold();
    note(&audit, 2);
    audit.reopen().expect("nothing was renamed");
    note(&audit, 1);
    let first = place.text();
    fs::rename(place.path(), place.directory.path().join("audit.jsonl.1")).expect("ours");
    note(&audit, 1);
    audit.reopen().expect("the name is free");
    drop(audit);
    note(&place.hold(), 1);
    let old = fs::read_to_string(place.directory.path().join("audit.jsonl.1")).expect("kept");
    let new = place.text();
    assert!(old.starts_with(&first) && new.starts_with("{\"prev\":\"") && new.contains("\"action\":\"continue\""));
    let report = verified(&[&old, &new], None).expect("one chain");
    assert_eq!(report.lines, 6);
    assert!(verified(&[&new], None).expect("whole").continues.is_some());
    assert_eq!(verified(&[&first, &new], None).expect_err("a line is missing").code, "missing");
    let head = verified(&[&old], None).expect("whole").head.expect("lines").hash;
    assert_eq!(verified(&[&new], Some(head)).expect("whole").found.map(|place| place.line), Some(0));
}

#[test]
fn a_removed_file_is_made_anew_and_its_loss_shows() {
    let place = Place::new();
    let audit = place.hold();
    note(&audit, 2);
    let before = audit.head();
    fs::remove_file(place.path()).expect("ours");
    note(&audit, 1);
    let report = verified(&[&place.text()], None).expect("whole");
    assert_eq!((report.lines, report.continues), (2, Some(before.hash)));
}

#[test]
fn sixteen_threads_write_whole_lines() {
    let place = Place::new();
    let audit = Arc::new(place.hold());
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let audit = Arc::clone(&audit);
            std::thread::spawn(move || note(&audit, 25))
        })
        .collect();
    for writer in writers {
        writer.join().expect("it wrote");
    }
    assert_eq!(verified(&[&place.text()], None).expect("whole").lines, 400);
}

// Lines of one write.

/// A call that waits for its line, and that the test itself polls.
struct Call<'a>(Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>);

impl<'a> Call<'a> {
    fn new(audit: &'a Audit, server: &str) -> Self {
        let line = audit.line(&refusal(&Caller::on_socket(1, 2, None), server));
        Self(Box::pin(async move { line.written_with_others().await }))
    }

    /// `None` while it waits.
    fn poll(&mut self) -> Option<Result<(), Error>> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(written) => Some(written),
            Poll::Pending => None,
        }
    }
}

/// Lets the tasks of this runtime run that are ready.
async fn rest() {
    for _ in 0..3 {
        yield_now().await;
    }
}

#[test]
fn calls_of_one_moment_are_one_write_and_none_of_them_goes_on_before_it() {
    let place = Place::new();
    let audit = place.hold();
    let mut calls: Vec<_> = (0..9).map(|i| Call::new(&audit, &format!("server-{i}"))).collect();
    assert!(calls.iter_mut().all(|call| call.poll().is_none()));
    assert_eq!(place.text(), "");
    assert!(calls.swap_remove(4).poll().is_some_and(|written| written.is_ok()), "whoever comes first writes");
    assert_eq!(verified(&[&place.text()], None).expect("whole").lines, 9);
    fs::remove_file(place.path()).expect("ours");
    assert!(calls.iter_mut().all(|call| call.poll().is_some_and(|written| written.is_ok())));
    assert!(!place.path().exists(), "nobody else writes");
}

#[test]
fn a_group_that_cannot_be_written_is_refused_whole_and_the_chain_goes_on_without_it() {
    let place = Place::new();
    let audit = place.hold();
    note(&audit, 2);
    let (before, text) = (audit.head(), place.text());
    let mut calls: Vec<_> = (0..3).map(|_| Call::new(&audit, "lost")).collect();
    assert!(calls.iter_mut().all(|call| call.poll().is_none()));
    let allow = |mode| fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(mode)).expect("ours");
    fs::remove_file(place.path()).expect("ours");
    allow(0o777);
    assert!(calls[2].poll().is_some_and(|written| written.is_err()), "the first one finds out");
    allow(0o700);
    let mut late = Call::new(&audit, "late");
    assert!(late.poll().is_none());
    assert!(calls[..2].iter_mut().all(|call| matches!(call.poll(), Some(Err(Error::Unsafe { .. })))));
    assert_eq!((audit.failed().get(), audit.failure().is_some()), (3, true));
    assert!(late.poll().is_some_and(|written| written.is_ok()), "it was not in that group");
    assert!(audit.failure().is_none() && !place.text().contains("lost"));
    let report = verified(&[&text, &place.text()], None).expect("one chain");
    assert_eq!((report.lines, audit.head().seq), (4, before.seq + 2));
}

#[test]
fn a_call_that_is_given_up_while_its_line_waits_has_its_line() {
    let place = Place::new();
    let audit = place.hold();
    let mut call = Call::new(&audit, "demo");
    assert!(call.poll().is_none());
    drop(call);
    assert_eq!(place.text().lines().count(), 1);
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_before_its_runtime_rests_and_before_whatever_asks_for_the_file() {
    let place = Place::new();
    let (audit, caller) = (Arc::new(place.hold()), Caller::on_socket(1, 2, None));
    let soon = |count| (0..count).for_each(|_| audit.note_soon(&refusal(&caller, "demo")));
    let lines = || place.text().lines().count();
    soon(3);
    assert_eq!(lines(), 0);
    rest().await;
    assert_eq!(lines(), 3);
    soon(1);
    assert_eq!((audit.head().seq, lines()), (4, 4), "before the head is shown");
    soon(1);
    note(&audit, 1);
    assert_eq!(lines(), 6, "before the next line");
    soon(1);
    let old = place.directory.path().join("audit.jsonl.1");
    fs::rename(place.path(), &old).expect("ours");
    audit.reopen().expect("the name is free");
    let old = fs::read_to_string(old).expect("kept");
    assert_eq!((old.lines().count(), lines()), (7, 1), "before a rotation");
    soon(1);
    drop(audit);
    rest().await;
    assert_eq!(verified(&[&old, &place.text()], None).expect("one chain").lines, 9);
}

#[test]
fn what_nobody_waits_for_survives_the_end_of_its_runtime_and_needs_none() {
    let place = Place::new();
    let (audit, caller) = (Arc::new(place.hold()), Caller::on_socket(1, 2, None));
    audit.note_soon(&refusal(&caller, "demo"));
    assert_eq!(place.text().lines().count(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let guard = runtime.enter();
    audit.note_soon(&refusal(&caller, "demo"));
    assert_eq!(place.text().lines().count(), 1);
    drop(guard);
    drop(runtime);
    assert_eq!(place.text().lines().count(), 2);
    drop(audit);
    let command = Arc::new(Audit::visit(place.config()).expect("free"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _guard = runtime.enter();
    command.note_soon(&refusal(&caller, "demo"));
    assert_eq!(place.text().lines().count(), 3, "a command writes at once");
}

#[test]
fn a_group_does_not_grow_without_limit() {
    let place = Place::new();
    let (audit, caller) = (place.hold(), Caller::on_socket(1, 2, None));
    let server = "s".repeat(1_000);
    let calls: Vec<_> = (0..100).map(|_| audit.line(&refusal(&caller, &server))).collect();
    assert!(fs::metadata(place.path()).expect("there").len() > 64_000);
    drop(calls);
    assert_eq!(verified(&[&place.text()], None).expect("whole").lines, 100);
}

#[test]
fn two_runtimes_write_one_chain_over_rotations() {
    const CALLS: usize = 400;
    let place = Place::new();
    let audit = Arc::new(place.hold());
    note(&audit, 1);
    let calls = |of: usize| {
        let audit = Arc::clone(&audit);
        let one = move |audit: Arc<Audit>, number: usize| async move {
            let caller = Caller::on_socket(1, 2, None);
            let server = format!("{of}-{number}");
            audit.line(&refusal(&caller, &server)).written_with_others().await.expect("written");
            audit.note_soon(&Decision { action: Action::Done, ..refusal(&caller, &server) });
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let tasks: Vec<_> = (0..CALLS).map(|number| runtime.spawn(one(Arc::clone(&audit), number))).collect();
            runtime.block_on(async { futures_util::future::join_all(tasks).await });
        })
    };
    let threads = [calls(1), calls(2)];
    let mut names = Vec::new();
    for number in 0..3 {
        let name = place.directory.path().join(format!("audit.jsonl.{number}"));
        fs::rename(place.path(), &name).expect("it is there");
        audit.reopen().expect("the name is free");
        names.push(name);
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it wrote"));
    drop(audit);
    names.push(place.path());
    let texts: Vec<String> = names.iter().map(|name| fs::read_to_string(name).expect("kept")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(verified(&texts, None).expect("one chain").lines, (1 + 4 * CALLS + 3) as u64);
    let all = texts.concat();
    let at = |action: &str, server: &str| {
        all.lines().position(|line| line.contains(action) && line.contains(&format!("\"{server}\"")))
    };
    for server in ["1-0", "2-399"] {
        assert!(at("token", server).expect("there") < at("done", server).expect("there"));
    }
}
