use std::time::SystemTime;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use zeroize::Zeroizing;

use super::*;
use crate::clock::Clock;
use crate::identity::{Choice, Chosen, choose};
use crate::outbound::{self, Outbound};

fn here(vars: &[(&str, &str)], root: &Path) -> Ambient {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env = Env::from_vars(vars).with_root(root.to_owned());
    let outbound = Outbound::new(outbound::Config::default());
    Ambient { env, outbound, clock: Clock::virtual_at(SystemTime::UNIX_EPOCH) }
}

/// The source from a configuration with these keys.
fn named(keys: &str, ambient: &Ambient) -> Result<Chosen, Error> {
    let settings = keys.parse().expect("a table");
    choose(&Choice::Named { source: SOURCE.name.to_owned(), settings }, ambient)
}

fn answer(status: u16, body: &str) -> Answer {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json; charset=utf-8".parse().expect("a value"))]);
    Answer { status, headers, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

#[test]
fn a_machine_of_azure_is_known_by_its_chassis_and_its_metadata() {
    let dmi = |chassis: &str| Dmi {
        chassis: chassis.to_owned(),
        vendor: "Microsoft Corporation".to_owned(),
        ..Dmi::default()
    };
    assert!(is_azures(&dmi("7783-7084-3265-9085-8269-3286-77\n")));
    // Every Hyper-V machine has that vendor.
    assert!(!is_azures(&dmi("")) && !is_azures(&dmi("1234-5678")));
    assert!(is_instance(&answer(200, r#"{"azEnvironment":"AzurePublicCloud","location":"westeurope"}"#)));
    for other in
        [answer(404, r#"{"azEnvironment":"AzurePublicCloud"}"#), answer(200, "{}"), answer(200, "computeMetadata/")]
    {
        assert!(!is_instance(&other));
    }
}

#[tokio::test(start_paused = true)]
async fn the_probe_asks_the_metadata_service_and_says_that_it_means_to() {
    let probe = SOURCE.probe.as_ref().expect("a machine can be found");
    let asked = |vars| (probe.ask)(&here(vars, Path::new("/nowhere")));
    let ask = asked(&[]);
    assert_eq!(ask.url, "http://169.254.169.254/metadata/instance/compute?api-version=2021-02-01");
    assert!(ask.headers.iter().any(|(name, value)| name == "metadata" && value == "true"));
    // The override must be a local address.
    let elsewhere = asked(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://imds.example.com/")]);
    assert_eq!(elsewhere.url, ask.url);
    let beside = asked(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:81/")]);
    assert!(beside.url.starts_with("http://127.0.0.1:81/metadata/instance/"), "{}", beside.url);
    assert_eq!((probe.source)(&here(&[], Path::new("/nowhere"))).name(), "azure");
}

#[test]
fn the_metadata_service_is_beside_us_whatever_a_variable_says() {
    let at = |text: &str| {
        let env = Env::from_vars([("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), text.to_owned())]);
        asking::metadata_service(&env).is_ok()
    };
    for good in [
        "http://169.254.169.254",
        "http://169.254.1.2:8080/",
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://localhost",
    ] {
        assert!(at(good), "{good}");
    }
    for bad in [
        "https://169.254.169.254",
        "http://10.0.0.1",
        "http://user@127.0.0.1",
        "http://127.0.0.1/?x=1",
        "imds",
        "http://a.example",
    ] {
        assert!(!at(bad), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_arc_agent_without_its_variables_is_not_detected_and_can_be_named() {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(root.path().join("opt/azcmagent/bin")).expect("made");
    std::fs::write(root.path().join("opt/azcmagent/bin/himds"), "").expect("written");
    let ambient = here(&[], root.path());
    assert!(matches!(detect(&ambient), Finding::Absent { .. }));
    // Only the agent's endpoint cannot select an identity.
    let named = |keys: &str| named(keys, &ambient).map(drop);
    assert_eq!(named(""), Ok(()));
    let error = named("client_id = 'a'").expect_err("an Arc agent");
    assert!(error.to_string().contains("connected by Arc"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_sdk_asks_what_we_found_or_nothing() {
    // The variables of the test process differ from those of `Env`.
    let vars = [("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token"), ("IDENTITY_HEADER", "x")];
    let ambient = here(&vars, Path::new("/nowhere"));
    let source = named("", &ambient).expect("App Service").source;
    let error = source.subject_token(&Audience::from("api://a")).await.expect_err("another environment");
    assert!(error.to_string().contains("environment is another"), "{error}");
}

#[test]
fn an_application_id_is_known_by_its_form() {
    assert!(is_guid("fb60f99c-7a34-4190-8149-302f77469936"));
    for other in [
        "",
        "api://fb60f99c-7a34-4190-8149-302f77469936",
        "fb60f99c7a3441908149302f77469936",
        "gb60f99c-7a34-4190-8149-302f77469936",
    ] {
        assert!(!is_guid(other), "{other}");
    }
}
