//! The daemon under a service manager.

use super::*;
use crate::activated::{activated, ends};

/// A daemon that answers on a socket of the service manager, which holds the socket as long as the test does.
async fn on_a_socket(world: &Safeconduct) -> (UnixListener, PathBuf, tokio::process::Child, PathBuf) {
    let path = world.path().join("activated.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    set_mode(&path, 0o600);
    let (child, log) = activated(world, listener.try_clone().expect("cloned").into(), None);
    until(LIMIT, "it answers", async || answers(&path).await).await;
    (listener, path, child, log)
}

#[tokio::test]
async fn a_socket_of_the_service_manager_is_served_and_left_to_it() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let (_held, path, child, log) = on_a_socket(&world).await;
    assert!(!world.socket().exists(), "it binds none of its own");
    let reply = unix_http::get(&path, "/v1/token?server=demo").await.expect("an answer");
    assert_eq!(reply.status, 200);
    let pid = i32::try_from(child.id().expect("it runs")).expect("positive");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it lives");
    assert_eq!(ends(child, &log).await.0, Some(0));
    assert!(path.exists(), "the socket is the service manager's");
}

#[tokio::test]
async fn stop_ends_the_daemon_and_not_the_wait_for_the_socket_that_stays() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let (_held, path, child, log) = on_a_socket(&world).await;
    let stopped = world.run(&["--socket", &path.display().to_string(), "stop"]).await.expect_code(0);
    assert_eq!(stopped.stdout, "stopped\n");
    assert_eq!(ends(child, &log).await.0, Some(0));
    assert!(path.exists(), "the socket is the service manager's");
}

#[tokio::test]
async fn a_socket_wider_than_configured_is_refused() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let path = world.path().join("activated.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    for wide in [0o666, 0o660, 0o602] {
        set_mode(&path, wide);
        let (child, log) = activated(&world, listener.try_clone().expect("cloned").into(), None);
        let (code, text) = ends(child, &log).await;
        assert_eq!(code, Some(CONFIG), "{text}");
        assert!(text.contains("wider than the configured 0600") && text.contains("safeconduct: hint: "), "{text}");
    }
    assert!(path.exists());
}

#[tokio::test]
async fn a_descriptor_that_is_not_a_listener_is_refused() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let datagram = UnixDatagram::bind(world.path().join("datagram.sock")).expect("bound");
    let descriptors = [
        (OwnedFd::from(tcp), "is not the one that `http` in [listen] names"),
        (OwnedFd::from(datagram), "neither a Unix stream socket nor a TCP listener"),
    ];
    for (descriptor, words) in descriptors {
        let (child, log) = activated(&world, descriptor, None);
        let (code, text) = ends(child, &log).await;
        assert_eq!(code, Some(CONFIG), "{text}");
        assert!(text.contains(words) && text.contains("safeconduct: hint: "), "{text}");
    }
}

#[tokio::test]
async fn the_service_manager_is_told_of_readiness_and_of_the_end() {
    let scene = Scene::new(binary()).await;
    let notices = scene.safeconduct.path().join("notify.sock");
    let inbox = tokio::net::UnixDatagram::bind(&notices).expect("bound");
    let notified = async || {
        let mut notice = [0; 256];
        let length = tokio::time::timeout(LIMIT, inbox.recv(&mut notice)).await.expect("in time").expect("received");
        String::from_utf8_lossy(&notice[..length]).into_owned()
    };
    let world = scene.configured("").env("NOTIFY_SOCKET", &notices.display().to_string());
    let mut running = world.spawn(&["run"]);
    assert!(notified().await.contains("READY=1"));
    assert_eq!(unix_http::get(&world.socket(), "/healthz").await.map(|reply| reply.status).ok(), Some(200));
    running.signal(Signal::SIGTERM);
    assert!(notified().await.contains("STOPPING=1"));
    running.wait().await.expect_code(0);
}
