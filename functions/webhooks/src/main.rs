//! The `webhooks` function on AWS Lambda.

use tenantry_web::{
    router::ErrorShape,
    serve::{Fatal, serve},
};
use tenantry_webhooks::{State, router};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fatal> {
    serve(ErrorShape::Problem, |env| async move { Ok(router(State::from_env(&env)?)) }).await
}
