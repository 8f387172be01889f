//! What shards cost, by the capacity that the engine counts. The numbers stand in `docs/scale.md`; they are printed with
//! `--no-capture`.

use std::sync::Arc;

use tenantry_domain::{Amounts, RequestId, Resource, metering::Demand};
use tenantry_host::dynamodb::Capacity;
use tenantry_store::Admission;
use tenantry_tests::platform::Platform;

use super::{MINUTE, plain};

/// Units of capacity for each request.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Price {
    write: f64,
    read: f64,
}

/// A month's quota of `messages` used up one by one by a process that knows the tenant, then `refused` further requests.
/// Returns what a request cost while at least a tenth was left, over the whole quota, over its last hundred, and what a
/// refusal cost.
async fn month(shards: u8, messages: u64, refused: u64) -> [Price; 4] {
    let capacity = Arc::new(Capacity::default());
    let platform = Platform::start(plain(messages).capacity(&capacity)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    store.set_meter_shards(&tenant.scope, shards).await.unwrap();
    let amounts = Amounts::NONE.with(Resource::Messages, 1);
    let demand = Demand { amounts, credits: 0 };
    let mut counted = vec![(capacity.write_units(), capacity.read_units())];
    for request in 0..messages + refused {
        match store.reserve(&tenant.scope, &RequestId::new(), &demand, MINUTE).await.unwrap() {
            Admission::Admitted(reservation) => {
                assert!(request < messages);
                store.settle(&reservation, &amounts, 0).await.unwrap();
            }
            Admission::Refused(refusal) => assert!(request >= messages, "request {request}: {refusal:?}"),
        }
        counted.push((capacity.write_units(), capacity.read_units()));
    }
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let price = |from: u64, to: u64| {
        let [(write, read), (write_to, read_to)] = [from, to].map(|at| counted[usize::try_from(at).unwrap()]);
        let requests = (to - from) as f64;
        Price { write: (write_to - write) / requests, read: (read_to - read) / requests }
    };
    [
        price(messages / 50, messages * 9 / 10),
        price(0, messages),
        price(messages - 100, messages),
        price(messages, messages + refused),
    ]
}

#[tokio::test]
async fn a_request_costs_what_it_cost_until_the_quota_is_nearly_used_up() {
    println!("shards | far from the end | whole quota of 4,000 | its last 100 | a refusal (write and read units)");
    for shards in [1, 4, 16] {
        let [far, whole, last, refusal] = month(shards, 4_000, 50).await;
        println!("{shards} | {far:?} | {whole:?} | {last:?} | {refusal:?}");
        if shards == 1 {
            assert_eq!([far, last], [Price { write: 2.0, read: 0.0 }; 2]);
            assert_eq!(refusal, Price { write: 1.0, read: 0.0 });
            continue;
        }
        assert!(far.write < 2.2 && whole.write < 2.2, "{far:?}, {whole:?}");
        assert!(last.write < 4.0, "{last:?}");
        // The write that fails, then every shard twice.
        assert_eq!(refusal, Price { write: 1.0, read: 2.0 * f64::from(shards) });
    }
}
