//! Google as authorization server, and Google's front doors.

use super::*;

#[tokio::test]
async fn google_gives_an_identity_token_for_a_front_door() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    let example = Example::at_server(&scene, "gcp-id-token").at_google(&google);
    let claims = google.verify(&example.works().await);
    assert_eq!((&claims["aud"], &claims["email"]), (&json!(FRONT_DOOR), &json!(ACCOUNT)));
    let form = google.last_form();
    assert_eq!(form["scope"], "https://www.googleapis.com/auth/iam", "no more than this step needs");
    assert_eq!(scene.authorization_server.token_requests(), 0, "nothing is discovered");
    // Its lifetime is the one in the token.
    let answer = example.world().daemon(&[]).await.get("/v1/token?server=demo").await.json();
    assert!((3_500..=3_600).contains(&answer["expires_in"].as_u64().unwrap_or_default()), "{answer}");
    // By a delegate: another account that may act as the service account.
    let through = example
        .with(ACCOUNT, "last@project.iam.gserviceaccount.com\"\ndelegates = [\"AGENT\"]\n#")
        .with("AGENT", ACCOUNT);
    through.fails(REFUSED, &["PERMISSION_DENIED", "getOpenIdToken"], &["roles/iam.workloadIdentityUser"]).await;
    google.grant(ACCOUNT, "last@project.iam.gserviceaccount.com");
    assert_eq!(google.verify(&through.works().await)["email"], json!("last@project.iam.gserviceaccount.com"));
    google.revoke(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    through.fails(REFUSED, &["implicitDelegation"], &["`delegates`"]).await;
    example.fails(REFUSED, &["PERMISSION_DENIED", "getOpenIdToken"], &["roles/iam.workloadIdentityUser"]).await;
}

#[tokio::test]
async fn google_refuses_with_words_that_have_a_cure() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    let example = Example::at_server(&scene, "gcp-id-token").at_google(&google);
    let by_name = example.with("projects/123456789012/", "projects/my-project/");
    by_name.fails(REFUSED, &["invalid_target"], &["`pool`", "the number of the project"]).await;
    google.allow_audiences(&["https://github.com/octo-org"]);
    example.fails(REFUSED, &["invalid_grant", "does not match the expected audience"], &["`subject_audience`"]).await;
    let named = example.with("exchange = ", "subject_audience = \"https://github.com/octo-org\"\nexchange = ");
    google.verify(&named.works().await);
    // Errors in the configuration file.
    let poolless = example.with("pool = ", "# pool = ");
    poolless.fails(CONFIG, &["servers.demo.pool", "`exchange = \"direct\"`", "`subject_audience`"], &[]).await;
    let nobody = example.with("service_account = ", "# service_account = ");
    nobody.fails(CONFIG, &["servers.demo.audience", "needs `service_account`"], &[]).await;
    let nothing = example.with("audience = ", "# audience = ");
    nothing.fails(CONFIG, &["needs `audience`", "or `scopes`"], &[]).await;
    let both = example.with("audience = ", "scopes = [\"openid\"]\naudience = ");
    both.fails(CONFIG, &["servers.demo.scopes", "an identity token has no scopes"], &[]).await;
    let limited = example.with("audience = ", "allow = [{ uid = 0, scopes = [\"openid\"] }]\naudience = ");
    limited.fails(CONFIG, &["servers.demo.allow", "limit nothing"], &[]).await;
    let elsewhere = example.with("exchange = ", "endpoint = \"http://127.0.0.1:1\"\nexchange = ");
    elsewhere.fails(CONFIG, &["servers.demo.endpoint", "has no effect without `exchange` = \"aws-role\""], &[]).await;
}

#[tokio::test]
async fn google_gives_an_access_token() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    let example = Example::at_server(&scene, "gcp-access-token").at_google(&google);
    let scope = "https://www.googleapis.com/auth/cloud-platform".to_owned();
    let token = example.works().await;
    assert_eq!(google.access(&token), Some((ACCOUNT.to_owned(), scope.clone())));
    let answer = example.world().daemon(&[]).await.get("/v1/token?server=demo").await.json();
    assert!((3_500..=3_600).contains(&answer["expires_in"].as_u64().unwrap_or_default()), "{answer}");
    assert_eq!(answer["scope"], json!(scope));
    // The federated token itself, with the requested scopes.
    let federated = example.with("service_account = ", "# service_account = ");
    assert_eq!(google.access(&federated.works().await), Some((FakeGoogle::principal(SUBJECT), scope.clone())));
    assert_eq!(google.last_form()["scope"], scope);
    google.revoke(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    example.fails(REFUSED, &["getAccessToken"], &["roles/iam.workloadIdentityUser"]).await;
}

#[tokio::test]
async fn google_as_a_link_of_a_chain() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    profiles::of_google(&scene);
    scene.authorization_server.trust_only(google.trust());
    let example = Example::new(&scene, "gcp-chain", LOGIN).at_google(&google);
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(scene.mcp.url()));
    let assertion = scene.authorization_server.last_request().assertion;
    assert_eq!(assertion["aud"], json!(scene.authorization_server.issuer()));
    assert_eq!(assertion["email"], json!(ACCOUNT));
    let nobody = example.with("service_account = ", "# service_account = ");
    nobody.fails(CONFIG, &["identities.google.service_account", "is no identity"], &[]).await;
    google.revoke(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    example.fails(REFUSED, &["PERMISSION_DENIED"], &["roles/iam.workloadIdentityUser"]).await;
}
