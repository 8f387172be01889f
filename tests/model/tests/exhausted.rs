//! Every state of the protocol is visited, and the README says how many there are.

use stateright::{Checker as _, Model as _};
use tenantry_model::Protocol;

fn exhaust(name: &str, protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_dfs().join();
    let (unique, steps) = (checker.unique_state_count(), checker.state_count());
    println!("{name}: {unique} unique states, {steps} steps");
    checker.assert_properties();
    let row = format!("| `Protocol::{name}` | {} |", thousands(unique));
    assert!(include_str!("../README.md").contains(&row), "the README does not say:\n{row}");
}

fn thousands(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", thousands(n / 1000), n % 1000) }
}

#[test]
fn two_requests_while_the_month_turns() {
    exhaust("CORE", Protocol::CORE);
}

#[test]
fn two_requests_while_credits_are_bought() {
    exhaust("CREDITS", Protocol::CREDITS);
}

#[test]
fn one_request_while_the_plan_is_changed() {
    exhaust("PLAN", Protocol::PLAN);
}
