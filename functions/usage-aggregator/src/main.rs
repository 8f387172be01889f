//! The aggregator as a Lambda function.

use tenantry_usage_aggregator::handle;
use tenantry_web::{
    config,
    serve::{Fatal, consume},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fatal> {
    consume(async |env| config::store(&env), async |store, event| handle(&store, event.payload).await).await
}
