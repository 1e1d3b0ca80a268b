//! Keycloak cannot be reached for a while; the platform and Keycloak change their keys.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::keycloak::keycloak;
use super::realm::{BY_WORKLOAD, PATIENCE, Realm, UNAVAILABLE, issued, pause};
use crate::fakes::{leak, wait};

/// A port before Keycloak's. Nobody listens on it while it is closed. Keycloak's issuer follows the port that is asked.
struct Front {
    address: SocketAddr,
    there: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Front {
    async fn before(there: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        Self { address, there, task: Some(tokio::spawn(forward(listener, there))) }
    }

    async fn close(&mut self) {
        let task = self.task.take().expect("it was open");
        task.abort();
        // Ends with the listener and all of its connections gone.
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    }

    async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is ours");
        self.task = Some(tokio::spawn(forward(listener, self.there)));
    }
}

async fn forward(listener: TcpListener, there: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        connections.spawn(async move {
            let mut far = TcpStream::connect(there).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
    }
}

#[tokio::test]
async fn without_keycloak_a_valid_token_is_served_and_a_new_one_follows_when_it_is_back() {
    let Some(keycloak) = keycloak() else { return };
    let mut front = Front::before(keycloak.address()).await;
    let Some(realm) = Realm::at(&format!("http://{}", front.address)).await else { return };
    let config = realm.config(BY_WORKLOAD);
    let second = config.split_once("[servers.demo]").expect("it has one server").1;
    let daemon = realm.world.clone().config(&format!("{config}\n[servers.second]{second}")).daemon(&[]).await;
    let token = daemon.token("demo").await;
    leak::minted(&token);

    front.close().await;
    assert_eq!(daemon.token("demo").await, token, "the token in hand is served");
    let reply = daemon.get("/v1/token?server=second").await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    daemon.run(&["token", "second"]).await.expect_code(UNAVAILABLE);

    front.open().await;
    wait::until(PATIENCE, "Keycloak is back", async || {
        let output = daemon.run(&["token", "second"]).await;
        issued(&output);
        output.succeeded()
    })
    .await;
    assert_eq!(daemon.token("demo").await, token);
    daemon.stop().await.expect_code(0);
}

/// Keycloak fetches an unknown key of a platform at once, but not twice within ten seconds.
#[tokio::test]
async fn the_platforms_new_key_is_taken_without_anybodys_help() {
    let Some(realm) = Realm::new().await else { return };
    let config = realm.config(BY_WORKLOAD);
    realm.token(&config).await.expect_code(0);
    realm.platform.rotate("platform-key-2");
    wait::until(PATIENCE, "Keycloak has fetched the new key", async || {
        pause().await;
        realm.token(&config).await.succeeded()
    })
    .await;
}
