//! How the daemon ends.

use super::*;

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    sluice.shut();
    let asked = tokio::spawn({
        let socket = world.socket();
        async move { unix_http::get(&socket, "/v1/token?server=demo").await }
    });
    sluice.holds(1).await;
    daemon.signal(Signal::SIGTERM);
    until(LIMIT, "it no longer listens", async || !world.socket().exists()).await;
    assert!(!asked.is_finished());
    sluice.open();
    let reply = asked.await.expect("it ran").expect("an answer");
    assert_eq!(reply.status, 200);
    daemon.wait().await.expect_code(0);
}

#[tokio::test]
async fn a_kept_connection_that_is_idle_delays_nothing() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let idle = tokio::net::UnixStream::connect(daemon.socket()).await.expect("connected");
    idle.writable().await.expect("open");
    idle.try_write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("written");
    idle.readable().await.expect("answered");
    let output = daemon.stop().await.expect_code(0);
    assert!(!output.stderr.contains("not everything ended in time"), "{}", output.stderr);
}

#[tokio::test]
async fn endless_requests_do_not_delay_the_end() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(Fault::Stall);
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    let asked = tokio::spawn({
        let socket = world.socket();
        async move { unix_http::get(&socket, "/v1/token?server=demo").await }
    });
    until(LIMIT, "the request is under way", async || scene.authorization_server.token_requests() == 1).await;
    daemon.stop().await.expect_code(0);
    asked.abort();
}

#[tokio::test]
async fn interrupt_ends_it_and_hangup_does_not() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    daemon.signal(Signal::SIGHUP);
    daemon.logged("the configuration is read anew").await;
    daemon.token("demo").await;
    daemon.signal(Signal::SIGINT);
    daemon.wait().await.expect_code(0);
}
