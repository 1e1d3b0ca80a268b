//! Sessions of each SDK, over the socket and over loopback, which last while tokens, the issuer and the daemon come and go.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Kind, Program, add, all, connected, echo, end, refusal, serving_target};
use crate::fakes::scene::Scene;
use crate::process::SAFECONDUCT;
use crate::proxy::{Everything, World, pause};

#[tokio::test(flavor = "multi_thread")]
async fn no_session_of_an_sdk_notices_that_its_token_is_replaced() {
    let everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    world.scene.authorization_server.set_token_life(Duration::from_secs(2));
    let mut programs = connected(&world, &all()).await;
    let end_of_turns = Instant::now() + Duration::from_secs(6);
    let mut turn = 0;
    while Instant::now() < end_of_turns {
        for program in &mut programs {
            program.echoes(&format!("turn {turn}"));
        }
        turn += 1;
        pause(100).await;
    }
    let tokens = world.tokens();
    assert!(tokens >= 4, "only {tokens} tokens in six seconds of two-second tokens");
    end(world, programs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_token_the_server_refuses_is_sent_again_with_another() {
    let everything = Everything::start();
    // The daemon replaces three refused tokens at once, and then one in ten seconds.
    for whom in all().chunks(3) {
        let mut world = World::before(&everything.url()).await;
        world.scene.authorization_server.set_token_life(Duration::from_secs(15));
        let mut programs = connected(&world, whom).await;
        for program in &mut programs {
            // It replaces no token that is younger than a tenth of its life.
            pause(2_000).await;
            healed(&mut world, program);
        }
        end(world, programs).await;
    }
}

/// The server refuses one token, and the program does not notice it.
fn healed(world: &mut World, program: &mut Program) {
    world.front.forget();
    world.front.ask(&json!({ "answers": [refusal()] }), &["done"]);
    program.echoes("the same session");
    let calls: Vec<Value> = world.seen().into_iter().filter(|seen| seen["rpc"]["method"] == "tools/call").collect();
    let statuses: Vec<&Value> = calls.iter().map(|seen| &seen["status"]).collect();
    assert_eq!(statuses, [401, 200], "{:?} by {:?}", program.kind, program.way);
    assert_ne!(calls[0]["jti"], calls[1]["jti"], "{:?} by {:?}: another token", program.kind, program.way);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_every_token_is_asked_twice_at_most() {
    let everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    let mut programs = connected(&world, &all()).await;
    for program in &mut programs {
        world.front.forget();
        world.front.ask(&json!({ "always": refusal() }), &["done"]);
        let refused = program.step(&echo("never"));
        assert!(refused.is_err(), "{:?} by {:?}", program.kind, program.way);
        let calls = world.seen().iter().filter(|seen| seen["rpc"]["method"] == "tools/call").count();
        assert!(calls <= 2, "{:?} by {:?}: {calls} requests", program.kind, program.way);
        world.front.ask(&json!({ "always": null }), &["done"]);
    }
    end(world, programs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_has_no_token_for_long_is_told_in_its_own_words() {
    let everything = Everything::start();
    let world = World::before(&everything.url()).await;
    world.scene.authorization_server.set_token_life(Duration::from_secs(3));
    let programs = connected(&world, &all()).await;
    world.scene.authorization_server.set_down(true);
    let programs = at_once(programs, is_told_of_an_outage).await;
    world.scene.authorization_server.heal();
    let goes_on = |program: &mut Program| {
        // After a long outage the daemon asks the issuer less often, so the first calls may still fail. An exception in a request
        // ends the session of the Python SDKs.
        let step = match program.kind {
            Kind::Python | Kind::PythonV1 => json!({ "connect": {} }),
            _ => echo("again"),
        };
        let end = Instant::now() + Duration::from_secs(90);
        while let Err(failed) = program.step(&step) {
            assert!(Instant::now() < end, "{:?} by {:?}: {failed}", program.kind, program.way);
        }
        program.echoes("the same session");
    };
    let programs = at_once(programs, goes_on).await;
    end(world, programs).await;
}

/// The token of before still serves; when it is dead, a call waits for another, and then the program is told.
fn is_told_of_an_outage(program: &mut Program) {
    let end = Instant::now() + Duration::from_secs(60);
    let failed = loop {
        match program.step(&echo("is anybody there?")) {
            Ok(_) => assert!(Instant::now() < end, "{:?}: a dead token served", program.kind),
            Err(failed) => break failed,
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let words = failed.contains("safeconduct: target") && failed.contains("the token endpoint of");
    assert!(words, "{:?} by {:?}: {failed}", program.kind, program.way);
}

/// All of them do the same at the same time.
async fn at_once(programs: Vec<Program>, does: impl Fn(&mut Program) + Copy + Send + 'static) -> Vec<Program> {
    let each = |mut program: Program| {
        tokio::task::spawn_blocking(move || {
            does(&mut program);
            program
        })
    };
    let doing: Vec<_> = programs.into_iter().map(each).collect();
    let mut done = Vec::new();
    for program in doing {
        done.push(program.await.expect("each does it"));
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_of_an_sdk_notices_that_the_daemon_is_restarted() {
    let scene = Scene::new(SAFECONDUCT).await;
    // Free now, and nobody else asks for a certain port.
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = held.local_addr().expect("a bound socket has an address");
    drop(held);
    let configured = scene.safeconduct.clone().config(&serving_target(&scene, "", &address.to_string()));
    let daemon = configured.daemon(&[]).await;
    let mut programs = Vec::new();
    for (kind, way) in all() {
        let mut program = Program::start(kind, way, &daemon, &scene.mcp.url()).await;
        program.connects();
        programs.push(program);
    }
    daemon.stop().await.expect_code(0);
    let adds = |program: &mut Program| assert_eq!(program.does(&add()), "5", "{:?} by {:?}", program.kind, program.way);
    let calling = tokio::spawn(at_once(programs, adds));
    pause(1_500).await;
    assert!(!calling.is_finished(), "no token without a daemon");
    let daemon = configured.daemon(&[]).await;
    let programs = calling.await.expect("each call has its answer");
    programs.into_iter().for_each(Program::end);
    daemon.stop().await.expect_code(0);
}
