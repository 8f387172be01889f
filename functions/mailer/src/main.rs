//! The `mailer` function on AWS Lambda.

use tenantry_mailer::{State, handle};
use tenantry_web::serve::{Fatal, consume};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fatal> {
    consume(async |env| State::from_env(&env), async |state, event| handle(&state, event).await).await
}
