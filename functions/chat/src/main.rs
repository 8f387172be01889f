//! The gateway as a Lambda function: the one that streams.

use tenantry_chat::{State, router};
use tenantry_web::{
    router::ErrorShape,
    serve::{Fatal, serve_streaming},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fatal> {
    serve_streaming(ErrorShape::OpenAi, |env| async move { Ok(router(State::from_env(&env)?)) }).await
}
