//! Orders at WeChat Pay and Alipay.
//!
//! Their messages hold the whole state, signed, and an order takes facts in any order; so a message is taken at its word
//! once it was held against what was ordered: vendor, app, merchant, order, amount and currency. What differs is refused,
//! and nothing is written.

use tenantry_domain::{
    Millis, OrderId, UserId,
    orders::{Fact, Goods, NewOrder, Order, Provider},
};
use tenantry_payments::{
    Closing, Event, NewOrder as AtVendor, Notification, PaymentError, Presentation, RefundNotice, RefundState, Show,
    Trade, TradeState, Vendor,
};
use tenantry_store::{AuditActor, Change, NewAudit, Origin, TenantScope};

use crate::{Commerce, CommerceError, Handled, Mismatch, reconcile::vendor_of};

/// How long the payer has. A QR code of Alipay's that nobody scanned cannot be called back, so it is short.
const OPEN_FOR: Millis = 15 * 60_000;

/// As many months as can be ordered at once.
const MOST_MONTHS: u32 = 36;

/// Who buys.
#[derive(Debug, Clone, Copy)]
pub struct Buyer<'a> {
    /// The person.
    pub user: &'a UserId,
    /// Where the request came from.
    pub origin: &'a Origin,
}

/// What is wanted, by its name in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// A package of credits.
    Package(&'a str),
    /// Months of a plan.
    Months {
        /// The plan.
        plan: &'a str,
        /// How many, 1 to 36.
        months: u32,
    },
}

/// An order at WeChat Pay or Alipay.
#[derive(Debug, Clone, Copy)]
pub struct ChinaOrder<'a> {
    /// Which of them.
    pub vendor: Vendor,
    /// What is wanted.
    pub wanted: Wanted<'a>,
    /// What the payer is to be shown.
    pub show: Show<'a>,
}

impl Buyer<'_> {
    /// The row of the audit log for an order.
    pub(crate) fn ordered<'a>(&'a self, new: &'a NewOrder) -> NewAudit<'a> {
        let price = format!("{} {}", new.amount, new.currency);
        let goods = match &new.goods {
            Goods::Package { id, .. } => Change { field: "package", old: None, new: Some(id.clone()) },
            Goods::Months { plan, months } => {
                Change { field: "months", old: None, new: Some(format!("{months} of {plan}")) }
            }
        };
        NewAudit {
            action: "order.created",
            actor: AuditActor::User(self.user.clone()),
            target: Some(new.id.as_str()),
            changes: vec![goods, Change { field: "price", old: None, new: Some(price) }],
            origin: self.origin,
        }
    }
}

impl Commerce {
    /// Makes an order, here and then at the vendor.
    ///
    /// # Errors
    /// [`CommerceError::Unknown`] and [`CommerceError::Impossible`] before anything is written. When the vendor does not
    /// answer, the order stands, and [`Commerce::present`] goes on; one that is left alone closes by itself.
    pub async fn order_in_china(
        &self,
        scope: &TenantScope,
        wanted: &ChinaOrder<'_>,
        buyer: &Buyer<'_>,
    ) -> Result<(Order, Presentation), CommerceError> {
        self.payment(wanted.vendor)?;
        let (goods, amount) = match wanted.wanted {
            Wanted::Package(id) => self.package_in_china(id)?,
            Wanted::Months { plan, months } => self.months_in_china(scope, plan, months).await?,
        };
        let now = self.store.now();
        let new = NewOrder {
            id: OrderId::at(now),
            provider: match wanted.vendor {
                Vendor::WeChat => Provider::WeChat,
                Vendor::Alipay => Provider::Alipay,
            },
            goods,
            amount,
            currency: "cny".to_owned(),
            expires_at: now + OPEN_FOR,
            created_by: buyer.user.clone(),
        };
        let order = self.store.create_order(scope, &new, &buyer.ordered(&new)).await?;
        self.present(scope, order, wanted.show).await
    }

    fn package_in_china(&self, id: &str) -> Result<(Goods, u64), CommerceError> {
        let package = self.store.plans().package(id).ok_or(CommerceError::Unknown("there is no such package"))?;
        let amount = package.price.cny.ok_or(CommerceError::Impossible("the package is not sold for renminbi"))?;
        Ok((Goods::of(package), amount))
    }

    async fn months_in_china(
        &self,
        scope: &TenantScope,
        plan: &str,
        months: u32,
    ) -> Result<(Goods, u64), CommerceError> {
        let plans = self.store.plans();
        let plan = plans.find(plan).ok_or(CommerceError::Unknown("there is no such plan"))?;
        let month = plan.price.cny_month.ok_or(CommerceError::Impossible("the plan is not sold for renminbi"))?;
        if !(1..=MOST_MONTHS).contains(&months) {
            return Err(CommerceError::Impossible("months must be 1 to 36"));
        }
        let prepaid = self.store.account(scope).await?.prepaid.filter(|prepaid| prepaid.until > self.store.now());
        if prepaid.is_some_and(|prepaid| plans.larger(&plan.id, &prepaid.plan) != plan.id) {
            return Err(CommerceError::Impossible("months of a larger plan are paid for; they have to end first"));
        }
        Ok((Goods::Months { plan: plan.id.clone(), months }, month * u64::from(months)))
    }

    /// What the payer is shown of an order that waits for a payment; the vendor is asked for it again.
    ///
    /// # Errors
    /// [`CommerceError::Impossible`] when it waits no more.
    pub async fn present(
        &self,
        scope: &TenantScope,
        order: Order,
        show: Show<'_>,
    ) -> Result<(Order, Presentation), CommerceError> {
        if !order.state().is_open() || order.expires_at <= self.store.now() {
            return Err(CommerceError::Impossible("the order does not wait for a payment any more"));
        }
        let vendor = vendor_of(order.provider).ok_or(CommerceError::Impossible("the order is one of Stripe's"))?;
        let description = self.describe(&order.goods);
        let new = AtVendor {
            out_trade_no: order.id.as_str(),
            amount: order.amount,
            description: &description,
            expires_at: order.expires_at,
            show,
        };
        match self.payment(vendor)?.create(&new).await {
            Ok(presentation) => {
                let shown = match &presentation {
                    Presentation::QrCode(text) | Presentation::Redirect(text) => text.clone(),
                };
                let opened = Fact::Opened { vendor_id: None, show: shown };
                let order = self.store.order_fact(scope, &order.id, &opened).await?.order;
                Ok((order, presentation))
            }
            // Of an order that was shown before, a refusal says that it cannot be shown again, and no more.
            Err(error @ (PaymentError::Refused { .. } | PaymentError::Denied { .. } | PaymentError::Invalid(_)))
                if order.show.is_none() =>
            {
                self.store.order_fact(scope, &order.id, &Fact::Failed).await?;
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What stands on the vendor's page.
    fn describe(&self, goods: &Goods) -> String {
        let plans = self.store.plans();
        match goods {
            Goods::Package { id, .. } => plans.package(id).map_or_else(|| id.clone(), |package| package.name.clone()),
            Goods::Months { plan, months } => {
                let name = plans.find(plan).map_or(plan.as_str(), |plan| plan.name.as_str());
                format!("{name}, {months} {}", if *months == 1 { "month" } else { "months" })
            }
        }
    }

    /// Does what a message of `vendor` calls for, once its signature was verified. Can be called again with the same
    /// message at any time.
    ///
    /// # Errors
    /// [`CommerceError::Mismatch`] is final: nothing was done, and somebody must look. With the others the vendor shall
    /// come again.
    pub async fn hear(&self, vendor: Vendor, told: &Notification) -> Result<Handled, CommerceError> {
        let scope = match &told.event {
            Event::Trade(trade) => {
                let (scope, order) = self.order_called(vendor, &trade.out_trade_no).await?;
                self.take_trade(&scope, order, trade).await?;
                scope
            }
            Event::Refund(notice) => {
                let (scope, order) = self.order_called(vendor, &notice.out_trade_no).await?;
                self.take_refund(&scope, order, notice).await?;
                scope
            }
            Event::Other(kind) => {
                tracing::info!(vendor = vendor.as_str(), kind, "a message about something else");
                return Ok(Handled::default());
            }
        };
        Ok(Handled::of(scope, vec![]))
    }

    /// The order of this number, and whose it is.
    async fn order_called(&self, vendor: Vendor, number: &str) -> Result<(TenantScope, Order), CommerceError> {
        let mismatch = |why| Mismatch::of(number, why);
        let id: OrderId = number.parse().map_err(|_| mismatch("is no order of ours"))?;
        let scope = self.store.tenant_of_order(&id).await?.ok_or_else(|| mismatch("is no order of ours"))?;
        let order = self.store.order(&scope, &id).await?.ok_or_else(|| mismatch("is no order of ours"))?;
        if vendor_of(order.provider) != Some(vendor) {
            return Err(mismatch("was ordered through another vendor").into());
        }
        Ok((scope, order))
    }

    /// Takes over what a vendor says of an order.
    pub(crate) async fn take_trade(
        &self,
        scope: &TenantScope,
        order: Order,
        trade: &Trade,
    ) -> Result<Order, CommerceError> {
        match &trade.state {
            TradeState::Paid(receipt) | TradeState::Refunded(receipt) => {
                let payment = self.payment(trade.vendor)?;
                let expected = payment.expectation(order.id.as_str(), order.amount);
                expected.check(trade).map_err(|differs| Mismatch::of(order.id.as_str(), differs.to_string()))?;
                let at = receipt.paid_at.unwrap_or(self.store.now());
                let order = self.order_paid(scope, &order.id, &receipt.vendor_transaction, at).await?;
                // Alipay says so once everything went back, WeChat Pay also after a part.
                if matches!(trade.state, TradeState::Refunded(_)) && trade.vendor == Vendor::Alipay {
                    let all = Fact::RefundedTo { total: order.amount };
                    let order = self.store.order_fact(scope, &order.id, &all).await?.order;
                    return self.settle(scope, order).await;
                }
                Ok(order)
            }
            TradeState::Closed => Ok(self.store.order_fact(scope, &order.id, &Fact::Closed).await?.order),
            TradeState::Absent | TradeState::NotPaid => Ok(order),
            TradeState::Unknown(state) => {
                tracing::error!(org = %scope.org(), order = %order.id, state, "a state that is not known here");
                Ok(order)
            }
        }
    }

    /// Takes over what a vendor says of a refund, ours or one that was made by hand at the vendor's.
    async fn take_refund(
        &self,
        scope: &TenantScope,
        order: Order,
        notice: &RefundNotice,
    ) -> Result<Order, CommerceError> {
        let payment = self.payment(notice.vendor)?;
        let expected = payment.expectation(order.id.as_str(), order.amount);
        expected.check_refund(notice).map_err(|differs| Mismatch::of(order.id.as_str(), differs.to_string()))?;
        // Nothing is refunded that was not paid, so that message is late or lost.
        let at = notice.refunded_at.unwrap_or(self.store.now());
        let mut order = match order.paid {
            Some(_) => order,
            None => self.order_paid(scope, &order.id, &notice.vendor_transaction, at).await?,
        };
        let fact = match (&notice.out_refund_no, notice.amount, notice.refunded_in_all) {
            _ if notice.state != RefundState::Succeeded => None,
            (_, _, Some(total)) => Some(Fact::RefundedTo { total }),
            (Some(number), Some(amount), None) => Some(Fact::Refund { number: number.clone(), amount }),
            _ => return Err(Mismatch::of(order.id.as_str(), "is refunded, and it is not said how much").into()),
        };
        if let Some(fact) = fact {
            order = self.store.order_fact(scope, &order.id, &fact).await?.order;
        }
        // Whatever was said, what we asked for ourselves is asked after.
        self.go_on_refunding(scope, order).await
    }

    /// Calls an order off at the vendor. A QR code of Alipay's that nobody scanned cannot be called back: such an order
    /// stays open until its time is up.
    pub(crate) async fn close_in_china(
        &self,
        scope: &TenantScope,
        order: Order,
        vendor: Vendor,
    ) -> Result<Order, CommerceError> {
        match self.payment(vendor)?.close(order.id.as_str()).await? {
            Closing::Absent if vendor == Vendor::Alipay && !self.is_over(&order) => Ok(order),
            Closing::Closed | Closing::Absent => {
                Ok(self.store.order_fact(scope, &order.id, &Fact::Closed).await?.order)
            }
            Closing::AlreadyPaid(trade) => self.take_trade(scope, order, &trade).await,
        }
    }
}
