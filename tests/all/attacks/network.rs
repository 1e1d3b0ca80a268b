//! Attacks on the network: redirects, private addresses, endless bodies, stalled servers, false daemons.

use super::*;

#[tokio::test]
async fn no_redirect_is_followed_with_or_without_a_credential() {
    let attacker = Attacker::start().await;
    let elsewhere = || Fault::Redirect(format!("{}/elsewhere", attacker.base));
    let places: [(&str, SetFault, i32, &str); 4] = [
        ("identity", |world, fault| world.platform.always(fault), 69, "the identity endpoint"),
        ("resource metadata", |world, fault| world.mcp.always_metadata(fault), 76, "the resource metadata"),
        (
            "server metadata",
            |world, fault| world.authorization_server.always_metadata(fault),
            76,
            "the server metadata",
        ),
        ("token", |world, fault| world.authorization_server.always_token(fault), 76, "the token endpoint"),
    ];
    for (name, set, code, party) in places {
        let world = World::new().await;
        set(&world, elsewhere());
        let stderr = refused(token(&world.job("")).await, code, "answers with a redirect");
        assert!(stderr.contains(party), "{name}: {stderr}");
        assert!(stderr.contains("safeconduct: hint: "), "{name}: {stderr}");
    }
    attacker.saw_nothing();
}

#[tokio::test]
async fn a_redirect_of_the_mcp_server_is_not_followed() {
    let attacker = Attacker::start().await;
    let world = World::new().await;
    world.mcp.script([Fault::Redirect(format!("{}/elsewhere", attacker.base))]);
    let output = token(&world.job(&world.pin())).await;
    assert!([Some(0), Some(76)].contains(&output.code), "{}", output.stderr);
    attacker.saw_nothing();
}

/// Uses TLS with names and addresses of this machine. Only hosts in the configuration may have private addresses.
struct Private {
    ca: TestCa,
    platform: FakePlatform,
    authorization_server: FakeAs,
    url: String,
    _mcp: FakeMcp,
}

impl Private {
    /// The MCP server is configured as `127.0.0.1`; the issuer of the authorization server has the host `localhost`.
    async fn new() -> Self {
        let ca = TestCa::new();
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start_tls(platform.trust(), ca.good()).await;
        let mcp = FakeMcp::start_tls(&authorization_server, &SCOPES, ca.good()).await;
        let url = mcp.url().replace("localhost", "127.0.0.1");
        authorization_server.register(&url, &SCOPES);
        mcp.set_metadata(json!({"resource": url}));
        mcp.set_signposts(Signposts { header: None, inserted: true, root: false });
        Self { ca, platform, authorization_server, url, _mcp: mcp }
    }

    async fn token(&self, egress: &str, lines: &str) -> Output {
        let issuer = self.authorization_server.issuer();
        let safeconduct = Safeconduct::new(binary());
        let file = safeconduct.private("subject.jwt");
        std::fs::write(&file, self.platform.mint(&issuer, Duration::from_secs(300))).expect("ours");
        let toml = format!(
            "[egress]\nca_file = \"{}\"\n{egress}\n[servers.demo]\nurl = \"{}\"\n{lines}\n",
            self.ca.file().display(),
            self.url
        );
        let file = file.display().to_string();
        safeconduct.config(&toml).run(&["--identity-file", &file, "token", "demo", "--timeout", "20s"]).await
    }
}

#[tokio::test]
async fn a_name_in_metadata_that_resolves_to_a_private_address_is_not_dialled() {
    let world = Private::new().await;
    let stderr = refused(world.token("", "").await, 76, "localhost is refused: it is a loopback address");
    assert!(stderr.contains("the server metadata"), "{stderr}");
    assert_eq!(world.authorization_server.metadata_requests(), 0);
    // If the configuration names the host, it is dialled: only the name was the reason for the refusal.
    accepted(world.token("allow = [\"localhost\"]", "").await);
    let issuer = world.authorization_server.issuer();
    accepted(world.token("", &format!("issuer = \"{issuer}\"")).await);
    accepted(world.token(&format!("issuers = [\"{issuer}\"]"), "").await);
}

/// A hostile server could otherwise have us send requests to any path at the private hosts of other servers.
#[tokio::test]
async fn a_private_host_that_is_named_for_another_server_is_not_dialled() {
    let world = Private::new().await;
    let issuer = world.authorization_server.issuer();
    let other = format!("[servers.other]\nurl = \"https://mcp.example.com/mcp\"\nissuer = \"{issuer}\"");
    refused(world.token("", &other).await, 76, "localhost is refused: it is a loopback address");
    let other = format!("[servers.other]\nurl = \"{issuer}/mcp\"");
    refused(world.token("", &other).await, 76, "localhost is refused: it is a loopback address");
    assert_eq!(world.authorization_server.metadata_requests(), 0);
}

#[tokio::test]
async fn a_token_endpoint_at_a_private_address_gets_no_subject_token() {
    let world = Private::new().await;
    let pin = format!("issuer = \"{}\"", world.authorization_server.issuer());
    let port = world.authorization_server.base().rsplit(':').next().expect("a port").to_owned();
    // Both loopback names are configured here, each with one port.
    let hosts = [
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "[::ffff:10.0.0.1]",
        "[::1]",
        "169.254.169.254",
        "127.0.0.1",
    ];
    let places = hosts.map(|host| format!("https://{host}:{port}/token"));
    for place in places.into_iter().chain(["https://localhost/token".to_owned()]) {
        world.authorization_server.always_metadata(MetadataFault::TokenEndpoint(place));
        let stderr = refused(world.token("", &pin).await, 76, " is refused: it is a");
        assert!(stderr.contains("the token endpoint"), "{stderr}");
    }
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_private_address_in_metadata_is_not_dialled_even_in_development() {
    let world = World::new().await;
    let places = [
        "https://10.0.0.1",
        "https://172.16.0.1:8443",
        "https://169.254.169.254",
        "https://[::ffff:10.0.0.1]",
        "https://[::ffff:169.254.169.254]",
        "https://[64:ff9b::a9fe:a9fe]",
        "https://[fd00:ec2::254]",
        "https://0xa9.0xfe.43518",
        "https://2852039166",
    ];
    for place in places {
        world.mcp.set_metadata(json!({"authorization_servers": [place]}));
        refused(token(&world.job("")).await, 76, " is refused: it is a");
    }
    world.mcp.set_challenges(Some(&["Bearer resource_metadata=\"https://169.254.169.254/latest/meta-data\""]));
    refused(token(&world.job("")).await, 76, "169.254.169.254 is refused: it is a link-local address");
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_host_beyond_the_operators_list_is_not_dialled() {
    let world = World::new().await;
    world.mcp.set_metadata(json!({"authorization_servers": ["https://as.attacker.example"]}));
    let stderr =
        refused(token(&world.job_with("", "allow = [\"login.example.com\"]")).await, 77, "is not in [egress] allow");
    assert!(stderr.contains("hint: "), "{stderr}");
    world.mcp.set_metadata(json!({"authorization_servers": ["https://203.0.114.7"]}));
    refused(token(&world.job_with("", "allow = [\"10.1.0.0/16\"]")).await, 77, "not in [egress] allow");
}

#[tokio::test]
async fn bodies_without_end_measure_or_second_half_are_bounded() {
    let places: [(SetFault, i32, &str); 4] = [
        (|world, fault| world.platform.always(fault), 69, "the identity endpoint"),
        (|world, fault| world.mcp.always_metadata(fault), 76, "the resource metadata"),
        (|world, fault| world.authorization_server.always_metadata(fault), 76, "the server metadata"),
        (|world, fault| world.authorization_server.always_token(fault), 76, "the token endpoint"),
    ];
    let cases = places.into_iter().flat_map(|place| {
        [(Fault::HugeBody, "sends more than 64 KiB"), (Fault::HalfBody, "breaks off")].map(|fault| (place, fault))
    });
    join_all(cases.map(|((set, code, party), (fault, words))| async move {
        let world = World::new().await;
        let code = if matches!(fault, Fault::HugeBody) { code } else { 75 };
        set(&world, fault);
        let stderr = refused(outage(&world.job("")).await, code, words);
        assert!(stderr.contains(party), "{stderr}");
    }))
    .await;
}

#[tokio::test]
async fn servers_that_stall_end_within_the_time_out_and_are_named() {
    let places: [(SetFault, &str); 4] = [
        (|world, fault| world.platform.always(fault), "the identity endpoint"),
        (|world, fault| world.mcp.always_metadata(fault), "the resource metadata"),
        (|world, fault| world.authorization_server.always_metadata(fault), "the server metadata"),
        (|world, fault| world.authorization_server.always_token(fault), "the token endpoint"),
    ];
    let cases = places.into_iter().flat_map(|place| [Fault::Stall, Fault::StallBody].map(|fault| (place, fault)));
    let outcomes = join_all(cases.map(|((set, party), fault)| async move {
        let world = World::new().await;
        set(&world, fault.clone());
        let output = tokio::time::timeout(LIMIT, outage(&world.job(""))).await.expect("bounded");
        let stderr = refused(output, 75, "within");
        // The operator must see which step of the path was slow.
        let error = stderr.lines().find(|line| line.starts_with("safeconduct: error: ")).unwrap_or_default();
        (!error.contains(party)).then(|| format!("{fault:?} of {party} is told as {error:?}"))
    }))
    .await;
    let wrong: Vec<String> = outcomes.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_helper_waits_for_a_slow_daemon_no_longer_than_it_was_told() {
    let world = World::new().await;
    world.platform.always(Fault::Stall);
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    refused(daemon.run(&["token", "demo", "--timeout", "1s"]).await, 75, "no answer within 1 s");
    assert_eq!(daemon.get("/healthz").await.status, 200);
}

/// What answers on a socket that somebody named may be anything.
#[tokio::test]
async fn a_helper_at_the_socket_of_another_program_ends_within_its_time_out() {
    let world = World::new().await;
    // What can be told at once is told at once; the time-out is for what never comes to an end.
    let answers: [(&[u8], Duration, i32); 4] = [
        (b"SSH-2.0-OpenSSH_9.9\r\n", Duration::ZERO, 78),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}", Duration::ZERO, 78),
        // As from a daemon that is killed.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n{\"a\":1}", Duration::ZERO, 75),
        // One byte now and then, and never the last.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n", Duration::from_millis(300), 75),
    ];
    for (answer, pause, code) in answers {
        let safeconduct = Safeconduct::new(binary()).envs(world.platform.env()).limit(Duration::from_secs(20));
        let listener = UnixListener::bind(safeconduct.socket()).expect("bound");
        let strange = async {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            for byte in answer.chunks(if pause.is_zero() { answer.len() } else { 1 }) {
                if stream.write_all(byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        };
        let timeout = if pause.is_zero() { "15s" } else { "1s" };
        let words = ["token", "demo", "--timeout", timeout];
        let asked = safeconduct.run(&words);
        let ((), output) = tokio::join!(strange, asked);
        refused(output, code, "at ");
    }
    assert_eq!(world.platform.requests(), 0, "it is not done here instead");
}
