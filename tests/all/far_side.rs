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
use crate::exit::REFUSED;

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

/// A server that sends this answer to every request.
async fn answering(answer: String) -> (String, JoinSet<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let base = format!("http://{}", socket.local_addr().expect("it is bound"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut request = [0; 8 * 1024];
            let _ = stream.read(&mut request).await;
            // The client disconnects when the limit is reached.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (base, tasks)
}

async fn refused(scene: &Scene, answer: String) -> Output {
    let (issuer, _server) = answering(answer).await;
    // The MCP server names this issuer, so that the flood is the only fault.
    scene.mcp.set_metadata(json!({"authorization_servers": [issuer]}));
    let world = scene.safeconduct.clone().config(&format!(
        "[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\nissuer = \"{issuer}\"\n",
        scene.mcp.url()
    ));
    let output = world.run(&["token", "demo", "--timeout", "5s"]).await.expect_code(REFUSED);
    assert_eq!(output.stdout, "");
    output
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
