//! A metered call from admission to settlement.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::HeaderMap;
use tenantry_domain::{
    Amounts, KeyId, Millis, RequestId, Resource, UserId,
    budget::{Budgeted, Budgets},
    catalogue::Model,
    metering::{Demand, Refusal},
    roles::Permission,
    usage::{Operation, Status, Tokens, UsageEvent},
};
use tenantry_providers::{Timing, Usage, openai::Produced};
use tenantry_store::{Reservation, StoreError, TenantScope, Terms};
use tenantry_web::{ApiError, Caller, router::TraceId};
use tokio::time::Instant;

use crate::{BODY_LIMIT, State, Waits, limits::Standing};

/// What a request may use at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    /// Prompt tokens, counted here.
    pub(crate) prompt: u64,
    /// Largest completion in tokens, per choice.
    pub(crate) cap: u64,
    /// Whether the client named the cap; only an unnamed one may be lowered to fit what is left.
    pub(crate) cap_is_fixed: bool,
    /// Answers to the same prompt.
    pub(crate) choices: u64,
}

impl Estimate {
    /// What is held for the prompt: a quarter more than was counted here, and a little for the template,
    /// because other vendors' tokenizers count differently and a charge is never more than was held.
    const fn prompt_held(&self) -> u64 {
        self.prompt + self.prompt / 4 + 32
    }

    const fn most(&self) -> Tokens {
        let completion = self.cap.saturating_mul(self.choices);
        Tokens { prompt: self.prompt_held(), cached: 0, completion, reasoning: 0 }
    }

    fn demand(&self, model: &Model, operation: Operation) -> Demand {
        let most = self.most();
        Demand {
            amounts: charge(operation).with(Resource::LlmTokens, most.total()),
            credits: model.price.at_most(&most),
        }
    }

    /// The estimate with the largest cap that the meter still covers, when the client leaves that open and
    /// it is worth an answer.
    fn lowered(&self, refusal: &Refusal, model: &Model) -> Option<Self> {
        let tokens = match refusal {
            Refusal::QuotaExceeded { resource: Resource::LlmTokens, left, .. }
            | Refusal::BudgetExceeded { what: Budgeted::Resource(Resource::LlmTokens), left, .. } => {
                left.checked_sub(self.prompt_held())?
            }
            Refusal::OutOfCredits { left, .. } | Refusal::BudgetExceeded { what: Budgeted::Credits, left, .. } => {
                let prompt = model.price.at_most(&Self { cap: 0, ..*self }.most());
                // The price is rounded up once, so a unit less is certainly covered.
                let rest = u128::from(left.checked_sub(prompt)?.saturating_sub(1)) * 1_000_000;
                u64::try_from(rest.checked_div(u128::from(model.price.output))?).ok()?
            }
            _ => return None,
        };
        let cap = (tokens / self.choices).min(self.cap);
        (!self.cap_is_fixed && cap >= SHORTEST_ANSWER).then_some(Self { cap, ..*self })
    }
}

/// A cap that is lowered below this many tokens would cut off any answer.
const SHORTEST_ANSWER: u64 = 16;

/// How often a reservation is tried while the database does not answer, each time as another request, and how long the pauses
/// in between begin.
const RESERVE_TRIES: u32 = 3;
const RESERVE_PAUSE: Duration = Duration::from_millis(50);

/// How long a call that cannot be admitted waits for what it may hold to be given back.
const GIVING_BACK: Duration = Duration::from_secs(2);

/// What every charged call takes beside its tokens.
const fn charge(operation: Operation) -> Amounts {
    let amounts = Amounts::NONE.with(Resource::ApiCalls, 1);
    match operation {
        Operation::Chat => amounts.with(Resource::Messages, 1),
        // The second is no call, and never comes here.
        Operation::Embeddings | Operation::Record => amounts,
    }
}

/// An admitted call. It owns its reservation; only [`Call::finish`] ends both.
pub(crate) struct Call {
    state: State,
    reservation: Box<Reservation>,
    model: Arc<Model>,
    operation: Operation,
    streamed: bool,
    estimate: Estimate,
    key: Option<KeyId>,
    member: UserId,
    trace: TraceId,
    at: Millis,
    started: Instant,
    first_byte: Option<Duration>,
}

/// What a call is about, before it is admitted.
pub(crate) struct Proposal {
    scope: TenantScope,
    model: Arc<Model>,
    operation: Operation,
    streamed: bool,
    estimate: Estimate,
    key: Option<KeyId>,
    member: UserId,
    budgets: Option<Budgets>,
    trace: TraceId,
}

impl Proposal {
    /// A call that `caller` wants to make.
    ///
    /// # Errors
    /// 403 when the caller may not call models.
    pub(crate) fn new(
        caller: &Caller,
        trace: TraceId,
        model: Arc<Model>,
        operation: Operation,
        streamed: bool,
        estimate: Estimate,
    ) -> Result<Self, ApiError> {
        let scope = caller.scope(Permission::CallModels)?.clone();
        let (key, member) = (caller.key().cloned(), caller.member().clone());
        let budgets = caller.budgets().map(|(_, budgets)| budgets.clone());
        Ok(Self { scope, model, operation, streamed, estimate, key, member, budgets, trace })
    }
}

impl Call {
    /// Asks the meter. Nothing is sent to a vendor without the [`Call`] that this returns. Runs in the
    /// call's own task: a handler that is dropped between the write and its answer would leave the hold.
    ///
    /// # Errors
    /// 402, 403 when the plan does not include the model, 429, 503: nothing is held then, or what is held is given back.
    pub(crate) async fn admit(state: &State, proposal: Proposal) -> Result<Self, ApiError> {
        let Proposal { scope, model, operation, streamed, mut estimate, key, member, budgets, trace } = proposal;
        // The hold is counted from later than this, so it outlives the call's deadline.
        let started = Instant::now();
        let hold_for = Millis::try_from((state.0.waits.call + Waits::HOLD_GRACE).as_millis()).unwrap_or(Millis::MAX);
        let store = &state.0.store;
        let ceilings = store.ceilings(&scope, key.as_ref().zip(budgets.as_ref()), &member, &model.id).await?;
        let reserve = async |estimate: &Estimate| {
            let (mut tries, mut given_back) = (0, vec![]);
            loop {
                let request = RequestId::at(store.now());
                let demand = estimate.demand(&model, operation);
                let terms = Terms { budgets: &ceilings, feature: model.feature.as_ref() };
                let admission = store.admit(&scope, terms, &request, &demand, hold_for).await;
                let Err(error) = admission else { return admission };
                tries += 1;
                // Perhaps the write was applied and only its answer lost.
                let (again, store, scope) = (matches!(error, StoreError::Unavailable(_)), store.clone(), scope.clone());
                given_back.push(state.0.calls.spawn(async move {
                    if let Err(error) = store.release(&scope, &request).await {
                        tracing::warn!(%request, %error, "if it holds something, that will expire");
                    }
                }));
                if !again || tries == RESERVE_TRIES {
                    // A function that has answered is not run any more, until the hold has expired perhaps.
                    let _ = tokio::time::timeout(GIVING_BACK, join_all(given_back)).await;
                    return Err(error);
                }
                tokio::time::sleep(RESERVE_PAUSE * tries).await;
            }
        };
        let mut admission = reserve(&estimate).await?;
        // Tokens and credits, of the tenant and of each budget: each may want it lower than the one before.
        for _ in 0..2 * (1 + ceilings.len()) {
            let Err(refused) = &admission else { break };
            let Some(lowered) = estimate.lowered(&refused.refusal, &model) else { break };
            estimate = lowered;
            admission = reserve(&estimate).await?;
        }
        let reservation = match admission {
            Ok(reservation) => reservation,
            Err(refused) => {
                let headers = Standing::refused(&refused).headers(&charge(operation), store.now());
                return Err(ApiError::from(refused.refusal).with_headers(headers));
            }
        };
        // The day that it is booked on lies in the period it was charged to, whatever clocks say.
        let period = reservation.hold().period;
        let at = store.now().clamp(period.start(), period.end() - 1);
        let state = state.clone();
        let first_byte = None;
        Ok(Self {
            state,
            reservation,
            model,
            operation,
            streamed,
            estimate,
            key,
            member,
            trace,
            at,
            started,
            first_byte,
        })
    }

    /// The cap that was reserved, in tokens per choice; it is forced upon the vendor.
    pub(crate) const fn cap(&self) -> u64 {
        self.estimate.cap
    }

    /// How long the vendor may take. The hold outlives this.
    pub(crate) fn timing(&self) -> Timing {
        self.state.0.waits.from(self.started)
    }

    /// Notes that the client is getting its first byte.
    pub(crate) fn first_byte(&mut self) {
        self.first_byte.get_or_insert_with(|| self.started.elapsed());
    }

    /// Nothing was produced: recorded, and charged nothing. Returns what the client may know of its limits after that, as
    /// all that end a call do.
    pub(crate) async fn finish_unused(self, status: Status) -> HeaderMap {
        self.finish(status, None, false).await
    }

    /// An answer was produced, but nobody can say how long it is: charged as held.
    pub(crate) async fn finish_as_held(self) -> HeaderMap {
        let completion = self.estimate.cap.saturating_mul(self.estimate.choices);
        let tokens = Tokens { prompt: self.estimate.prompt, completion, ..Tokens::default() };
        self.finish(Status::Interrupted, Some(tokens), true).await
    }

    /// Something was produced: charged by the vendor's count, or by ours when that is missing or absurd.
    pub(crate) async fn finish_used(self, status: Status, usage: Usage, produced: &Produced) -> HeaderMap {
        let reported = usage.reported().map(|usage| Tokens {
            prompt: usage.prompt_tokens,
            cached: usage.cached_tokens,
            completion: usage.completion_tokens,
            reasoning: usage.reasoning_tokens,
        });
        let (tokens, estimated) = match reported.filter(|tokens| self.is_possible(tokens)) {
            Some(tokens) => (tokens, false),
            None => {
                let completion = if self.operation == Operation::Chat { produced.tokens() } else { 0 };
                (Tokens { prompt: self.estimate.prompt, completion, ..Tokens::default() }, true)
            }
        };
        self.finish(status, Some(tokens), estimated).await
    }

    /// Whether a vendor may have counted this. What is beyond twice the model's own limits (vendors count
    /// in their own ways) is a mistake, and neither charged nor added to what we owe.
    fn is_possible(&self, tokens: &Tokens) -> bool {
        match self.operation {
            Operation::Chat => {
                let longest = self.model.max_output_tokens.saturating_mul(2 * self.estimate.choices);
                tokens.prompt <= 2 * self.model.context_tokens && tokens.completion <= longest
            }
            // Many inputs, each of its own window; a token is at least a byte of the request.
            Operation::Embeddings | Operation::Record => tokens.total() <= BODY_LIMIT as u64,
        }
    }

    /// Event first, then settlement: a crash in between leaves a hold, which expires and is settled by
    /// the record. Without the event nothing is settled, and the hold is charged as held.
    async fn finish(self, status: Status, used: Option<Tokens>, estimated: bool) -> HeaderMap {
        let hold = self.reservation.hold();
        let tokens = used.unwrap_or_default();
        let (charged, credits) = match used {
            None => (Amounts::NONE, 0),
            Some(tokens) => {
                let most = charge(self.operation).with(Resource::LlmTokens, tokens.total());
                (most.min(&hold.amounts), self.model.price.of(&tokens).min(hold.credits))
            }
        };
        let overrun = tokens.total() - charged.get(Resource::LlmTokens);
        let scope = self.reservation.scope();
        let event = UsageEvent {
            id: self.reservation.request().clone(),
            org: scope.org().clone(),
            at: self.at,
            period: hold.period.index(),
            key: self.key,
            member: Some(self.member),
            operation: self.operation,
            model: self.model.id.clone(),
            status,
            tokens,
            charged,
            credits,
            cost: self.model.cost.of(&tokens),
            price_version: self.model.price_version,
            estimated,
            overrun,
            streamed: self.streamed,
            latency_ms: millis(self.started.elapsed()),
            first_byte_ms: self.first_byte.map(millis),
            request_id: self.trace.0.to_string(),
            shard: hold.shard,
            own: None,
        };
        if overrun > 0 {
            tracing::warn!(request = %event.id, overrun, model = event.model, "used more than was held");
        }
        let (store, queue) = (&self.state.0.store, &self.state.0.queue);
        let headers =
            |charged| Standing::after(&self.reservation, charged).headers(&charge(self.operation), store.now());
        if let Err(error) = queue.send(&event).await {
            tracing::warn!(request = %event.id, %error, "writing the usage without the queue");
            let written =
                store.write_usage(scope, std::slice::from_ref(&event)).await.map_err(|error| error.to_string());
            let written = written.and_then(|report| match report.rejected.is_empty() {
                true => Ok(()),
                false => Err("the database takes no such record".to_owned()),
            });
            if let Err(error) = written {
                tracing::error!(request = %event.id, error, ?event, "usage could not be written; its hold will expire");
                return headers(None);
            }
        }
        match store.settle(&self.reservation, &charged, credits).await {
            Ok(_) => headers(Some(&charged)),
            Err(error) => {
                tracing::warn!(request = %event.id, %error, "a hold could not be settled; it will expire");
                headers(None)
            }
        }
    }

    /// What the client may know of its limits while the call goes on: what is held counts as used.
    pub(crate) fn limit_headers(&self) -> HeaderMap {
        let now = self.state.0.store.now();
        Standing::after(&self.reservation, None).headers(&charge(self.operation), now)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tenantry_domain::catalogue::{Catalogue, TokenPrice};

    use super::*;

    fn model(price: TokenPrice) -> Model {
        let text = include_str!("../../../infra/catalogue.toml");
        let catalogue = Catalogue::parse(text).unwrap();
        Model { price, ..(**catalogue.model("gpt-4.1-mini").unwrap()).clone() }
    }

    fn quota(left: u64) -> Refusal {
        Refusal::QuotaExceeded { resource: Resource::LlmTokens, limit: 0, left, resets_at: 0 }
    }

    #[test]
    fn only_a_cap_that_the_client_left_open_is_lowered() {
        let open = Estimate { prompt: 100, cap: 16_000, cap_is_fixed: false, choices: 2 };
        let free = model(TokenPrice::default());
        assert_eq!(open.prompt_held(), 157);
        assert_eq!(open.lowered(&quota(1_157), &free).unwrap().cap, 500);
        assert_eq!(open.lowered(&quota(1_000_000), &free).unwrap().cap, 16_000);
        assert!(open.lowered(&quota(157 + 31), &free).is_none(), "too short for an answer");
        assert!(open.lowered(&quota(10), &free).is_none());
        assert!(Estimate { cap_is_fixed: true, ..open }.lowered(&quota(1_157), &free).is_none());
        let lowered = open.lowered(&quota(1_157), &free).unwrap();
        assert!(lowered.most().total() <= 1_157);
    }

    #[test]
    fn credits_lower_the_cap_to_what_they_cover() {
        let open = Estimate { prompt: 100, cap: 16_000, cap_is_fixed: false, choices: 2 };
        let priced = model(TokenPrice { input: 1_000_000, cached_input: None, output: 3_000_000 });
        for left in [400, 1_000, 5_000, 95_000] {
            let lowered = open.lowered(&Refusal::OutOfCredits { left, needed: 0 }, &priced).unwrap();
            assert!(lowered.demand(&priced, Operation::Chat).credits <= left, "{left}: {lowered:?}");
        }
        assert!(open.lowered(&Refusal::OutOfCredits { left: 100, needed: 0 }, &priced).is_none());
        assert!(open.lowered(&Refusal::TooManyInFlight { limit: 1 }, &priced).is_none());
    }
}
