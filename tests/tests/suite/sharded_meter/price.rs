//! What shards cost, by the capacity that the engine counts. The numbers stand in `docs/scale.md`; they are printed with
//! `--no-capture`.

use std::sync::Arc;

use tenantry_domain::{Amounts, Resource, metering::Demand};
use tenantry_host::dynamodb::Capacity;
use tenantry_store::Admission;
use tenantry_tests::platform::Platform;

use super::{MINUTE, model::Dice, plain};

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
    let mut dice = Dice(1);
    let mut counted = vec![(capacity.write_units(), capacity.read_units())];
    for request in 0..messages + refused {
        match store.reserve(&tenant.scope, &dice.request(), &demand, MINUTE).await.unwrap() {
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
    println!("shards | far from the end | whole quota of 600 | its last 100 | a refusal (write and read units)");
    for shards in [1, 4, 16] {
        let [far, whole, last, refusal] = month(shards, 600, 20).await;
        println!("{shards} | {far:?} | {whole:?} | {last:?} | {refusal:?}");
        if shards == 1 {
            assert_eq!([far, last], [Price { write: 2.0, read: 0.0 }; 2]);
            assert_eq!(refusal, Price { write: 1.0, read: 0.0 });
            continue;
        }
        assert!(far.write < 2.2 && whole.write < 2.3 && last.write < 2.6, "{far:?}, {whole:?}, {last:?}");
        // The write that fails, then every shard twice.
        assert_eq!(refusal, Price { write: 1.0, read: 2.0 * f64::from(shards) });
    }
}

/// What a request costs among `in_flight` others: every update pays for the whole item, with all its holds.
async fn among(in_flight: usize, shards: u8) -> f64 {
    let capacity = Arc::new(Capacity::default());
    let platform = Platform::start(plain(1_000_000).capacity(&capacity)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    store.set_meter_shards(&tenant.scope, shards).await.unwrap();
    let amounts = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 100);
    let demand = Demand { amounts, credits: 0 };
    let mut dice = Dice(1);
    let mut flying = std::collections::VecDeque::new();
    let (mut before, calls) = (0.0, 100);
    for call in 0..in_flight + calls {
        if call == in_flight {
            before = capacity.write_units();
        }
        let admission = store.reserve(&tenant.scope, &dice.request(), &demand, MINUTE).await.unwrap();
        let Admission::Admitted(reservation) = admission else { panic!("{admission:?}") };
        flying.push_back(reservation);
        if flying.len() > in_flight {
            store.settle(&flying.pop_front().unwrap(), &amounts, 0).await.unwrap();
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "hundreds")]
    let price = (capacity.write_units() - before) / calls as f64;
    price
}

#[tokio::test]
async fn a_request_among_many_pays_for_those_in_its_shard() {
    println!("in flight | shards | write units before the last byte");
    let mut prices = vec![];
    for shards in [1, 4, 16] {
        prices.push(among(200, shards).await);
        println!("200 | {shards} | {:.2}", prices[prices.len() - 1]);
    }
    assert!(prices[0] > 20.0 && prices[1] < prices[0] / 3.0 && prices[2] < prices[0] / 6.0, "{prices:?}");
}
