//! A tenant's billing account, its history, and which tenant a vendor's customer is.

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, builders::PutBuilder};
use tenantry_domain::{
    Millis, Standing,
    account::{Account, PaidPlan, Prepaid, Subscription},
};

use crate::{
    Page, Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::{Result, StoreError},
    item::{Item, NewItem, Reader, n, s},
    keys,
};

/// Something that happened to what a tenant has bought, as the vendor told it. The vendor's events come in any order and
/// more than once, so each is a row under its own time and name, and the history ends up the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    /// When it happened.
    pub at: Millis,
    /// The vendor's id for it, or ours.
    pub id: String,
    /// What happened, in the vendor's words: `customer.subscription.updated`.
    pub kind: String,
    /// The subscription.
    pub subscription: Option<String>,
    /// Its status after it.
    pub status: Option<String>,
    /// The plan that it is for.
    pub plan: Option<String>,
    /// Whether it ends with its period.
    pub cancel_at_period_end: bool,
}

impl Store {
    /// The account; an empty one of version 0 when nothing was ever bought.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn account(&self, scope: &TenantScope) -> Result<Account> {
        let stored = self.get(&keys::account(scope), true).await?;
        stored.map_or_else(|| Ok(Account::default()), |item| read_account(&item))
    }

    /// Writes `account` over the state of its `version`, as the next one. `None` when that is not the state any more:
    /// then nothing was written, and whoever asks looks again, at the vendor too.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn write_account(&self, scope: &TenantScope, account: Account) -> Result<Option<Account>> {
        let (next, put) = self.next_account(scope, account);
        let write = TransactWriteItem::builder().put(build(put.build())?).build();
        Ok(match self.transact_apart(vec![write]).await? {
            Transacted::Done => Some(next),
            Transacted::Refused(_) => None,
        })
    }

    /// The same, once for `key`: [`Store::add_credits`] has the same kind of keys. `None` also when that key was used
    /// before, which [`Store::is_booked`] tells apart.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn write_account_once(
        &self,
        scope: &TenantScope,
        account: Account,
        key: &str,
    ) -> Result<Option<Account>> {
        let (next, put) = self.next_account(scope, account);
        let key = NewItem::at(&keys::booking(scope, key)).text("org", scope.org().as_str()).build();
        let once = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(key))
            .condition_expression("attribute_not_exists(pk)");
        let writes = vec![
            TransactWriteItem::builder().put(build(put.build())?).build(),
            TransactWriteItem::builder().put(build(once.build())?).build(),
        ];
        Ok(match self.transact_apart(writes).await? {
            Transacted::Done => Some(next),
            Transacted::Refused(_) => None,
        })
    }

    fn next_account(&self, scope: &TenantScope, account: Account) -> (Account, PutBuilder) {
        let seen = account.version;
        let next = Account { version: seen + 1, ..account };
        let put = Put::builder().table_name(&*self.table).set_item(Some(account_item(scope, &next)));
        let put = match seen {
            0 => put.condition_expression("attribute_not_exists(pk)"),
            _ => put.condition_expression("version = :seen").expression_attribute_values(":seen", n(seen)),
        };
        (next, put)
    }

    /// Notes that something happened. Twice is once.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn note_account_event(&self, scope: &TenantScope, event: &AccountEvent) -> Result<()> {
        let mut item = NewItem::at(&keys::account_event(scope, event.at, &event.id))
            .text("org", scope.org().as_str())
            .text("id", &event.id)
            .number("at", event.at)
            .text("kind", &event.kind)
            .optional("subscription", event.subscription.as_deref())
            .optional("status", event.status.as_deref())
            .optional("plan", event.plan.as_deref());
        if event.cancel_at_period_end {
            item = item.set("cancel_at_period_end", AttributeValue::Bool(true));
        }
        let put = self.db.put_item().table_name(&*self.table).set_item(Some(item.build()));
        put.send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    /// What happened, newest first.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); `BadCursor` for a cursor of another list.
    pub async fn account_history(
        &self,
        scope: &TenantScope,
        limit: u16,
        cursor: Option<&str>,
    ) -> Result<Page<AccountEvent>> {
        let (pk, to) = (keys::tenant(scope), prefix_end(keys::ACCOUNT_EVENT_PREFIX));
        let between = Range::between(&pk, keys::ACCOUNT_EVENT_PREFIX, &to);
        let range = Range { cursor, limit: limit.into(), consistent: true, newest_first: true, ..between };
        let (items, next) = self.page_ahead(range).await?;
        Ok(Page { items: items.iter().map(read_event).collect::<Result<_>>()?, next })
    }

    /// Notes that `customer` is this tenant. `false` when it is another's, or the tenant is another customer already.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn link_customer(&self, scope: &TenantScope, customer: &str) -> Result<bool> {
        loop {
            let account = self.account(scope).await?;
            if let Some(known) = &account.customer {
                return Ok(known == customer);
            }
            let link = NewItem::at(&keys::customer(customer)).text("org", scope.org().as_str()).build();
            let put = Put::builder()
                .table_name(&*self.table)
                .set_item(Some(link))
                .condition_expression("attribute_not_exists(pk) OR org = :org")
                .expression_attribute_values(":org", s(scope.org().as_str()));
            let (_, row) = self.next_account(scope, Account { customer: Some(customer.to_owned()), ..account });
            let writes = vec![
                TransactWriteItem::builder().put(build(put.build())?).build(),
                TransactWriteItem::builder().put(build(row.build())?).build(),
            ];
            match self.transact_apart(writes).await? {
                Transacted::Done => return Ok(true),
                Transacted::Refused(reasons) if reasons[0] => return Ok(false),
                Transacted::Refused(_) => {}
            }
        }
    }

    /// The tenant that a vendor's customer is, `None` when it is none of ours.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn tenant_of_customer(&self, customer: &str) -> Result<Option<TenantScope>> {
        let stored = self.get(&keys::customer(customer), true).await?;
        stored.map(|item| Ok(TenantScope::of_registered(Reader(&item).parsed("org")?))).transpose()
    }
}

fn account_item(scope: &TenantScope, account: &Account) -> Item {
    let mut item = NewItem::at(&keys::account(scope))
        .text("org", scope.org().as_str())
        .number("version", account.version)
        .optional("customer", account.customer.as_deref())
        .optional("checkout", account.checkout.as_deref())
        .optional("plan", account.plan.as_deref());
    if let Some(until) = account.plan_until {
        item = item.number("plan_until", until);
    }
    if let Some(prepaid) = &account.prepaid {
        let orders = prepaid.orders.iter().map(|(order, time)| {
            let order = [("order".to_owned(), s(order.as_str())), ("time".to_owned(), n(time))];
            AttributeValue::M(order.into())
        });
        item = item
            .text("prepaid_plan", &prepaid.plan)
            .number("prepaid_until", prepaid.until)
            .set("prepaid_orders", AttributeValue::L(orders.collect()));
    }
    if let Some(subscription) = &account.subscription {
        item = item
            .text("subscription", &subscription.id)
            .text("sub_status", subscription.standing.status.as_str())
            .text("sub_plan", &subscription.plan)
            .text("sub_price", &subscription.price)
            .number("sub_start", subscription.period_start)
            .number("sub_end", subscription.period_end)
            .number("sub_created", subscription.created_at);
        if subscription.cancel_at_period_end {
            item = item.set("sub_cancels", AttributeValue::Bool(true));
        }
        if let Some(paid) = &subscription.paid {
            item = item.text("sub_paid_plan", &paid.plan).number("sub_paid_until", paid.until);
        }
        if let Some(since) = subscription.standing.past_due_since {
            item = item.number("sub_past_due", since);
        }
        if let Some(end) = subscription.trial_end {
            item = item.number("sub_trial_end", end);
        }
    }
    item.build()
}

pub(crate) fn read_account(item: &Item) -> Result<Account> {
    let reader = Reader(item);
    let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
    let subscription = match reader.optional_text("subscription")? {
        None => None,
        Some(id) => Some(Subscription {
            id: id.to_owned(),
            standing: Standing {
                status: reader.text("sub_status")?.into(),
                past_due_since: reader.optional_number("sub_past_due")?,
            },
            plan: reader.text("sub_plan")?.to_owned(),
            price: reader.text("sub_price")?.to_owned(),
            paid: match reader.optional_text("sub_paid_plan")? {
                None => None,
                Some(plan) => Some(PaidPlan { plan: plan.to_owned(), until: reader.number("sub_paid_until")? }),
            },
            period_start: reader.number("sub_start")?,
            period_end: reader.number("sub_end")?,
            cancel_at_period_end: reader.flag("sub_cancels"),
            trial_end: reader.optional_number("sub_trial_end")?,
            created_at: reader.number("sub_created")?,
        }),
    };
    let prepaid = match reader.optional_text("prepaid_plan")? {
        None => None,
        Some(plan) => {
            let mut orders = vec![];
            // Rows from before orders were noted have none.
            for order in item.get("prepaid_orders").and_then(|orders| orders.as_l().ok()).into_iter().flatten() {
                let order = Reader(order.as_m().map_err(|_| reader.corrupt("a prepaid order is no map"))?);
                orders.push((order.parsed("order")?, order.number("time")?));
            }
            Some(Prepaid { plan: plan.to_owned(), until: reader.number("prepaid_until")?, orders })
        }
    };
    Ok(Account {
        customer: owned(reader.optional_text("customer")?),
        subscription,
        checkout: owned(reader.optional_text("checkout")?),
        prepaid,
        plan: owned(reader.optional_text("plan")?),
        plan_until: reader.optional_number("plan_until")?,
        version: reader.number("version")?,
    })
}

pub(crate) fn read_event(item: &Item) -> Result<AccountEvent> {
    let reader = Reader(item);
    let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
    Ok(AccountEvent {
        at: reader.number("at")?,
        id: reader.text("id")?.to_owned(),
        kind: reader.text("kind")?.to_owned(),
        subscription: owned(reader.optional_text("subscription")?),
        status: owned(reader.optional_text("status")?),
        plan: owned(reader.optional_text("plan")?),
        cancel_at_period_end: reader.flag("cancel_at_period_end"),
    })
}
