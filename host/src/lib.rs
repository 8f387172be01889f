//! tenantry-host
