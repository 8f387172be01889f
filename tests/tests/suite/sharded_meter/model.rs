//! The same things happen to a tenant in shards and to one whose meter is in one piece, and both must say the same.

use futures_util::future::join_all;
use tenantry_domain::{
    Amounts, Period, RequestId, Resource,
    ledger::LedgerKind,
    metering::{Demand, Refusal},
    usage::Status,
};
use tenantry_store::{Admission, Booked, Reservation};
use tenantry_tests::{
    platform::{Platform, Tenant},
    usage::event_of,
};

use super::{MINUTE, plain, process, shifts::row};

/// So long that no hold expires at the turn of a month: when that is seen is a matter of which shard somebody looks at.
const LONG: i64 = 400 * 24 * 60 * MINUTE;

/// Numbers that are the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// An id that hashes to any shard.
    pub(super) fn request(&mut self) -> RequestId {
        const LETTERS: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut letter = |of: u64| char::from(LETTERS[usize::try_from(self.below(of) * (32 / of)).unwrap()]);
        // Of the last one, only three bits belong to the id.
        let end: String = (0..7).map(|_| letter(32)).collect::<String>() + &letter(8).to_string();
        let short = RequestId::at(tenantry_tests::platform::NOON).short()[..18].to_owned();
        RequestId::from_short(&format!("{short}{end}")).unwrap()
    }
}

/// What can be seen of a tenant, without what shards are.
async fn seen(platform: &Platform, tenant: &Tenant) -> String {
    let meter = platform.meter(tenant).await;
    let closed = platform.store().closed_meter(&tenant.scope, previous(meter.period)).await.unwrap();
    let books = |meter: &tenantry_domain::metering::Meter| {
        let charged = Resource::ALL.map(|resource| meter.charged(resource));
        format!("{} {:?} {:?} {:?}", meter.plan, meter.left, meter.given, charged)
    };
    let closed = closed.map(|closed| books(&closed));
    format!("{} {} {} {} {closed:?}", books(&meter), meter.credits, meter.holds.len(), meter.period)
}

fn previous(period: Period) -> Period {
    Period::from_index(period.index() - 1).unwrap()
}

async fn run(seed: u64, steps: usize) {
    let setup = plain(60)
        .plan_change("llm_tokens = 200_000", "llm_tokens = 5_000")
        .plan_change("llm_tokens = 20_000_000", "llm_tokens = 9_000")
        .plan_change("requests_per_minute = 60", "requests_per_minute = \"unlimited\"")
        .plan_change("requests_per_minute = 300", "requests_per_minute = \"unlimited\"")
        .plan_change("in_flight = 20", "in_flight = 1_000")
        .plan_change("in_flight = 100\n", "in_flight = 1_000\n");
    let platform = Platform::start(setup).await;
    let store = platform.store();
    let tenants = [platform.tenant("free").await, platform.tenant("free").await];
    let [sharded, whole] = &tenants;
    let (mut dice, mut flying, mut version) = (Dice(seed), Vec::<[Reservation; 2]>::new(), 0);
    for step in 0..steps {
        let at = format!("seed {seed}, step {step}");
        match dice.below(20) {
            0 => {
                let wanted = u8::try_from(dice.below(6) + 1).unwrap();
                store.set_meter_shards(&sharded.scope, wanted).await.unwrap();
            }
            1 => {
                version += 1;
                let plan = ["free", "pro", "team"][usize::try_from(dice.below(3)).unwrap()];
                for tenant in &tenants {
                    store.put_on_plan(&tenant.scope, plan, version, None).await.unwrap();
                }
            }
            2 | 3 => {
                let (key, amount) = (format!("ord_{step}"), dice.below(900));
                let new = row(LedgerKind::Purchase, &key, amount);
                for tenant in &tenants {
                    store.add_credits(&tenant.scope, &new).await.unwrap();
                }
            }
            4 => {
                let (key, amount) = (format!("re_{step}"), dice.below(1_500));
                let new = row(LedgerKind::Refund, &key, amount);
                let mut booked = vec![];
                for tenant in &tenants {
                    let Booked::Done(row) = store.take_credits(&tenant.scope, &new).await.unwrap() else { panic!() };
                    booked.push((row.amount, row.short, row.before));
                }
                assert_eq!(booked[0], booked[1], "{at}");
            }
            5 => {
                platform.clock().advance(LONG + MINUTE);
                platform.host().sweep().await;
                flying.clear();
            }
            6 if dice.below(3) == 0 => platform.clock().set(Period::of(store.now()).end()),
            6..=9 if !flying.is_empty() => {
                let which = usize::try_from(dice.below(flying.len() as u64)).unwrap();
                let part = dice.below(5);
                for reservation in flying.swap_remove(which) {
                    let hold = reservation.hold();
                    let charged = hold.amounts.iter().fold(Amounts::NONE, |sum, (r, n)| sum.with(r, n * part / 4));
                    store.settle(&reservation, &charged, hold.credits * part / 4).await.unwrap();
                }
            }
            _ => {
                let tokens = [dice.below(300), dice.below(2_000), 0][usize::try_from(dice.below(3)).unwrap()];
                let amounts = Amounts::NONE.with(Resource::LlmTokens, tokens).with(Resource::Messages, dice.below(3));
                let credits = dice.below(4).saturating_sub(2) * dice.below(700);
                let (demand, request) = (Demand { amounts, credits }, dice.request());
                let mut answers = vec![];
                for tenant in &tenants {
                    answers.push(store.reserve(&tenant.scope, &request, &demand, LONG).await.unwrap());
                }
                let [first, second] = <[Admission; 2]>::try_from(answers).unwrap();
                match (first, second) {
                    (Admission::Admitted(first), Admission::Admitted(second)) => flying.push([*first, *second]),
                    (Admission::Refused(first), Admission::Refused(second)) => assert_eq!(first, second, "{at}"),
                    (first, second) => panic!("{at}: {first:?}, and in one piece {second:?}"),
                }
            }
        }
        assert_eq!(seen(&platform, sharded).await, seen(&platform, whole).await, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_shards_say_what_one_piece_says() {
    for seed in 0..6 {
        run(seed, 60).await;
    }
}

/// Requests of four processes at once, some of which end between two of their steps, while shards come and go and credits
/// are bought and taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_books_balance_whoever_dies_in_between() {
    let platform = Platform::start(plain(400).plan_change("llm_tokens = 200_000", "llm_tokens = 9_000")).await;
    let (tenant, processes) = (platform.tenant("free").await, [(); 4].map(|()| process(&platform)));
    let (scope, store) = (&tenant.scope, platform.store());
    store.add_credits(scope, &row(LedgerKind::Purchase, "ord_0", 3_000)).await.unwrap();
    store.set_meter_shards(scope, 3).await.unwrap();
    let requests = (0..160_u64).map(|number| {
        let (store, mut dice) = (&processes[usize::try_from(number % 4).unwrap()], Dice(number));
        async move {
            for _ in 0..number % 7 {
                tokio::task::yield_now().await;
            }
            let amounts = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, dice.below(200));
            let demand = Demand { amounts, credits: dice.below(60) };
            let admission = store.reserve(scope, &RequestId::new(), &demand, MINUTE).await.unwrap();
            let reservation = match admission {
                Admission::Admitted(reservation) => *reservation,
                Admission::Refused(Refusal::QuotaExceeded { .. } | Refusal::OutOfCredits { .. }) => return false,
                Admission::Refused(refusal) => panic!("{refusal:?}"),
            };
            let end = dice.below(6);
            if end > 0 {
                let charged = amounts.with(Resource::LlmTokens, amounts.get(Resource::LlmTokens) * end / 6);
                let credits = demand.credits * end / 6;
                store.write_usage(scope, &[event_of(store, &reservation, charged, credits)]).await.unwrap();
                if end > 1 {
                    store.settle(&reservation, &charged, credits).await.unwrap();
                }
            }
            true
        }
    });
    let changes = async {
        for (round, wanted) in [5, 1, 4, 2, 6].into_iter().enumerate() {
            let (order, refund) = (format!("ord_a{round}"), format!("re_{round}"));
            store.add_credits(scope, &row(LedgerKind::Purchase, &order, 300)).await.unwrap();
            store.set_meter_shards(scope, wanted).await.unwrap();
            store.take_credits(scope, &row(LedgerKind::Refund, &refund, 250)).await.unwrap();
        }
    };
    let (admitted, ()) = tokio::join!(join_all(requests), changes);
    platform.clock().advance(2 * MINUTE);
    platform.host().sweep().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records.len(), admitted.iter().filter(|admitted| **admitted).count());
    assert!(records.iter().any(|record| record.status == Status::Expired) && records.len() < 160, "{}", records.len());
}
