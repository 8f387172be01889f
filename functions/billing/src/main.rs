//! The `billing` function on AWS Lambda.

use tenantry_billing::{State, router};
use tenantry_web::{
    router::ErrorShape,
    serve::{Fatal, serve},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fatal> {
    serve(ErrorShape::Problem, |env| async move { Ok(router(State::from_env(&env)?)) }).await
}
