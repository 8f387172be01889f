//! What else happens to tenants: plans change, orders are paid and told of, credits are taken back.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use axum::{Router, body::Body};
use data_encoding::BASE64;
use http::{Request, header};
use http_body_util::BodyExt as _;
use tenantry_commerce::Commerce;
use tenantry_domain::{
    Clock, OrderId, UserId,
    ledger::LedgerKind,
    orders::{Goods, NewOrder, Provider},
};
use tenantry_payments::{
    HttpClient, Patience, Payment,
    alipay::{Alipay, AlipayConfig},
};
use tenantry_store::{AuditActor, NewAudit, NewLedgerRow, Origin, Store};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::{
    scenario::Event,
    world::{Pool, Process, World, lock, millis},
};

const APP: &str = "2021000000000001";
const SELLER: &str = "2088000000000001";
/// What an order brings, in micro-credits; as in the plans.
pub(crate) const PACKAGE: u64 = 700;
/// After so many tries it is no bad luck any more.
const MOST_TRIES: u32 = 500;
/// An operator's patience.
const FEW_TRIES: u32 = 20;
/// Alipay's patience.
const PATIENCE: Duration = Duration::from_secs(15);

struct Keys {
    theirs: KeyPair,
    ours_private: String,
    theirs_public: String,
}

/// Made once: nothing that happens depends on them.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let generate = || KeyPair::generate(KeySize::Rsa2048).expect("randomness");
    let (ours, theirs) = (generate(), generate());
    let private: Pkcs8V1Der<'_> = ours.as_der().expect("a key");
    let public: PublicKeyX509Der<'_> = theirs.public_key().as_der().expect("a key");
    let (ours_private, theirs_public) = (BASE64.encode(private.as_ref()), BASE64.encode(public.as_ref()));
    Keys { theirs, ours_private, theirs_public }
});

/// Payments with Alipay alone, whose messages hold all that is needed.
pub(crate) fn commerce(process: &Arc<Process>) -> Commerce {
    let config = AlipayConfig {
        app_id: APP.to_owned(),
        seller_id: SELLER.to_owned(),
        app_key: KEYS.ours_private.clone(),
        alipay_keys: vec![KEYS.theirs_public.clone()],
        notify_url: "http://127.0.0.1/webhooks/alipay".to_owned(),
        // Nobody asks there.
        gateway: "http://127.0.0.1:9/gateway.do".to_owned(),
        patience: Patience { attempts: 1, attempt: Duration::from_secs(1), pause: Duration::ZERO },
    };
    let alipay = Alipay::new(config, HttpClient::new(), process.clone() as Arc<dyn Clock>).expect("settings");
    Commerce::new(process.store()).with_payment(Payment::Alipay(alipay))
}

/// An order that waits for its payment.
pub(crate) async fn order(world: &World, store: &Store, tenant: usize) -> OrderId {
    let scope = lock(&world.tenants)[tenant].scope.clone();
    let new = NewOrder {
        id: OrderId::at(store.now()),
        provider: Provider::Alipay,
        goods: Goods::Package { id: "some".to_owned(), credits: PACKAGE, expires_after_days: None },
        amount: 100,
        currency: "cny".to_owned(),
        expires_at: store.now() + 15 * 60_000,
        created_by: UserId::at(0),
    };
    let origin = Origin::default();
    let (action, actor) = ("order.created", AuditActor::System);
    let audit = NewAudit { action, actor, target: None, changes: vec![], origin: &origin };
    store.create_order(&scope, &new, &audit).await.expect("a calm database").id
}

/// What the vendor tells of a payment, signed.
fn notification(order: &OrderId, now: i64) -> String {
    let time = |at: i64| {
        let at = jiff::Timestamp::from_millisecond(at + 8 * 3_600_000).expect("a time");
        at.strftime("%Y-%m-%d %H:%M:%S").to_string()
    };
    let mut params = BTreeMap::from([
        ("notify_id", format!("n_{}", order.short())),
        ("notify_time", time(now)),
        ("notify_type", "trade_status_sync".to_owned()),
        ("out_trade_no", order.to_string()),
        ("trade_no", format!("t_{}", order.short())),
        ("app_id", APP.to_owned()),
        ("seller_id", SELLER.to_owned()),
        ("total_amount", "1.00".to_owned()),
        ("trade_status", "TRADE_SUCCESS".to_owned()),
        ("gmt_payment", time(now)),
    ]);
    let text = params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let mut signature = vec![0; KEYS.theirs.public_modulus_len()];
    KEYS.theirs.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("signing");
    params.insert("sign", BASE64.encode(&signature));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish()
}

/// Tells of a payment until somebody says that it was heard, and so many times at least.
async fn tell(world: Arc<World>, webhooks: Arc<Pool<Router>>, order: OrderId, times: u32) {
    let body = notification(&order, world.now());
    for told in 1..=MOST_TRIES {
        let (process, router) = webhooks.any(&world);
        let request = Request::post("/webhooks/alipay")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body.clone()))
            .expect("a request");
        let answer = timeout(PATIENCE, async {
            let response = router.oneshot(request).await.expect("routers do not fail");
            process.alive().await;
            (response.status(), response.into_body().collect().await.expect("a body").to_bytes())
        });
        let heard = matches!(answer.await, Ok((status, body)) if status == 200 && &body[..] == b"success");
        world.note(|| format!("{} told of a payment: heard {heard}", process.name));
        if heard && told >= times {
            return;
        }
        // At the same time as somebody else's delivery, or much later.
        millis(world.dice(|dice| if dice.bool() { dice.u64(..50) } else { dice.u64(..25_000) })).await;
    }
    lock(&world.seen).violations.push("nobody wants to hear of a payment".to_owned());
}

/// Makes an event happen when its time has come, however often it takes.
pub(crate) async fn happen(
    world: Arc<World>,
    number: usize,
    order: Option<OrderId>,
    operators: Arc<Pool<Store>>,
    webhooks: Arc<Pool<Router>>,
) {
    let (at, tenant, event) = world.scenario.events[number].clone();
    tokio::time::sleep(at).await;
    let scope = lock(&world.tenants)[tenant].scope.clone();
    if let (Event::Paid { times }, Some(order)) = (&event, order) {
        // The vendor and its slow twin.
        let twin = tokio::spawn(tell(world.clone(), webhooks.clone(), order.clone(), *times));
        tell(world.clone(), webhooks, order, *times).await;
        twin.await.expect("a task that ends");
        return;
    }
    for tried in 0..MOST_TRIES {
        // Many requests, of which some fail each time; the sweep goes on with it.
        if matches!(event, Event::Shards { .. }) && tried == FEW_TRIES {
            return;
        }
        let (process, store) = operators.any(&world);
        let work = async {
            let done = match &event {
                Event::Plan { plan, version } => store.put_on_plan(&scope, plan, *version, None).await.map(|_| ()),
                Event::Clawback { amount } => {
                    let key = format!("clawback-{number}");
                    let kind = LedgerKind::Clawback;
                    let row =
                        NewLedgerRow { kind, amount: *amount, key: &key, reference: Some(&key), expires_at: None };
                    store.take_credits(&scope, &row).await.map(|_| ())
                }
                Event::Shards { shards } => store.set_meter_shards(&scope, *shards).await.map(|_| ()),
                Event::Paid { .. } => Ok(()),
            };
            process.alive().await;
            done
        };
        let done = timeout(Duration::from_secs(30), work).await;
        world.note(|| format!("{} {event:?}: {}", process.name, matches!(done, Ok(Ok(())))));
        if matches!(done, Ok(Ok(()))) {
            return;
        }
        millis(world.dice(|dice| dice.u64(..3_000))).await;
    }
    lock(&world.seen).violations.push(format!("{event:?} cannot be done"));
}
