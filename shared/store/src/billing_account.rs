//! A tenant's billing account, its history, and which tenant a vendor's customer is.

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use tenantry_domain::{
    Millis, Standing,
    account::{Account, Prepaid, Subscription},
};

use crate::{
    Page, Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::Result,
    item::{Item, NewItem, Reader},
    keys,
};

/// One state of an account that differed from the one before in what the tenant has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    /// The version of the account.
    pub version: u64,
    /// When.
    pub at: Millis,
    /// The plan that the tenant has from then on.
    pub plan: String,
    /// The subscription's status.
    pub status: Option<String>,
    /// The subscription.
    pub subscription: Option<String>,
    /// Whether it ends with its period.
    pub cancel_at_period_end: bool,
    /// What brought it about.
    pub cause: String,
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
    /// then nothing was written, and whoever asks looks again, at the vendor too. A change of what the tenant has is
    /// told in the history, with its `cause`.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn write_account(
        &self,
        scope: &TenantScope,
        account: Account,
        before: &Account,
        cause: &str,
    ) -> Result<Option<Account>> {
        let next = Account { version: account.version + 1, ..account };
        let condition = if account.version == 0 { "attribute_not_exists(pk)" } else { "version = :seen" };
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(account_item(scope, &next)))
            .condition_expression(condition);
        let put = if account.version == 0 {
            put
        } else {
            put.expression_attribute_values(":seen", crate::item::n(account.version))
        };
        let mut writes = vec![TransactWriteItem::builder().put(build(put.build())?).build()];
        if has(&next) != has(before) {
            let put = Put::builder().table_name(&*self.table).set_item(Some(self.event_item(scope, &next, cause)));
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
        }
        Ok(match self.transact_apart(writes).await? {
            Transacted::Done => Some(next),
            Transacted::Refused(_) => None,
        })
    }

    fn event_item(&self, scope: &TenantScope, account: &Account, cause: &str) -> Item {
        let subscription = account.subscription.as_ref();
        let mut item = NewItem::at(&keys::account_event(scope, account.version))
            .text("org", scope.org().as_str())
            .number("version", account.version)
            .number("at", self.now())
            .text("plan", account.plan.as_deref().unwrap_or(&self.plans.first().id))
            .optional("status", subscription.map(|s| s.standing.status.as_str()))
            .optional("subscription", subscription.map(|s| s.id.as_str()))
            .text("cause", cause);
        if subscription.is_some_and(|s| s.cancel_at_period_end) {
            item = item.set("cancel_at_period_end", aws_sdk_dynamodb::types::AttributeValue::Bool(true));
        }
        item.build()
    }

    /// What the tenant had, newest first.
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
                .expression_attribute_values(":org", crate::item::s(scope.org().as_str()));
            let next = Account { customer: Some(customer.to_owned()), version: account.version + 1, ..account };
            let condition = if next.version == 1 { "attribute_not_exists(pk)" } else { "version = :seen" };
            let mut row = Put::builder()
                .table_name(&*self.table)
                .set_item(Some(account_item(scope, &next)))
                .condition_expression(condition);
            if next.version > 1 {
                row = row.expression_attribute_values(":seen", crate::item::n(next.version - 1));
            }
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

/// What counts as a change for the history.
fn has(account: &Account) -> impl PartialEq {
    let subscription = account.subscription.as_ref();
    let subscription =
        subscription.map(|s| (s.id.as_str(), s.standing.status.as_str(), s.plan.as_str(), s.cancel_at_period_end));
    (account.plan.as_deref(), subscription)
}

fn account_item(scope: &TenantScope, account: &Account) -> Item {
    let mut item = NewItem::at(&keys::account(scope))
        .text("org", scope.org().as_str())
        .number("version", account.version)
        .optional("customer", account.customer.as_deref())
        .optional("plan", account.plan.as_deref());
    if let Some(until) = account.plan_until {
        item = item.number("plan_until", until);
    }
    if let Some(prepaid) = &account.prepaid {
        item = item.text("prepaid_plan", &prepaid.plan).number("prepaid_until", prepaid.until);
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
            item = item.set("sub_cancels", aws_sdk_dynamodb::types::AttributeValue::Bool(true));
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
            period_start: reader.number("sub_start")?,
            period_end: reader.number("sub_end")?,
            cancel_at_period_end: reader.flag("sub_cancels"),
            trial_end: reader.optional_number("sub_trial_end")?,
            created_at: reader.number("sub_created")?,
        }),
    };
    let prepaid = match reader.optional_text("prepaid_plan")? {
        None => None,
        Some(plan) => Some(Prepaid { plan: plan.to_owned(), until: reader.number("prepaid_until")? }),
    };
    Ok(Account {
        customer: owned(reader.optional_text("customer")?),
        subscription,
        prepaid,
        plan: owned(reader.optional_text("plan")?),
        plan_until: reader.optional_number("plan_until")?,
        version: reader.number("version")?,
    })
}

fn read_event(item: &Item) -> Result<AccountEvent> {
    let reader = Reader(item);
    let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
    Ok(AccountEvent {
        version: reader.number("version")?,
        at: reader.number("at")?,
        plan: reader.text("plan")?.to_owned(),
        status: owned(reader.optional_text("status")?),
        subscription: owned(reader.optional_text("subscription")?),
        cancel_at_period_end: reader.flag("cancel_at_period_end"),
        cause: reader.text("cause")?.to_owned(),
    })
}
