//! Connections to MCP servers and authorization servers: kept connections, broken connections, and servers that send more
//! than a normal answer.

use serde_json::json;
use support::fault::Fault;
use support::safeconduct::Output;
use support::scene::Scene;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::binary;
use crate::exit::{REFUSED, TEMPORARY};

/// The token request uses the connection of the metadata request, and that connection breaks.
#[tokio::test]
async fn a_kept_connection_that_breaks_costs_a_new_assertion_and_no_document() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.script_token([Fault::Down]);
    scene.configured("").run(&["token", "demo", "--timeout", "5s"]).await.expect_code(0);
    assert_eq!(scene.platform.requests(), 2, "an assertion that may have been taken is not presented again");
    assert_eq!(scene.authorization_server.token_requests(), 2);
    assert_eq!(scene.authorization_server.metadata_requests(), 1);
    assert_eq!((scene.mcp.probes(), scene.mcp.metadata_requests()), (1, 1));
}

/// Bodies that nobody reads: of a ping, and of every document that is not there.
#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for_where_the_status_says_all() {
    // An unpinned issuer, so that the documents of the MCP server are needed.
    for status in [200, 401, 404, 405] {
        let scene = Scene::new(binary()).await;
        scene.mcp.script([Fault::OpenStream(status)]);
        scene.configured("").run(&["token", "demo", "--timeout", "5s"]).await.expect_code(0);
        assert_eq!(scene.mcp.probes(), 1, "status {status}: it was asked once");
    }
    let scene = Scene::new(binary()).await;
    scene.mcp.script_metadata([Fault::OpenStream(404)]);
    scene.configured("").run(&["token", "demo", "--timeout", "5s"]).await.expect_code(0);
}

#[tokio::test]
async fn an_outage_with_a_large_page_is_an_outage() {
    for fault in [Fault::LargePage(503), Fault::LargePage(429), Fault::OpenStream(503)] {
        let scene = Scene::new(binary()).await;
        scene.authorization_server.script_token([fault]);
        scene.configured("").run(&["token", "demo", "--timeout", "20s"]).await.expect_code(0);
        assert_eq!(scene.authorization_server.token_requests(), 2, "it is asked again");
    }
}

/// A server that sends this answer to every request.
async fn answering(answer: impl AsRef<[u8]> + Send + 'static) -> (String, JoinSet<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let base = format!("http://{}", socket.local_addr().expect("it is bound"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut request = [0; 8 * 1024];
            let _ = stream.read(&mut request).await;
            // The client disconnects when the limit is reached.
            let _ = stream.write_all(answer.as_ref()).await;
        }
    });
    (base, tasks)
}

async fn refused(scene: &Scene, answer: String) -> Output {
    let output = asked(scene, answer).await.expect_code(REFUSED);
    assert_eq!(output.stdout, "");
    output
}

/// What a command says if the pinned issuer answers so.
async fn asked(scene: &Scene, answer: String) -> Output {
    let (issuer, _server) = answering(answer).await;
    // The MCP server names this issuer, so that the flood is the only fault.
    scene.mcp.set_metadata(json!({"authorization_servers": [issuer]}));
    let world = scene.safeconduct.clone().config(&format!(
        "[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\nissuer = \"{issuer}\"\n",
        scene.mcp.url()
    ));
    world.run(&["token", "demo", "--timeout", "2s"]).await
}

#[tokio::test]
async fn a_server_that_floods_before_its_answer_is_refused_at_once() {
    let scene = Scene::new(binary()).await;
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000_000);
    let output = refused(&scene, interim).await;
    assert!(output.stderr.contains("127.0.0.1 sends more than 8 interim answers"), "{}", output.stderr);
    for answer in [
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(65 * 1024)),
        format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(8 * 1024 * 1024)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101)),
    ] {
        let output = refused(&scene, answer).await;
        assert!(output.stderr.contains("a header of more than 64 KiB or 100 fields"), "{}", output.stderr);
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_http_is_refused_and_one_that_breaks_off_is_not() {
    let scene = Scene::new(binary()).await;
    for answer in [
        "SSH-2.0-OpenSSH_9\r\n",
        "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n",
    ] {
        let output = refused(&scene, answer.to_owned()).await;
        assert!(output.stderr.contains("127.0.0.1 gives no valid answer: "), "{}", output.stderr);
        assert!(output.stderr.contains("hint: check the host and the port"), "{}", output.stderr);
    }
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
        let output = asked(&scene, answer.to_owned()).await.expect_code(TEMPORARY);
        assert!(output.stderr.contains("127.0.0.1 breaks off: "), "{}", output.stderr);
    }
}

/// TLS before 1.2 is not spoken. A server says so by an alert, or by its own version in its first message.
#[tokio::test]
async fn a_server_that_speaks_old_tls_alone_is_refused_and_its_operator_is_told() {
    let alert = b"\x15\x03\x02\x00\x02\x02\x46".to_vec();
    let hello = [&b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02"[..], &[7; 32], b"\x00\x00\x2f\x00"].concat();
    for answer in [alert, hello] {
        let scene = Scene::new(binary()).await;
        let (base, _server) = answering(answer).await;
        let issuer = base.replace("http:", "https:");
        scene.mcp.set_metadata(json!({"authorization_servers": [issuer]}));
        let world = scene.safeconduct.clone().config(&format!(
            "[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\nissuer = \"{issuer}\"\n",
            scene.mcp.url()
        ));
        let output = world.run(&["token", "demo", "--timeout", "5s"]).await.expect_code(REFUSED);
        let words = &output.stderr;
        assert!(words.contains("no TLS that both sides accept") && words.contains("TLS 1.2"), "{words}");
        assert!(words.contains("hint: the operator of that server must switch on TLS 1.2 or 1.3"), "{words}");
    }
}
