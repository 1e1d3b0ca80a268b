//! What is read from stdin, and what is written to stdout.

use super::*;

#[tokio::test]
async fn wire_1_and_2_stdout_has_one_message_a_line_at_once_and_no_banner() {
    let (mut client, mut daemon) = scripted().await;
    assert!(client.is_silent().await, "no banner");
    for id in 0..3 {
        client.ask(id, "ping", json!({})).await;
        daemon.expect("ping").await.done().await;
        // The answer is there although more may follow.
        assert_eq!(client.line().await, format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{{}}}}"#));
    }
    let output = client.end().await.expect_code(0);
    assert!(output.stderr.contains("DEBUG"), "the log at trace is on stderr: {}", output.stderr);
}

#[tokio::test]
async fn wire_3_a_message_with_line_breaks_is_one_line_and_u2028_stays() {
    let (mut client, mut daemon) = scripted().await;
    client.ask(1, "tools/list", json!({})).await;
    let asked = daemon.expect("tools/list").await;
    asked.json_body("", "\u{feff}{\r\n \"jsonrpc\":\"2.0\",\n\"id\":1,\r\"result\":{\"a\":\"\u{2028}\\n\"}}\r\n").await;
    assert_eq!(client.line().await, "{   \"jsonrpc\":\"2.0\", \"id\":1, \"result\":{\"a\":\"\u{2028}\\n\"}}");
    client.write("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"a\u{2028}\u{85}\"}\n").await;
    let asked = daemon.next().await;
    assert_eq!(asked.body, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"a\u{2028}\u{85}\"}");
    asked.stream().await;
    asked.chunk("data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":2,\ndata: \"result\":{}}\n\n").await;
    assert_eq!(client.line().await, r#"{"jsonrpc":"2.0", "id":2, "result":{}}"#);
}

#[tokio::test]
async fn wire_4_and_5_crlf_ends_a_line_and_what_is_no_message_is_skipped() {
    let (mut client, mut daemon) = scripted().await;
    client.write("\r\n\nhello\n{]\n{}\n\"x\"\n\u{0}\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\r\n").await;
    let asked = daemon.expect("ping").await;
    assert_eq!(asked.body, r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#, "byte for byte");
    asked.done().await;
    assert_eq!(client.message().await["id"], 7);
    // A thread of its own writes the log.
    let skipped = || client.running.stderr().matches("is no JSON-RPC message is skipped").count();
    support::wait::until(LIMIT, "five lines of the log", async || skipped() == 5).await;
}

#[tokio::test]
async fn wire_6_a_line_is_read_whole_however_the_pipe_cuts_it() {
    let (mut client, mut daemon) = scripted().await;
    let text = "x".repeat(5 * 1024 * 1024);
    let call = request(1, "tools/call", json!({"name": "a", "arguments": {"text": text}})).to_string();
    for piece in call.as_bytes().chunks(777_777) {
        client.write(piece).await;
    }
    client.write("\n").await;
    let asked = daemon.expect("tools/call").await;
    assert!(asked.body == call, "all of it");
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"text": text}}).to_string();
    asked.json_body("", &answer).await;
    assert!(client.line().await == answer, "all of it");
}

#[tokio::test]
async fn wire_7_a_line_beyond_the_limit_gets_an_error_with_its_id_and_the_next_is_read() {
    let (mut client, mut daemon) = scripted_with(&["--max-message", "64KiB"]).await;
    let endless = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":\"a\\u0062\",\"method\":\"x\",\"params\":{{\"p\":\"{}",
        "y".repeat(300_000)
    );
    client.write(&endless).await;
    client.write("\"}}\n").await;
    let line = client.line().await;
    assert!(line.contains(r#""id":"a\u0062""#), "byte for byte: {line}");
    let message: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(ours(&message, json!("ab"))["class"], "bad_request");
    assert!(message["error"]["message"].as_str().expect("a text").contains("65536 bytes"), "{line}");
    // An answer of the client is nobody's request.
    client.write(format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{}\"}}\n", "y".repeat(100_000))).await;
    ours(&client.message().await, Value::Null);
    client.ask(2, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 2);
}

#[tokio::test]
async fn wire_7_an_answer_beyond_the_limit_is_an_error_and_never_half_a_line() {
    let (mut client, mut daemon) = scripted_with(&["--max-message", "64KiB"]).await;
    let long = json!({"jsonrpc": "2.0", "id": 1, "result": "y".repeat(300_000)});
    client.ask(1, "tools/list", json!({})).await;
    daemon.expect("tools/list").await.json_body("", &long.to_string()).await;
    assert_eq!(ours(&client.message().await, json!(1))["error"], "answer_too_long");
    client.ask(2, "tools/list", json!({})).await;
    let asked = daemon.expect("tools/list").await;
    asked.stream().await;
    asked.event(&long).await;
    assert_eq!(ours(&client.message().await, json!(2))["error"], "answer_too_long");
    client.ask(3, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 3);
}

#[tokio::test]
async fn wire_14_a_slow_call_holds_no_ping_up() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/call", json!({"name": "slow"})).await;
    let slow = daemon.expect("tools/call").await;
    client.ask(2, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 2);
    slow.done().await;
    assert_eq!(client.message().await["id"], 1);
}

#[tokio::test]
async fn wire_15_one_failed_request_ends_one_request() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/call", json!({"name": "a"})).await;
    client.ask(2, "tools/list", json!({})).await;
    let (one, other) = (daemon.next().await, daemon.next().await);
    let (call, list) = if one.body.contains("tools/call") { (one, other) } else { (other, one) };
    call.break_off().await;
    let message = client.message().await;
    assert_eq!(ours(&message, json!(1))["error"], "answer_lost");
    assert!(message["error"]["message"].as_str().expect("a text").contains("may have run"), "{message}");
    list.done().await;
    assert_eq!(client.message().await["id"], 2);
    client.end().await.expect_code(0);
}

#[tokio::test]
async fn wire_16_a_batch_is_refused_and_so_is_what_has_two_meanings() {
    let (mut client, mut daemon) = scripted().await;
    for (line, id) in [
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":3,"method":"ping","method":"tools/call"}"#, json!(3)),
        (r#"{"jsonrpc":"2.0","id":4,"method":5}"#, json!(4)),
    ] {
        client.write(format!("{line}\n")).await;
        let message = client.message().await;
        assert_eq!((&message["error"]["code"], &message["id"]), (&json!(-32600), &id), "{line}");
    }
    assert!(daemon.is_left_alone().await, "none of them is sent");
}

#[tokio::test]
async fn wire_17_http_2_is_said_to_be_not_supported() {
    let (mut client, _daemon) = scripted().await;
    client.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let output = client.ended().await.expect_code(64);
    assert!(output.stderr.contains("HTTP/2 on stdin, which is not supported yet"), "{}", output.stderr);
}

#[tokio::test]
async fn wire_44_ids_keep_type_and_form() {
    let (mut client, mut daemon) = scripted().await;
    for id in ["1", "\"1\"", "0", "1.0", "-1e3", "\"\\u0041\"", "12345678901234567890123", "\"\""] {
        client.write(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}\n")).await;
        let asked = daemon.expect("ping").await;
        assert!(asked.body.contains(&format!("\"id\":{id},")), "{}", asked.body);
        asked.status(500, "", "").await;
        let line = client.line().await;
        assert!(line.contains(&format!("\"id\":{id},")), "{line}");
    }
}
