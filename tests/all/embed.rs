//! The broker inside a Rust program, as the example uses it.

use safeconduct::{Broker, Class, Clock, Config, Env, Head};
use support::scene::Scene;

use crate::binary;

#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "its `main` reads the command line")]
mod agent;

fn opened(scene: &Scene) -> Broker {
    let env = Env::from_vars(scene.platform.env());
    let config = Config::from_toml(&scene.config("revoke_on_exit = true"), &env).expect("it is right");
    Broker::open_in(config, env, Clock::system()).expect("the identity is here")
}

#[tokio::test]
async fn the_agent_of_the_example_is_let_in_without_a_daemon() {
    let scene = Scene::new(binary()).await;
    let broker = opened(&scene);
    for _ in 0..2 {
        let answer = agent::greet(&broker, "demo").await.expect("it is let in");
        assert!(answer.contains("\"result\""), "{answer}");
    }
    assert_eq!(scene.authorization_server.token_requests(), 1, "the token is kept");
    let lease = broker.lease("demo").await.expect("from memory");
    let fields = lease.authorize(&Head::new("POST", lease.url()).expect("a URL")).expect("it is the server's");
    let token = fields[0].1.to_str().expect("plain").trim_start_matches("Bearer ").to_owned();
    assert!(fields[0].1.is_sensitive() && !format!("{:?}", fields[0].1).contains(&token));
    broker.close().await;
    assert!(scene.authorization_server.is_revoked(&token));
}

#[tokio::test]
async fn what_an_agent_may_not_do_is_an_error_with_its_class() {
    let scene = Scene::new(binary()).await;
    let broker = opened(&scene);
    let unknown = broker.lease("nobody").await.err().expect("there is none");
    assert_eq!(unknown.class(), Class::BadRequest);
    let lease = broker.lease("demo").await.expect("it is there");
    let elsewhere = Head::new("POST", "https://elsewhere.example.com/mcp").expect("a URL");
    let error = lease.authorize(&elsewhere).expect_err("it is for its own server alone");
    assert_eq!(error.class(), Class::Denied);
    assert!(Head::new("POST", "ftp://example.com/").is_err());
    let Err(bad) = Config::from_toml("[servers.demo]\nurl = 5", &Env::from_vars([])) else { panic!("it is wrong") };
    assert_eq!(safeconduct::Error::from(bad).class(), Class::Config);
}
