//! What a change would cost, before it is made (<https://docs.stripe.com/api/invoices/create_preview>).

use serde::Deserialize;
use stripe_billing::invoice::{
    CreatePreviewInvoice, CreatePreviewInvoiceSubscriptionDetails, CreatePreviewInvoiceSubscriptionDetailsItems,
    CreatePreviewInvoiceSubscriptionDetailsProrationBehavior, CreatePreviewInvoiceSubscriptionDetailsTrialEnd,
};

use super::{
    InvoiceLine, OperationKey, PriceChange, Proration, Stripe, StripeError,
    wire::{Listed, seconds},
};

/// What a change would cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// `usd`
    pub currency: String,
    /// What settles the rest of the current period; negative when it gives back. None when the invoice has so many lines
    /// that not all of them came.
    pub proration_total: Option<i64>,
    /// The whole invoice, taxes and discounts included.
    pub total: i64,
    /// What would be charged: the total less what the customer has with us.
    pub amount_due: i64,
    /// What it is made of.
    pub lines: Vec<InvoiceLine>,
}

#[derive(Deserialize)]
struct PreviewWire {
    currency: String,
    total: i64,
    amount_due: i64,
    lines: Listed<InvoiceLine>,
}

impl Stripe {
    /// What [`Stripe::change_price`] would cost. Changes nothing.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn preview_change(&self, change: &PriceChange<'_>) -> Result<Preview, StripeError> {
        let mut item = CreatePreviewInvoiceSubscriptionDetailsItems::new();
        item.id = Some(change.item.to_owned());
        item.price = Some(change.price.to_owned());
        let mut details = CreatePreviewInvoiceSubscriptionDetails::new();
        details.items = Some(vec![item]);
        details.proration_behavior = Some(match change.proration {
            Proration::Now => CreatePreviewInvoiceSubscriptionDetailsProrationBehavior::AlwaysInvoice,
            Proration::NextInvoice => CreatePreviewInvoiceSubscriptionDetailsProrationBehavior::CreateProrations,
            Proration::None => CreatePreviewInvoiceSubscriptionDetailsProrationBehavior::None,
        });
        details.proration_date = change.proration_date.map(seconds);
        details.trial_end = change.ends_trial.then_some(CreatePreviewInvoiceSubscriptionDetailsTrialEnd::Now);
        let request = CreatePreviewInvoice::new().subscription(change.subscription).subscription_details(details);
        // It changes nothing, and an answer of yesterday would be wrong.
        let preview: PreviewWire = self.change(request, &OperationKey::fresh()?).await?;
        let prorated = preview.lines.data.iter().filter(|line| line.proration).map(|line| line.amount).sum();
        Ok(Preview {
            currency: preview.currency,
            proration_total: (!preview.lines.has_more).then_some(prorated),
            total: preview.total,
            amount_due: preview.amount_due,
            lines: preview.lines.data,
        })
    }
}
