//! Usage records and roll-ups. A record is also the proof that its event was counted: it is written
//! only where there is none, in one transaction with the roll-ups it adds to.

use std::collections::{BTreeMap, HashSet};

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use tenantry_domain::{
    Amounts, KeyId, Millis, OrgId, Period, RequestId, Resource, UserId,
    own::Own,
    time::day,
    usage::{Operation, Status, Tokens, UsageEvent},
};

use crate::{
    Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n, s},
    keys,
    organizations::ERASING,
};

/// How far the moment in a record's id, or the bounds of its period, may lie from the moment of its admission: the id is
/// made when a request comes, and clocks differ. Far more than either.
const STRAY: Millis = 60 * 60 * 1000;

/// DynamoDB takes at most this many writes in one transaction.
const TRANSACTION_LIMIT: usize = 100;

/// What one roll-up row adds up: everything that a report groups by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RollUpKey {
    /// UTC day, `2026-11-20`.
    pub day: String,
    /// The model as clients name it; of records of the tenant's own their resource.
    pub model: String,
    /// The API key.
    pub key: Option<KeyId>,
    /// The member.
    pub member: Option<UserId>,
    /// The endpoint, as [`Operation::name`].
    pub operation: &'static str,
}

impl RollUpKey {
    /// The tenant's own resource, where it is one that is added up.
    #[must_use]
    pub fn own_resource(&self) -> Option<&str> {
        (self.operation == Operation::Record.name()).then_some(&self.model)
    }

    pub(crate) fn of(event: &UsageEvent) -> Self {
        Self {
            day: day(event.at),
            model: event.model.clone(),
            key: event.key.clone(),
            member: event.member.clone(),
            operation: event.operation.name(),
        }
    }
}

/// One roll-up row: a key and its sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollUp {
    /// What it is the sum of.
    pub key: RollUpKey,
    /// The sums.
    pub sums: Sums,
}

/// What roll-ups add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Admitted requests, or records of the tenant's own.
    pub requests: u64,
    /// Requests that did not end [`Status::Ok`].
    pub errors: u64,
    /// Tokens by kind.
    pub tokens: Tokens,
    /// Charged to the allowances.
    pub charged: Amounts,
    /// Charged micro-credits.
    pub credits: u64,
    /// Micro-dollars owed to vendors.
    pub cost: u64,
    /// Tokens beyond what was held.
    pub overrun: u64,
    /// What the tenant recorded of a resource of its own.
    pub amount: u64,
}

impl Sums {
    pub(crate) fn of(event: &UsageEvent) -> Self {
        Self {
            requests: 1,
            errors: u64::from(event.status != Status::Ok),
            tokens: event.tokens,
            charged: event.charged,
            credits: event.credits,
            cost: event.cost,
            overrun: event.overrun,
            amount: event.own.as_ref().map_or(0, |own| own.amount),
        }
    }

    /// Adds `other` to these sums.
    pub fn add(&mut self, other: &Self) {
        let (tokens, more) = (&mut self.tokens, &other.tokens);
        tokens.prompt = tokens.prompt.saturating_add(more.prompt);
        tokens.cached = tokens.cached.saturating_add(more.cached);
        tokens.completion = tokens.completion.saturating_add(more.completion);
        tokens.reasoning = tokens.reasoning.saturating_add(more.reasoning);
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.charged = self.charged.plus(&other.charged);
        self.credits = self.credits.saturating_add(other.credits);
        self.cost = self.cost.saturating_add(other.cost);
        self.overrun = self.overrun.saturating_add(other.overrun);
        self.amount = self.amount.saturating_add(other.amount);
    }

    /// The stored attributes: one list for writing and, with [`Self::from_numbers`], for reading.
    #[must_use]
    pub fn numbers(&self) -> [(&'static str, u64); 14] {
        [
            ("requests", self.requests),
            ("errors", self.errors),
            ("prompt_tokens", self.tokens.prompt),
            ("cached_tokens", self.tokens.cached),
            ("completion_tokens", self.tokens.completion),
            ("reasoning_tokens", self.tokens.reasoning),
            (Resource::Messages.name(), self.charged.get(Resource::Messages)),
            (Resource::LlmTokens.name(), self.charged.get(Resource::LlmTokens)),
            (Resource::Images.name(), self.charged.get(Resource::Images)),
            (Resource::ApiCalls.name(), self.charged.get(Resource::ApiCalls)),
            ("credits", self.credits),
            ("cost", self.cost),
            ("overrun", self.overrun),
            ("amount", self.amount),
        ]
    }

    fn from_numbers(number: impl Fn(&str) -> u64) -> Self {
        Self {
            requests: number("requests"),
            errors: number("errors"),
            tokens: Tokens {
                prompt: number("prompt_tokens"),
                cached: number("cached_tokens"),
                completion: number("completion_tokens"),
                reasoning: number("reasoning_tokens"),
            },
            charged: Resource::ALL.into_iter().fold(Amounts::NONE, |sum, r| sum.with(r, number(r.name()))),
            credits: number("credits"),
            cost: number("cost"),
            overrun: number("overrun"),
            amount: number("amount"),
        }
    }
}

/// What a batch of events came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// Records written.
    pub written: usize,
    /// Events that had been counted before.
    pub duplicates: usize,
    /// Events that DynamoDB will not take, however often they come.
    pub rejected: Vec<RequestId>,
    /// Events that came when their tenant was erased, or was being erased.
    pub dropped: usize,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins, when there is one. Not for outside eyes: it is a sort key.
    pub next: Option<String>,
}

impl Store {
    /// Writes the records of `events` and adds them to the roll-ups, each event once however often it
    /// is delivered. Of a tenant that was erased nothing is written: an event may lie among the dead letters for
    /// longer than its tenant lives.
    ///
    /// # Errors
    /// [`StoreError`]; a part may have been written, and delivering all of it again is safe.
    pub async fn write_usage(&self, scope: &TenantScope, events: &[UsageEvent]) -> Result<WriteReport> {
        let mut report = WriteReport::default();
        if self.is_erased(scope).await? {
            report.dropped = events.len();
            return Ok(report);
        }
        let mut seen = HashSet::new();
        let mut distinct: Vec<&UsageEvent> = events.iter().filter(|event| seen.insert(&event.id)).collect();
        report.duplicates = events.len() - distinct.len();
        distinct.sort_by_cached_key(|event| RollUpKey::of(event));
        for chunk in chunks(&distinct) {
            match self.write_chunk(scope, chunk.to_vec(), &mut report).await {
                // One of them is at fault; the others need not share its fate.
                Err(StoreError::Rejected(_)) => {
                    for event in chunk {
                        match self.write_chunk(scope, vec![event], &mut report).await {
                            Err(StoreError::Rejected(error)) => {
                                tracing::error!(request = %event.id, error, ?event, "usage that cannot be written");
                                report.rejected.push(event.id.clone());
                            }
                            other => other?,
                        }
                    }
                }
                other => other?,
            }
        }
        if report.written > 0 {
            self.note_key_uses(scope, events).await;
        }
        Ok(report)
    }

    /// Whether nothing is left of the tenant, or soon will be. Half a read unit while it lives; a condition on every
    /// write would cost two write units. What is written between this look and the end of an erasure is minutes late:
    /// an erasure begins 30 days after the last call that was admitted.
    async fn is_erased(&self, scope: &TenantScope) -> Result<bool> {
        for consistent in [false, true] {
            let organization = self.get(&keys::organization(scope), consistent).await?;
            if organization.is_some_and(|organization| !organization.contains_key(ERASING)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One transaction, again without the events that it refuses because they are recorded.
    async fn write_chunk(
        &self,
        scope: &TenantScope,
        mut chunk: Vec<&UsageEvent>,
        report: &mut WriteReport,
    ) -> Result<()> {
        while !chunk.is_empty() {
            match self.transact_apart(self.usage_writes(scope, &chunk)?).await? {
                Transacted::Done => {
                    report.written += chunk.len();
                    break;
                }
                Transacted::Refused(refused) => {
                    let before = chunk.len();
                    let mut refused = refused.into_iter();
                    chunk.retain(|_| !refused.next().unwrap_or(false));
                    report.duplicates += before - chunk.len();
                    if chunk.len() == before {
                        return Err(StoreError::Contention);
                    }
                }
            }
        }
        Ok(())
    }

    /// The writes for `events`: their records in order, then the roll-ups.
    pub(crate) fn usage_writes(&self, scope: &TenantScope, events: &[&UsageEvent]) -> Result<Vec<TransactWriteItem>> {
        let mut writes = Vec::with_capacity(events.len() + 1);
        let mut sums: BTreeMap<RollUpKey, Sums> = BTreeMap::new();
        for event in events {
            if event.org != *scope.org() {
                return Err(StoreError::Corrupt { key: event.id.to_string(), what: "event of another tenant".into() });
            }
            let put = Put::builder()
                .table_name(&*self.table)
                .set_item(Some(record_item(scope, event)))
                .condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
            sums.entry(RollUpKey::of(event)).or_default().add(&Sums::of(event));
        }
        for (key, sums) in sums {
            let mut update = self
                .update(&keys::roll_up(scope, &key))
                .expression_attribute_names("#day", "day")
                .expression_attribute_names("#model", "model")
                .expression_attribute_names("#operation", "operation")
                .expression_attribute_values(":org", s(scope.org().as_str()))
                .expression_attribute_values(":day", s(&key.day))
                .expression_attribute_values(":model", s(&key.model))
                .expression_attribute_values(":operation", s(key.operation));
            let mut set = "SET org = :org, #day = :day, #model = :model, #operation = :operation".to_owned();
            if let Some(id) = &key.key {
                set.push_str(", api_key = :key");
                update = update.expression_attribute_values(":key", s(id.as_str()));
            }
            if let Some(id) = &key.member {
                set.push_str(", #member = :member");
                update = update
                    .expression_attribute_names("#member", "member")
                    .expression_attribute_values(":member", s(id.as_str()));
            }
            let mut add = vec![];
            for (name, value) in sums.numbers().into_iter().filter(|(_, value)| *value > 0) {
                add.push(format!("#{name} :{name}"));
                update = update
                    .expression_attribute_names(format!("#{name}"), name)
                    .expression_attribute_values(format!(":{name}"), n(value));
            }
            let update = update.update_expression(format!("{set} ADD {}", add.join(", ")));
            writes.push(TransactWriteItem::builder().update(build(update.build())?).build());
        }
        Ok(writes)
    }

    /// The record of one request, in the period it was charged to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn usage_record(
        &self,
        scope: &TenantScope,
        period: Period,
        request: &RequestId,
    ) -> Result<Option<UsageEvent>> {
        let stored = self.get(&keys::record(scope, period, request), true).await?;
        stored.map(|item| read_record(&item)).transpose()
    }

    /// The records of a period, newest first.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::BadCursor`] for a cursor of another period.
    pub async fn usage_records(
        &self,
        scope: &TenantScope,
        period: Period,
        limit: u16,
        cursor: Option<&str>,
    ) -> Result<Page<UsageEvent>> {
        let (pk, from) = (keys::tenant(scope), keys::records_of(period));
        let to = prefix_end(&from);
        let range = Range { cursor, limit: limit.into(), newest_first: true, ..Range::between(&pk, &from, &to) };
        let (items, next) = self.page_ahead(range).await?;
        Ok(Page { items: items.iter().map(read_record).collect::<Result<_>>()?, next })
    }

    /// The records of requests that were admitted from `first` to before `until`, oldest first, in pages of at most
    /// `limit`, over as many periods as that takes. A page may be short, or empty, and still have a next one.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::BadCursor`] for a cursor of another stretch of time.
    pub async fn usage_between(
        &self,
        scope: &TenantScope,
        first: Millis,
        until: Millis,
        limit: u16,
        cursor: Option<&str>,
    ) -> Result<Page<UsageEvent>> {
        let pk = keys::tenant(scope);
        let (from, to) = (keys::records_from(first - STRAY), prefix_end(&keys::records_from(until + STRAY)));
        let (items, next) = self.page(Range { cursor, limit: limit.into(), ..Range::between(&pk, &from, &to) }).await?;
        let mut events: Vec<_> = items.iter().map(read_record).collect::<Result<_>>()?;
        events.retain(|event| (first..until).contains(&event.at));
        Ok(Page { items: events, next })
    }

    /// Hands the roll-ups from day `first` to day `last`, both included, to `each`, by day. One page of them is in memory at
    /// a time: there is one for each day, model, key, member and endpoint, and so of a large tenant more than a function holds.
    ///
    /// # Errors
    /// [`StoreError`]; some may have been handed over.
    pub async fn each_roll_up(
        &self,
        scope: &TenantScope,
        first: &str,
        last: &str,
        mut each: impl FnMut(RollUp) + Send,
    ) -> Result<()> {
        let (pk, from, to) = (keys::tenant(scope), keys::roll_ups_from(first), keys::roll_ups_to(last));
        let mut cursor: Option<String> = None;
        loop {
            let range = Range { cursor: cursor.as_deref(), limit: 1000, ..Range::between(&pk, &from, &to) };
            let (items, next) = self.page(range).await?;
            for item in &items {
                each(read_roll_up(item)?);
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Those roll-ups all at once, for a tenant that is known to have few.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn roll_ups(&self, scope: &TenantScope, first: &str, last: &str) -> Result<Vec<RollUp>> {
        let mut all = vec![];
        self.each_roll_up(scope, first, last, |roll_up| all.push(roll_up)).await?;
        Ok(all)
    }
}

/// Splits sorted events so that each chunk's records and roll-ups fit into one transaction.
fn chunks<'a>(events: &'a [&'a UsageEvent]) -> impl Iterator<Item = &'a [&'a UsageEvent]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let (mut writes, mut last) = (0, None);
        let fits = rest
            .iter()
            .take_while(|event| {
                let key = Some(RollUpKey::of(event));
                writes += if key == last { 1 } else { 2 };
                last = key;
                writes <= TRANSACTION_LIMIT
            })
            .count();
        let (chunk, after) = rest.split_at(fits);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn record_item(scope: &TenantScope, event: &UsageEvent) -> Item {
    let mut item = NewItem::at(&keys::record(scope, event.period(), &event.id))
        .text("org", event.org.as_str())
        .number("at", event.at)
        .optional("api_key", event.key.as_ref().map(KeyId::as_str))
        .optional("member", event.member.as_ref().map(UserId::as_str))
        .text("operation", event.operation.name())
        .text("model", &event.model)
        .text("status", event.status.name())
        .number("latency_ms", event.latency_ms)
        .number("price_version", event.price_version)
        .set("estimated", aws_sdk_dynamodb::types::AttributeValue::Bool(event.estimated))
        .set("streamed", aws_sdk_dynamodb::types::AttributeValue::Bool(event.streamed))
        .text("request_id", &event.request_id);
    if let Some(first_byte) = event.first_byte_ms {
        item = item.number("first_byte_ms", first_byte);
    }
    if event.shard > 0 {
        item = item.number("shard", event.shard);
    }
    if let Some(own) = event.own.as_ref().filter(|own| !own.metadata.is_empty()) {
        let entries = own.metadata.iter().map(|(key, value)| (key.clone(), s(value))).collect();
        item = item.set("metadata", AttributeValue::M(entries));
    }
    let sums = Sums::of(event);
    for (name, value) in sums.numbers().into_iter().skip(2).filter(|(_, value)| *value > 0) {
        item = item.number(name, value);
    }
    item.build()
}

pub(crate) fn read_record(item: &Item) -> Result<UsageEvent> {
    let reader = Reader(item);
    let sort_key = reader.text(keys::SK)?;
    let mut parts = sort_key.split('#').skip(1);
    let period: Period = parts.next().and_then(|p| p.parse().ok()).ok_or_else(|| reader.corrupt("bad sort key"))?;
    let id =
        parts.next().and_then(|id| RequestId::from_short(id).ok()).ok_or_else(|| reader.corrupt("bad sort key"))?;
    let sums = read_sums(&reader);
    let word = |name: &'static str| reader.text(name);
    let operation = Operation::parse(word("operation")?).ok_or_else(|| reader.corrupt("unknown operation"))?;
    let own = (operation == Operation::Record).then(|| Own { amount: sums.amount, metadata: metadata(item) });
    Ok(UsageEvent {
        id,
        org: reader.parsed::<OrgId>("org")?,
        at: reader.number("at")?,
        period: period.index(),
        key: reader.optional_parsed("api_key")?,
        member: reader.optional_parsed("member")?,
        operation,
        model: word("model")?.to_owned(),
        status: Status::parse(word("status")?).ok_or_else(|| reader.corrupt("unknown status"))?,
        tokens: sums.tokens,
        charged: sums.charged,
        credits: sums.credits,
        cost: sums.cost,
        price_version: reader.number("price_version")?,
        estimated: reader.flag("estimated"),
        overrun: sums.overrun,
        streamed: reader.flag("streamed"),
        latency_ms: reader.number("latency_ms")?,
        first_byte_ms: reader.optional_number("first_byte_ms")?,
        request_id: word("request_id")?.to_owned(),
        shard: reader.optional_number("shard")?.unwrap_or(0),
        own,
    })
}

fn metadata(item: &Item) -> BTreeMap<String, String> {
    let entries = item.get("metadata").and_then(|entries| entries.as_m().ok()).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_s().ok()?.clone()))).collect()
}

pub(crate) fn read_roll_up(item: &Item) -> Result<RollUp> {
    let reader = Reader(item);
    let operation = Operation::parse(reader.text("operation")?).ok_or_else(|| reader.corrupt("unknown operation"))?;
    Ok(RollUp {
        key: RollUpKey {
            day: reader.text("day")?.to_owned(),
            model: reader.text("model")?.to_owned(),
            key: reader.optional_parsed("api_key")?,
            member: reader.optional_parsed("member")?,
            operation: operation.name(),
        },
        sums: read_sums(&reader),
    })
}

fn read_sums(reader: &Reader<'_>) -> Sums {
    Sums::from_numbers(|name| reader.optional_number(name).ok().flatten().unwrap_or(0))
}
