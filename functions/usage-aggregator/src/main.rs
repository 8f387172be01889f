//! The aggregator as a Lambda function.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use tenantry_web::{config, config::Env, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let env = Env::process();
    telemetry::init(&env, telemetry::Format::Json);
    let store = &config::store(&env).await?;
    let handle = async |event: LambdaEvent<_>| tenantry_usage_aggregator::handle(store, event.payload).await;
    run(service_fn(handle)).await
}
