//! Refused targets: nothing is written, no daemon stays, and people learn why.

use super::*;
use support::authorization_server::TokenFault;
use support::fault::Fault;

/// The step failed as a whole.
fn left_nothing(job: &Job, output: Output, code: i32) -> Output {
    let output = output.expect_code(code);
    assert!(output.stdout.is_empty() && job.output().is_empty(), "{}{}", output.stdout, job.output());
    assert!(job.is_clean(), "a daemon or its directory stays");
    assert!(!output.stderr.contains("::add-mask::"), "{}", output.stderr);
    output
}

#[tokio::test]
async fn a_guard_refuses_another_server_and_another_issuer() {
    let job = Job::new().await;
    let (demo, url, issuer) = (job.demo(), job.scene.mcp.url(), job.scene.authorization_server.issuer());
    for (flags, code) in [
        (["--allowed-server", "https://mcp.example.com/mcp"], DENIED),
        (["--allowed-server", &format!("{url}x")], DENIED),
        (["--allowed-issuer", "https://auth.example.com"], DENIED),
        (["--allowed-issuer", &format!("{issuer}/")], DENIED),
        (["--allowed-issuer", "no url"], ASKED_WRONGLY),
    ] {
        let before = job.scene.platform.requests();
        let output = left_nothing(&job, job.ci(&[&[&*demo][..], &flags].concat()).await, code);
        assert!(output.stderr.contains("hint: "), "{}", output.stderr);
        assert_eq!(job.scene.platform.requests(), before, "{flags:?}: no identity is even asked for");
    }
    // A pinned issuer, and one of a configuration file.
    for flags in [["--issuer", &*issuer, "--allowed-issuer", "https://auth.example.com"]] {
        left_nothing(&job, job.ci(&[&[&*demo][..], &flags].concat()).await, DENIED);
    }
    let flags = ["--allowed-server", "https://other.example/", "--allowed-server", &url, "--allowed-issuer", &issuer];
    let good = job.ci(&[&[&*demo, "--json"][..], &flags].concat()).await.expect_code(0);
    Daemon::of(&good).end().await;
}

#[tokio::test]
async fn of_two_targets_one_is_refused_and_the_other_is_taken_back() {
    let job = Job::new().await;
    let other = support::mcp_server::FakeMcp::start(&job.scene.authorization_server, &["other:read"]).await;
    // The second asks for what nobody grants.
    job.scene
        .authorization_server
        .script_token([TokenFault::ScopeGranted(Some("demo:read".to_owned())), TokenFault::oauth("invalid_grant")]);
    let output = job.ci(&[&job.demo(), &format!("other={}", other.url())]).await;
    let output = left_nothing(&job, output, REFUSED);
    assert_eq!(job.scene.authorization_server.revocations(), 1, "the one that was obtained is revoked");
    assert!(output.stderr.contains("presented:") && output.stderr.contains("octo-org/octo-repo"), "{}", output.stderr);
    let summary = job.summary();
    assert!(summary.contains("No token for") && summary.contains("a trust policy that matches it"), "{summary}");
    assert!(summary.contains("repo&#58;octo&#45;org&#47;octo&#45;repo"), "{summary}");
}

#[tokio::test]
async fn what_stays_temporary_ends_the_step_with_75_and_what_passes_does_not() {
    let job = Job::new().await;
    job.scene.authorization_server.always_token(Fault::Status(503));
    left_nothing(&job, job.ci(&[&job.demo(), "--timeout", "2s"]).await, TEMPORARY);
    job.scene.authorization_server.heal();
    job.scene.authorization_server.script_token([Fault::Status(503), Fault::Status(503)]);
    let good = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    Daemon::of(&good).end().await;
}

#[tokio::test]
async fn a_token_that_is_not_handed_out_bare_is_denied() {
    let job = Job::new().await;
    let bound = Job { world: job.world.clone().config(&job.scene.config("dpop = true")), ..job };
    let output = left_nothing(&bound, bound.ci(&["demo"]).await, DENIED);
    assert!(output.stderr.contains("DPoP") || output.stderr.contains("bound"), "{}", output.stderr);
}

#[tokio::test]
async fn the_job_has_the_scopes_that_were_asked_for_and_no_others() {
    let job = Job::new().await;
    let good = job.ci(&[&job.demo(), "--json", "--scope", "demo:read"]).await.expect_code(0);
    let daemon = Daemon::of(&good);
    assert_eq!(good.json()["targets"][0]["scope"], "demo:read");
    let before = job.scene.authorization_server.token_requests();
    let helper = job.world.run(&["token", "demo", "--no-mask"]).await.expect_code(0);
    assert_eq!(helper.stdout.trim_end(), job.outputs()["token_demo"], "what is renewed is what helpers get");
    assert_eq!(job.scene.authorization_server.token_requests(), before);
    job.world.run(&["token", "demo", "--scope", "demo:write"]).await.expect_code(DENIED);
    daemon.end().await;
    let wide = Job { world: job.world.clone().config(&job.scene.config("scopes = [\"demo:read\"]")), ..job };
    wide.ci(&["demo", "--scope", "demo:write"]).await.expect_code(DENIED);
}

#[tokio::test]
async fn targets_need_names_that_make_different_outputs() {
    let job = Job::new().await;
    let other = format!("DEMO={}", "https://mcp.example.com/mcp");
    for targets in [&[&*job.demo(), &other][..], &[&job.scene.mcp.url()], &["unheard"], &["a b"]] {
        left_nothing(&job, job.ci(targets).await, ASKED_WRONGLY);
    }
    job.world.run(&["ci"]).await.expect_code(ASKED_WRONGLY);
}
