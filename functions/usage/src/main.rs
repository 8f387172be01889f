//! The `usage` function on AWS Lambda. It streams: exports have no end to speak of.

use tenantry_usage::{State, router};
use tenantry_web::{
    router::ErrorShape,
    serve::{Fatal, serve_streaming},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fatal> {
    serve_streaming(ErrorShape::Problem, |env| async move { Ok(router(State::from_env(&env)?)) }).await
}
