//! The suite with the injecting proxy in between: the same checks as without it, on both wires, but for its own baseline. The
//! client's scenarios have the official TypeScript client before the proxy; the server's have a fixture of the official
//! Python SDK behind it, and behind a token check.

use std::collections::BTreeSet;

use crate::peer::Peer;
use crate::process::PYTHON;
use crate::proxy::World;
use crate::suite::{
    Scenario, Wire, baseline, proxy_baseline, requirements, requirements_through_the_proxy, server_scenarios,
};

use super::{WIRE_2025, WIRE_2026, asked_once_and_was_let_in};

#[test]
fn the_client_behind_the_proxy_passes_all_that_2025_11_25_requires() {
    the_client_passes_as_without_the_proxy(WIRE_2025);
}

#[test]
fn the_client_behind_the_proxy_passes_all_that_2026_07_28_requires() {
    the_client_passes_as_without_the_proxy(WIRE_2026);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_the_proxy_has_the_same_outcomes_on_the_2025_11_25_wire() {
    a_server_has_the_same_outcomes(WIRE_2025, 23).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_the_proxy_has_the_same_outcomes_on_the_2026_07_28_wire() {
    a_server_has_the_same_outcomes(WIRE_2026, 28).await;
}

fn the_client_passes_as_without_the_proxy(wire: Wire) {
    let (direct, run) = (requirements(wire), requirements_through_the_proxy(wire));
    let (known, own) = (baseline(), proxy_baseline("client:"));
    let mut wrong = Vec::new();
    for (name, scenario) in &run.scenarios {
        let but = |entries: &[(String, String)]| -> BTreeSet<String> {
            entries.iter().filter(|(of, _)| of == name).map(|(_, check)| check.clone()).collect()
        };
        let (known, own) = (but(&known), but(&own));
        let bad: BTreeSet<String> = scenario.complaints().into_iter().map(str::to_owned).collect();
        let good = scenario.with("SUCCESS");
        wrong.extend(
            bad.iter().filter(|id| !known.contains(*id) && !own.contains(*id)).map(|id| format!("{name}:{id} fails")),
        );
        wrong
            .extend(own.difference(&bad).map(|id| format!("{name}:{id} does not differ: remove it from the baseline")));
        let missing =
            direct.scenarios[name].with("SUCCESS").into_iter().filter(|id| !good.contains(id) && !own.contains(*id));
        wrong.extend(missing.map(|id| format!("{name}:{id} passes without the proxy alone")));
        asked_once_and_was_let_in(name, scenario);
    }
    assert!(run.scenarios.len() == direct.scenarios.len() && wrong.is_empty(), "{}\n{}", wrong.join("\n"), run.log);
}

/// `most`: so many scenarios have no complaint at all, so that the comparison says something.
async fn a_server_has_the_same_outcomes(wire: Wire, most: usize) {
    let mut fixture = Peer::start(PYTHON, &["tests/others/fixture_server.py"], &[]);
    let direct = fixture.hear("resource").as_str().expect("a URL").to_owned();
    let mut world = World::before(&direct).await;
    let through = world.open_door();
    let direct = server_scenarios(&direct, wire);
    let proxied = server_scenarios(&through, wire);
    let differ = proxy_baseline("server:");
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
