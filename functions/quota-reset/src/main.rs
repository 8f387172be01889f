//! The `quota-reset` function on AWS Lambda.

use tenantry_quota_reset::{State, handle};
use tenantry_web::serve::{Fatal, consume_with_secrets};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fatal> {
    consume_with_secrets(async |env| State::from_env(&env), async |state, event| handle(&state, event).await).await
}
