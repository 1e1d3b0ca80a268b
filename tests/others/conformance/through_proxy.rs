//! The suite with the injecting proxy in between: the same checks as without it, on both wires, but for its own baseline. The
//! client's scenarios have the official TypeScript client before the proxy; the server's have a fixture of the official
//! Python SDK behind it, and behind a token check.

use std::collections::BTreeSet;

use crate::peer::Peer;
use crate::process::PYTHON;
use crate::proxy::World;
use crate::suite::{Scenario, Wire, baseline_between, requirements_through_the_proxy, server_scenarios};

use super::{WIRE_2025, WIRE_2026, the_client_passes_as_directly};

#[test]
fn the_client_behind_the_proxy_passes_all_that_2025_11_25_requires() {
    the_client_passes_as_directly(WIRE_2025, &requirements_through_the_proxy(WIRE_2025), "client:");
}

#[test]
fn the_client_behind_the_proxy_passes_all_that_2026_07_28_requires() {
    the_client_passes_as_directly(WIRE_2026, &requirements_through_the_proxy(WIRE_2026), "client:");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_the_proxy_has_the_same_outcomes_on_the_2025_11_25_wire() {
    a_server_has_the_same_outcomes(WIRE_2025, 23).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_the_proxy_has_the_same_outcomes_on_the_2026_07_28_wire() {
    a_server_has_the_same_outcomes(WIRE_2026, 28).await;
}

/// `most`: so many scenarios have no complaint at all, so that the comparison says something.
async fn a_server_has_the_same_outcomes(wire: Wire, most: usize) {
    let mut fixture = Peer::start(PYTHON, &["tests/others/fixture_server.py"], &[]);
    let direct = fixture.hear("resource").as_str().expect("a URL").to_owned();
    let mut world = World::before(&direct).await;
    let through = world.open_door();
    let direct = server_scenarios(&direct, wire);
    let proxied = server_scenarios(&through, wire);
    let differ = baseline_between("server:");
    let outcome = |scenario: &Scenario, name: &str| -> [BTreeSet<String>; 3] {
        ["SUCCESS", "FAILURE", "WARNING"].map(|status| {
            let of = scenario.with(status).into_iter();
            of.filter(|id| !differ.contains(&(name.to_owned(), (*id).to_owned()))).map(str::to_owned).collect()
        })
    };
    assert_eq!(direct.keys().collect::<Vec<_>>(), proxied.keys().collect::<Vec<_>>());
    for (name, scenario) in &direct {
        assert_eq!(outcome(scenario, name), outcome(&proxied[name], name), "{name}");
    }
    for (name, check) in &differ {
        assert!(proxied[name].complaints().contains(&check.as_str()), "{name}:{check} does not differ");
        assert!(direct[name].passes(check), "{name}:{check} does not differ");
    }
    let whole = direct.values().filter(|scenario| scenario.complaints().is_empty()).count();
    assert!(whole >= most, "only {whole} scenarios say something about the proxy");
    assert!(world.seen().iter().any(|seen| seen["status"] == 200), "the token check saw the requests");
    fixture.end();
}
