use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::caller::WantedProgram;

const PID: i32 = 4321;

/// A `/proc` of data: our own entry, and that of one other process.
struct Fabricated(TempDir);

impl Fabricated {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let own = std::process::id().to_string();
        for pid in [&own, &PID.to_string()] {
            fs::create_dir_all(root.path().join(pid).join("ns")).expect("made");
        }
        symlink(&own, root.path().join("self")).expect("linked");
        let new = Self(root);
        new.write("namespace", "");
        for pid in [&own, &PID.to_string()] {
            fs::hard_link(new.path("namespace"), new.path(&format!("{pid}/ns/mnt"))).expect("linked");
        }
        new.write("4321/stat", "4321 (a) Z (b) S 1 1");
        new.write("4321/cgroup", "0::/system.slice/agent.service\n");
        new.write("agent", "abc");
        symlink(new.path("agent"), new.path("4321/exe")).expect("linked");
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn open(&self) -> Result<Process, Why> {
        Process::open(self.0.path(), PID)
    }

    fn needs(&self, digest: bool) -> Needs {
        let path = self.path("agent").display().to_string().into();
        Needs { programs: vec![WantedProgram { path, digest }], any_digest: false, unit: true }
    }

    async fn facts(&self) -> Facts {
        self.open().expect("there").facts(&self.needs(true), &Digests::default(), 1).await
    }
}

#[tokio::test]
async fn program_digest_and_unit_are_those_of_the_process() {
    let proc = Fabricated::new();
    let Facts { program, unit } = proc.facts().await;
    let program = program.expect("readable");
    assert_eq!(program.path, proc.path("agent").display().to_string());
    assert_eq!(program.stands_at.len(), 1);
    assert!(program.sees_our_files && !program.is_helper);
    let digest = program.sha256.expect("readable").to_string();
    assert!(digest.starts_with("ba7816bf"), "{digest}");
    assert_eq!(unit.map(|unit| unit.to_string()), Ok("agent.service".to_owned()));
}

#[tokio::test]
async fn only_what_is_needed_is_read() {
    let proc = Fabricated::new();
    let process = proc.open().expect("there");
    let digests = Digests::default();
    let unit = process.facts(&Needs { unit: true, ..Needs::default() }, &digests, 1).await;
    assert_eq!((unit.program, unit.unit.is_ok()), (Err(Why::NotRead), true));
    let exe = process.facts(&Needs { unit: false, ..proc.needs(false) }, &digests, 1).await;
    assert_eq!(exe.program.expect("readable").sha256, Err(Why::NotRead));
    assert_eq!(exe.unit, Err(Why::NotRead));
}

#[tokio::test]
async fn a_file_that_was_replaced_is_not_at_its_path_any_more() {
    let proc = Fabricated::new();
    let process = proc.open().expect("there");
    // The link of the real /proc leads to the old file whatever stands at its path.
    fs::hard_link(proc.path("agent"), proc.path("running")).expect("linked");
    fs::remove_file(proc.path("4321/exe")).expect("there");
    symlink(proc.path("running"), proc.path("4321/exe")).expect("linked");
    fs::remove_file(proc.path("agent")).expect("there");
    proc.write("agent", "another");
    let program = process.facts(&proc.needs(false), &Digests::default(), 1).await.program.expect("readable");
    assert_eq!(program.stands_at, Vec::<Arc<str>>::new());
}

#[tokio::test]
async fn a_process_that_has_ended_tells_nothing() {
    for state in ["Z", "X", "x"] {
        let proc = Fabricated::new();
        proc.write("4321/stat", &format!("4321 (a) S (b) {state} 1 1"));
        assert_eq!(proc.facts().await, Facts::unknown(&Why::Gone), "{state}");
    }
    let proc = Fabricated::new();
    let process = proc.open().expect("there");
    fs::remove_dir_all(proc.path("4321")).expect("there");
    // Another process of that number is not the one that is held.
    fs::create_dir(proc.path("4321")).expect("made");
    proc.write("4321/stat", "4321 (a) S 1");
    proc.write("4321/cgroup", "0::/system.slice/agent.service\n");
    assert_eq!(process.facts(&proc.needs(true), &Digests::default(), 1).await, Facts::unknown(&Why::Gone));
    assert_eq!(Process::open(proc.0.path(), 99).map(|_| ()), Err(Why::Gone));
}

/// `ProtectProc=invisible` and `hidepid` leave out the directories of other users' processes.
#[test]
fn a_process_that_proc_hides_has_not_ended() {
    let proc = Fabricated::new();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
    let pid = child.id().cast_signed();
    let hidden = Process::open(proc.0.path(), pid).map_err(|why| hidden_if_alive(why, || exists(pid))).map(|_| ());
    assert_eq!(hidden, Err(Why::Hidden));
    assert!(Why::Hidden.to_string().contains("ProtectProc="), "{}", Why::Hidden);
    child.kill().expect("ours");
    child.wait().expect("ours");
    assert_eq!(hidden_if_alive(Why::Gone, || exists(pid)), Why::Gone);
    assert_eq!(hidden_if_alive(Why::ForeignProc, || true), Why::ForeignProc);
}

#[tokio::test]
async fn another_mount_namespace_is_noticed() {
    let proc = Fabricated::new();
    fs::remove_file(proc.path("4321/ns/mnt")).expect("there");
    proc.write("4321/ns/mnt", "");
    assert!(!proc.facts().await.program.expect("readable").sees_our_files);
}

#[tokio::test]
async fn a_process_outside_of_any_unit_has_none() {
    let proc = Fabricated::new();
    proc.write("4321/cgroup", "0::/\n");
    assert_eq!(proc.facts().await.unit, Err(Why::NoUnit));
}

#[test]
fn a_proc_of_another_namespace_is_not_believed() {
    let proc = Fabricated::new();
    fs::remove_file(proc.path("self")).expect("there");
    symlink("1", proc.path("self")).expect("linked");
    assert_eq!(proc.open().map(|_| ()), Err(Why::ForeignProc));
}

#[tokio::test]
async fn both_ends_of_a_pair_are_this_very_process() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let own = fs::read_link("/proc/self/exe").expect("Linux has it").display().to_string();
    let programs = vec![WantedProgram { path: own.as_str().into(), digest: false }];
    let (needs, digests) = (Needs { programs, ..Needs::default() }, Digests::default());
    let connected = Process::connected(&one, Some(std::process::id().cast_signed()), &needs).expect("it lives");
    let program = connected.looked_at(&digests, 1).await.facts(&needs, &digests, 1).await.program;
    let program = program.expect("our own");
    assert_eq!((program.stands_at.len(), program.path.as_str()), (1, own.as_str()));
    assert!(program.sees_our_files && program.is_helper);
}

#[test]
fn without_a_number_there_is_no_process() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    assert_eq!(Process::connected(&one, None, &Needs::default()).map(|_| ()), Err(Why::OtherPidNamespace));
}

/// The process of the fabricated directory, as if it had just connected.
async fn connected(proc: &Fabricated, digests: &Digests) -> Process {
    proc.open().expect("there").now(&proc.needs(true)).looked_at(digests, 1).await
}

#[tokio::test]
async fn a_process_that_is_what_it_was_when_it_connected_is_told() {
    let (proc, digests) = (Fabricated::new(), Digests::default());
    let process = connected(&proc, &digests).await;
    for _ in 0..2 {
        let Facts { program, unit } = process.facts(&proc.needs(true), &digests, 1).await;
        assert!(program.expect("readable").sha256.is_ok() && unit.is_ok());
    }
}

#[tokio::test]
async fn a_program_or_unit_of_later_than_the_connection_counts_for_nothing() {
    let (proc, digests) = (Fabricated::new(), Digests::default());
    proc.write("foreign", "another");
    fs::remove_file(proc.path("4321/exe")).expect("there");
    symlink(proc.path("foreign"), proc.path("4321/exe")).expect("linked");
    proc.write("4321/cgroup", "0::/system.slice/other.service\n");
    let process = connected(&proc, &digests).await;
    fs::remove_file(proc.path("4321/exe")).expect("there");
    symlink(proc.path("agent"), proc.path("4321/exe")).expect("linked");
    proc.write("4321/cgroup", "0::/system.slice/agent.service\n");
    let facts = process.facts(&proc.needs(true), &digests, 1).await;
    assert_eq!((facts.program, facts.unit), (Err(Why::OtherThen), Err(Why::OtherThen)));
    assert!(Why::OtherThen.to_string().contains("connect again"));
    proc.write("4321/cgroup", "0::/\n");
    assert_eq!(process.facts(&proc.needs(true), &digests, 1).await.unit, Err(Why::NoUnit));
    // Nor does a unit of later help a process that had none.
    let process = connected(&proc, &digests).await;
    proc.write("4321/cgroup", "0::/system.slice/agent.service\n");
    assert_eq!(process.facts(&proc.needs(true), &digests, 1).await.unit, Err(Why::OtherThen));
}

/// The file is the caller's own: it connects with one content, and has the named digest when it asks.
#[tokio::test]
async fn a_file_that_was_written_to_after_the_connection_has_no_digest() {
    for asks_before in [false, true] {
        let (proc, digests) = (Fabricated::new(), Digests::default());
        proc.write("agent", "something else");
        let process = connected(&proc, &digests).await;
        let sha256 = async || process.facts(&proc.needs(true), &digests, 1).await.program.expect("readable").sha256;
        if asks_before {
            assert!(sha256().await.is_ok_and(|digest| !digest.to_string().starts_with("ba7816bf")));
        }
        proc.write("agent", "abc");
        assert_eq!(sha256().await, Err(Why::OtherThen), "asks before: {asks_before}");
    }
}

/// To remove a name of a file touches the file too. An upgrade does so, and what runs stays what it was.
#[tokio::test]
async fn an_upgrade_leaves_the_digest_of_what_runs_to_a_connection_that_was_judged_before() {
    let (proc, digests) = (Fabricated::new(), Digests::default());
    let process = connected(&proc, &digests).await;
    let sha256 = async || process.facts(&proc.needs(true), &digests, 1).await.program.expect("readable").sha256;
    let before = sha256().await.expect("readable");
    fs::hard_link(proc.path("agent"), proc.path("another-name")).expect("linked");
    assert_eq!(sha256().await, Ok(before));
}

/// A rule that a reload brought asks for more than was looked at when the process connected.
#[tokio::test]
async fn a_connection_that_is_older_than_the_rule_is_told_so() {
    let (proc, digests) = (Fabricated::new(), Digests::default());
    let only_unit = Needs { unit: true, ..Needs::default() };
    let process = proc.open().expect("there").now(&only_unit).looked_at(&digests, 1).await;
    let facts = process.facts(&proc.needs(true), &digests, 1).await;
    assert_eq!((facts.program, facts.unit.is_ok()), (Err(Why::Earlier), true));
}
