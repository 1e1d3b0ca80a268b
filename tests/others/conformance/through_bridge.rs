//! The client's scenarios with the bridge in between, on both wires: the official TypeScript client starts `safeconduct stdio`, and
//! has the same outcomes as over HTTP without us, but for the bridge's own baseline.

use crate::suite::requirements_through_the_bridge;

use super::{WIRE_2025, WIRE_2026, the_client_passes_as_directly};

#[test]
fn the_client_of_a_bridge_passes_all_that_2025_11_25_requires() {
    the_client_passes_as_directly(WIRE_2025, &requirements_through_the_bridge(WIRE_2025), "bridge:");
}

#[test]
fn the_client_of_a_bridge_passes_all_that_2026_07_28_requires() {
    the_client_passes_as_directly(WIRE_2026, &requirements_through_the_bridge(WIRE_2026), "bridge:");
}
