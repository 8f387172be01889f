//! Prints the API document; `cargo xtask openapi` writes it to `docs/openapi.json`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(tenantry_host::openapi().as_bytes())
}
