//! Orders. What an order is told is joined to what it was told before (`domain::orders`), and written over the state that
//! this was computed from; so whoever tells it, and how many at once, the end is the same.
//!
//! An order with something left to do stands among what is due as well, from its first transaction on until the one after
//! which nothing is left. So a crash anywhere leaves an order that the next walk over those finds.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use tenantry_domain::{
    OrderId,
    orders::{
        Fact, Goods, NewOrder, NoRefund, Order, Paid, Provider, RefundAsked, RefundBegun, RefundEnd, RefundWanted,
        Unpaid,
    },
};

use crate::{
    NewAudit, Page, Store, TenantScope,
    db::{CONFLICT_TRIES, Range, Transacted, back_off, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n, s},
    keys,
};

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderChanged {
    /// As it is now.
    pub order: Order,
    /// As it was, when it is another.
    pub before: Option<Box<Order>>,
}

/// An order that has something left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueOrder {
    /// Whose it is.
    pub scope: TenantScope,
    /// Which one.
    pub order: OrderId,
}

impl Store {
    /// Makes an order, and the row of the audit log that says so.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then, or everything.
    pub async fn create_order(&self, scope: &TenantScope, new: &NewOrder, audit: &NewAudit<'_>) -> Result<Order> {
        let order = self.new_order(new);
        match self.transact(self.order_creation(scope, &order, audit)?).await? {
            Transacted::Done => Ok(order),
            // Ids are not made twice.
            Transacted::Refused(_) => Err(StoreError::Rejected(format!("the order {} exists", order.id))),
        }
    }

    pub(crate) fn new_order(&self, new: &NewOrder) -> Order {
        Order::new(new.clone(), self.plans.version(), self.now())
    }

    /// The order, whose it is, that it is due, and the row of the audit log.
    pub(crate) fn order_creation(
        &self,
        scope: &TenantScope,
        order: &Order,
        audit: &NewAudit<'_>,
    ) -> Result<Vec<TransactWriteItem>> {
        let owner = NewItem::at(&keys::order_owner(&order.id)).text("org", scope.org().as_str()).build();
        let mut writes = vec![];
        for item in [order_item(scope, order), owner, due_item(scope, order)] {
            let put = Put::builder().table_name(&*self.table).set_item(Some(item));
            let put = put.condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
        }
        writes.push(self.audit_write(scope, audit)?);
        Ok(writes)
    }

    /// An order of the tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order(&self, scope: &TenantScope, order: &OrderId) -> Result<Option<Order>> {
        self.get(&keys::order(scope, order), true).await?.map(|item| read_order(&item)).transpose()
    }

    /// The orders of the tenant, newest first.
    ///
    /// # Errors
    /// [`StoreError`]; `BadCursor` for a cursor of another list.
    pub async fn orders(&self, scope: &TenantScope, limit: u16, cursor: Option<&str>) -> Result<Page<Order>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::ORDER_PREFIX));
        let between = Range::between(&pk, keys::ORDER_PREFIX, &to);
        let range = Range { cursor, limit: limit.into(), consistent: true, newest_first: true, ..between };
        let (items, next) = self.page_ahead(range).await?;
        Ok(Page { items: items.iter().map(read_order).collect::<Result<_>>()?, next })
    }

    /// Whose order this is; nobody's when there is none of that name. For what vendors tell, who name the order alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tenant_of_order(&self, order: &OrderId) -> Result<Option<TenantScope>> {
        let stored = self.get(&keys::order_owner(order), true).await?;
        stored.map(|item| Ok(TenantScope::of_registered(Reader(&item).parsed("org")?))).transpose()
    }

    /// Orders of one shard (of [`Store::shards`]) that have something left to do, and whose payer has no time left.
    ///
    /// # Errors
    /// [`StoreError`]; `BadCursor` for a cursor of another list.
    pub async fn due_orders(&self, shard: u8, limit: u16, cursor: Option<&str>) -> Result<Page<DueOrder>> {
        let (pk, to) = (keys::due(shard), keys::orders_due_before(self.now() + 1));
        let range = Range { cursor, limit: limit.into(), ..Range::between(&pk, keys::ORDER_PREFIX, &to) };
        let (items, next) = self.page_ahead(range).await?;
        let due = |item: &Item| {
            let reader = Reader(item);
            let scope = TenantScope::of_registered(reader.parsed("org")?);
            Ok(DueOrder { scope, order: reader.parsed("order")? })
        };
        Ok(Page { items: items.iter().map(due).collect::<Result<_>>()?, next })
    }

    /// Tells an order something. The same may be told again.
    ///
    /// # Errors
    /// [`StoreError`]; `Corrupt` when the tenant has no such order.
    pub async fn order_fact(&self, scope: &TenantScope, order: &OrderId, fact: &Fact) -> Result<OrderChanged> {
        self.change_order(scope, order, |order| order.with(fact)).await
    }

    /// Notes that what was ordered was given.
    ///
    /// # Errors
    /// As for [`Store::order_fact`].
    pub async fn set_fulfilled(&self, scope: &TenantScope, order: &OrderId) -> Result<Order> {
        Ok(self.change_order(scope, order, |order| Order { fulfilled: true, ..order }).await?.order)
    }

    /// Begins to take back what belongs to refunds; [`Order::taking_back`] says up to which total. Unchanged when nothing
    /// is due, or a step is under way already.
    ///
    /// # Errors
    /// As for [`Store::order_fact`].
    pub async fn begin_taking_back(&self, scope: &TenantScope, order: &OrderId) -> Result<Order> {
        Ok(self.change_order(scope, order, Order::with_taking_back).await?.order)
    }

    /// Notes that what belongs to refunds up to the total `to` was taken back.
    ///
    /// # Errors
    /// As for [`Store::order_fact`].
    pub async fn set_taken_back(&self, scope: &TenantScope, order: &OrderId, to: u64) -> Result<Order> {
        Ok(self.change_order(scope, order, |order| order.with_taken_back(to)).await?.order)
    }

    /// Begins a refund, and writes the row of the audit log that says so; or finds it begun by a call before.
    ///
    /// # Errors
    /// As for [`Store::order_fact`]; [`NoRefund`] when that cannot be.
    pub async fn begin_refund(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        wanted: &RefundWanted<'_>,
        audit: &NewAudit<'_>,
    ) -> Result<std::result::Result<Order, NoRefund>> {
        for attempt in 0..CONFLICT_TRIES {
            let order = self.order_or_corrupt(scope, order).await?;
            let next = match order.with_refund(wanted) {
                Ok(next) if next != order => Order { version: order.version + 1, ..next },
                known => return Ok(known),
            };
            let mut writes = self.order_writes(scope, &next)?;
            writes.push(self.audit_write(scope, audit)?);
            if let Transacted::Done = self.transact(writes).await? {
                return Ok(Ok(next));
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    /// Ends the refund `done`, with what came of it.
    ///
    /// # Errors
    /// As for [`Store::order_fact`].
    pub async fn end_refund(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        done: &RefundBegun,
        end: RefundEnd,
        fact: Option<&Fact>,
    ) -> Result<Order> {
        Ok(self.change_order(scope, order, |order| order.with_refund_ended(done, end, fact)).await?.order)
    }

    async fn order_or_corrupt(&self, scope: &TenantScope, order: &OrderId) -> Result<Order> {
        let missing =
            || StoreError::Corrupt { key: format!("{:?}", keys::order(scope, order)), what: "is not there".into() };
        self.order(scope, order).await?.ok_or_else(missing)
    }

    /// Writes what `change` makes of an order over the state that it made it of.
    async fn change_order(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        change: impl Fn(Order) -> Order,
    ) -> Result<OrderChanged> {
        for attempt in 0..CONFLICT_TRIES * 2 {
            let before = self.order_or_corrupt(scope, order).await?;
            let next = change(before.clone());
            if next == before {
                return Ok(OrderChanged { order: before, before: None });
            }
            let next = Order { version: before.version + 1, ..next };
            if let Transacted::Done = self.transact_apart(self.order_writes(scope, &next)?).await? {
                return Ok(OrderChanged { order: next, before: Some(Box::new(before)) });
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    /// The order over its version before, and whether it is among what is due.
    fn order_writes(&self, scope: &TenantScope, order: &Order) -> Result<Vec<TransactWriteItem>> {
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(order_item(scope, order)))
            .condition_expression("version = :seen")
            .expression_attribute_values(":seen", n(order.version - 1));
        let put = TransactWriteItem::builder().put(build(put.build())?).build();
        let due = TransactWriteItem::builder();
        let due = if order.is_settled() {
            let key = keys::order_due(&order.id, order.expires_at).attributes();
            due.delete(build(Delete::builder().table_name(&*self.table).set_key(Some(key)).build())?)
        } else {
            let item = due_item(scope, order);
            due.put(build(Put::builder().table_name(&*self.table).set_item(Some(item)).build())?)
        };
        Ok(vec![put, due.build()])
    }
}

fn due_item(scope: &TenantScope, order: &Order) -> Item {
    NewItem::at(&keys::order_due(&order.id, order.expires_at))
        .text("org", scope.org().as_str())
        .text("order", order.id.as_str())
        .build()
}

fn order_item(scope: &TenantScope, order: &Order) -> Item {
    let mut item = NewItem::at(&keys::order(scope, &order.id))
        .text("org", scope.org().as_str())
        .text("id", order.id.as_str())
        .text("provider", order.provider.name())
        .number("amount", order.amount)
        .text("currency", &order.currency)
        .number("catalogue", order.catalogue)
        .number("created_at", order.created_at)
        .number("expires_at", order.expires_at)
        .text("created_by", order.created_by.as_str())
        // Follows from the rest; for people who look at the table.
        .text("state", order.state().name())
        .optional("vendor_id", order.vendor_id.as_deref())
        .optional("show", order.show.as_deref())
        .number("taken_back", order.taken_back)
        .number("refunds_begun", order.refunds_begun)
        .number("version", order.version);
    item = match &order.goods {
        Goods::Package { id, credits, expires_after_days } => {
            let item = item.text("package", id).number("credits", credits);
            expires_after_days.iter().fold(item, |item, days| item.number("expires_after_days", days))
        }
        Goods::Months { plan, months } => item.text("plan", plan).number("months", months),
    };
    if let Some(Paid { at, payment }) = &order.paid {
        item = item.number("paid_at", at).text("payment", payment);
    }
    if let Some(unpaid) = order.unpaid {
        item = item.text("unpaid", unpaid_word(unpaid));
    }
    if order.refunded_to > 0 {
        item = item.number("refunded_to", order.refunded_to);
    }
    if !order.refunds.is_empty() {
        let refunds = order.refunds.iter().map(|(number, amount)| (number.clone(), n(amount)));
        item = item.set("refunds", AttributeValue::M(refunds.collect()));
    }
    if order.fulfilled {
        item = item.set("fulfilled", AttributeValue::Bool(true));
    }
    if let Some(to) = order.taking_back {
        item = item.number("taking_back", to);
    }
    if let Some(RefundBegun { number, amount, all, total, reason }) = &order.refund {
        let all = ("all", AttributeValue::Bool(*all));
        let begun = [("number", n(number)), ("amount", n(amount)), all, ("total", n(total)), ("reason", s(reason))];
        let begun: HashMap<_, _> = begun.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        item = item.set("refund", AttributeValue::M(begun));
    }
    if !order.refunds_asked.is_empty() {
        let asked = order.refunds_asked.iter().map(|(operation, asked)| (operation.clone(), asked_item(asked)));
        item = item.set("refunds_asked", AttributeValue::M(asked.collect()));
    }
    item.build()
}

fn asked_item(RefundAsked { number, amount, end }: &RefundAsked) -> AttributeValue {
    let mut item = HashMap::from([("number".to_owned(), n(number)), ("amount".to_owned(), n(amount))]);
    item.extend(end.map(|end| ("end".to_owned(), s(refund_end_word(end)))));
    AttributeValue::M(item)
}

fn read_asked(stored: &AttributeValue, order: &Reader<'_>) -> Result<RefundAsked> {
    let stored = Reader(stored.as_m().map_err(|_| order.corrupt("a refund that was asked for is no map"))?);
    let end = match stored.optional_text("end")? {
        None => None,
        Some("made") => Some(RefundEnd::Made),
        Some("refused") => Some(RefundEnd::Refused),
        Some(_) => return Err(order.corrupt("a refund ended in an unknown way")),
    };
    Ok(RefundAsked { number: stored.number("number")?, amount: stored.number("amount")?, end })
}

const fn refund_end_word(end: RefundEnd) -> &'static str {
    match end {
        RefundEnd::Made => "made",
        RefundEnd::Refused => "refused",
    }
}

const fn unpaid_word(unpaid: Unpaid) -> &'static str {
    match unpaid {
        Unpaid::Closed => "closed",
        Unpaid::Failed => "failed",
    }
}

pub(crate) fn read_order(item: &Item) -> Result<Order> {
    let reader = Reader(item);
    let owned = |name| Ok::<_, StoreError>(reader.optional_text(name)?.map(ToOwned::to_owned));
    let goods = match reader.optional_text("package")? {
        Some(id) => Goods::Package {
            id: id.to_owned(),
            credits: reader.number("credits")?,
            expires_after_days: reader.optional_number("expires_after_days")?,
        },
        None => Goods::Months { plan: reader.text("plan")?.to_owned(), months: reader.number("months")? },
    };
    let paid = match reader.optional_number("paid_at")? {
        None => None,
        Some(at) => Some(Paid { at, payment: reader.text("payment")?.to_owned() }),
    };
    let unpaid = match reader.optional_text("unpaid")? {
        None => None,
        Some("closed") => Some(Unpaid::Closed),
        Some("failed") => Some(Unpaid::Failed),
        Some(_) => return Err(reader.corrupt("unpaid in an unknown way")),
    };
    let mut refunds = BTreeMap::new();
    if let Some(stored) = item.get("refunds") {
        let stored = stored.as_m().map_err(|_| reader.corrupt("refunds are no map"))?;
        for number in stored.keys() {
            refunds.insert(number.clone(), Reader(stored).number(number)?);
        }
    }
    let refund = match item.get("refund") {
        None => None,
        Some(stored) => {
            let stored = Reader(stored.as_m().map_err(|_| reader.corrupt("the refund is no map"))?);
            Some(RefundBegun {
                number: stored.number("number")?,
                amount: stored.number("amount")?,
                all: stored.flag("all"),
                total: stored.number("total")?,
                reason: stored.text("reason")?.to_owned(),
            })
        }
    };
    let mut refunds_asked = BTreeMap::new();
    if let Some(stored) = item.get("refunds_asked") {
        for (operation, asked) in stored.as_m().map_err(|_| reader.corrupt("refunds that were asked for are no map"))? {
            refunds_asked.insert(operation.clone(), read_asked(asked, &reader)?);
        }
    }
    Ok(Order {
        id: reader.parsed("id")?,
        provider: Provider::parse(reader.text("provider")?).ok_or_else(|| reader.corrupt("unknown provider"))?,
        goods,
        amount: reader.number("amount")?,
        currency: reader.text("currency")?.to_owned(),
        catalogue: reader.number("catalogue")?,
        created_at: reader.number("created_at")?,
        expires_at: reader.number("expires_at")?,
        created_by: reader.parsed("created_by")?,
        vendor_id: owned("vendor_id")?,
        show: owned("show")?,
        paid,
        unpaid,
        refunded_to: reader.optional_number("refunded_to")?.unwrap_or(0),
        refunds,
        fulfilled: reader.flag("fulfilled"),
        taken_back: reader.number("taken_back")?,
        taking_back: reader.optional_number("taking_back")?,
        refund,
        refunds_begun: reader.number("refunds_begun")?,
        refunds_asked,
        version: reader.number("version")?,
    })
}
