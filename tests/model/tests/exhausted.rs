//! Every state of the protocol is visited.

use stateright::{Checker as _, Model as _};
use tenantry_model::Protocol;

#[test]
fn core() {
    let checker = Protocol::new().checker().threads(2).spawn_bfs().join();
    println!("{} unique states, {} steps, depth {}", checker.unique_state_count(), checker.state_count(), checker.max_depth());
    for (name, path) in checker.discoveries() {
        println!("{name}: {:?}", path.into_actions());
    }
    checker.assert_properties();
}
