//! tenantry-benches
