//! Whoever is killed, nothing is left.

use super::*;

/// A command with a child, and with a child of that child that is nobody's.
const FAMILY: &str = "trap '' TERM; sh -c 'trap \"\" TERM; (sleep 600 & echo orphan $!); sleep 600 & echo grandchild $!; wait' & \
    echo child $!; echo command $$; sleep 0.3; echo ready; wait";

struct Family {
    beside: Beside,
    pids: Vec<String>,
}

async fn family(world: &Safeconduct, scene: &Scene) -> Family {
    let target = scene.argument();
    let mut exec = world.spawn(&["exec", "--insecure-loopback", &target, "--", "sh", "-c", FAMILY]);
    let lines = BufReader::new(exec.stdout()).lines();
    let mut beside = Beside { exec, lines };
    let mut pids = Vec::new();
    loop {
        let line = tokio::time::timeout(LIMIT, beside.lines.next_line()).await.expect("in time").expect("readable");
        let line = line.expect("it goes on");
        match line.split_once(' ') {
            Some((_, pid)) => pids.push(pid.to_owned()),
            None => break,
        }
    }
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| runs(pid)));
    Family { beside, pids }
}

#[tokio::test]
async fn if_the_supervisor_is_killed_the_endpoint_ends_the_command_and_leaves_nothing() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let mut family = family(&world, &scene).await;
    let endpoint = family.beside.endpoint().to_string();
    family.beside.exec.signal(Signal::SIGKILL);
    until(LIMIT, "nothing runs", async || !family.pids.iter().chain([&endpoint]).any(|pid| runs(pid))).await;
    assert!(places(&world).is_empty());
    assert_eq!(family.beside.exec.wait().await.code, None);
}

#[tokio::test]
async fn if_the_endpoint_is_killed_the_supervisor_ends_the_command_and_leaves_nothing() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let mut family = family(&world, &scene).await;
    kill(family.beside.endpoint(), Signal::SIGKILL).expect("it runs");
    let output = family.beside.exec.wait().await.expect_code(TEMPORARY);
    assert!(output.stderr.contains("endpoint"), "{}", output.stderr);
    assert!(!family.pids.iter().any(|pid| runs(pid)), "nothing runs");
    assert!(places(&world).is_empty());
}

#[tokio::test]
async fn if_both_are_killed_the_next_start_tidies_up() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let mut first = Beside::start(&world, &scene, "echo command $$; echo ready; exec sleep 600").await;
    let second = Beside::start(&world, &scene, "echo ready; exec sleep 600").await;
    let all = children(first.supervisor());
    let both = [first.endpoint(), first.supervisor()];
    // Neither may act before both are dead.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        both.iter().for_each(|pid| kill(*pid, signal).expect("it runs"));
    }
    first.exec.wait().await;
    // It holds its lock until the last of its threads is gone.
    let endpoint = both[0].to_string();
    let threads = || fs::read_dir(format!("/proc/{endpoint}/task")).map_or(0, Iterator::count);
    until(LIMIT, "the endpoint is gone", async || !runs(&endpoint) && threads() <= 1).await;
    assert_eq!(places(&world).len(), 2);
    run(&world, &scene, &[], "true").await.expect_code(0);
    assert_eq!(places(&world).len(), 1, "the other one is in use");
    assert!(second.endpoint().as_raw() > 0);
    for pid in all {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[tokio::test]
async fn what_the_command_leaves_behind_goes_on_without_the_endpoint() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let output = run(&world, &scene, &[], "sleep 600 >/dev/null 2>&1 & echo $!").await.expect_code(0);
    let left = output.stdout.trim().to_owned();
    assert!(runs(&left), "as without us");
    assert!(places(&world).is_empty());
    kill(Pid::from_raw(left.parse().expect("a number")), Signal::SIGKILL).expect("it runs");
}

#[tokio::test]
async fn an_interrupt_before_the_command_is_started_ends_it() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    sluice.shut();
    let world = world(&scene);
    let target = scene.argument();
    let mut exec = world.spawn(&["exec", "--insecure-loopback", "--env", &target, "--", "echo", "ran"]);
    let mut lines = BufReader::new(exec.stdout()).lines();
    sluice.holds(1).await;
    exec.signal(Signal::SIGINT);
    assert_eq!(exec.wait().await.code, None, "by that signal");
    assert!(lines.next_line().await.is_ok_and(|line| line.is_none()), "the command never ran");
    assert!(places(&world).is_empty());
}
