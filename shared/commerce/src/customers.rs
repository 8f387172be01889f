//! Which of Stripe's customers a tenant is, and which tenant a customer. The link is made by us when the customer is; what
//! metadata says must agree with it, because whoever may write in the vendor's dashboard could put any tenant there.

use tenantry_domain::OrgId;
use tenantry_payments::stripe::{METADATA_ORG, Metadata, OperationKey};
use tenantry_store::TenantScope;

use crate::{Commerce, CommerceError, Mismatch};

impl Commerce {
    /// The tenant's customer, made if there is none yet. A crash in between leaves one that is found again.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn customer(&self, scope: &TenantScope, email: &str, name: &str) -> Result<String, CommerceError> {
        if let Some(customer) = self.store.account(scope).await?.customer {
            return Ok(customer);
        }
        let (stripe, org) = (self.stripe()?, scope.org().as_str());
        let key = OperationKey::new("customer", &[org]);
        let customer = stripe.find_or_create_customer(org, &key).await?;
        if !self.store.link_customer(scope, &customer.id).await? {
            // Somebody else made one at the same moment, and was quicker.
            let linked = self.store.account(scope).await?.customer;
            return linked.ok_or_else(|| Mismatch::of(&customer.id, "is another tenant's customer").into());
        }
        // What stands on invoices. It can be corrected at any time, so a failure is not worth the purchase.
        let key = OperationKey::new("customer_details", &[org, email, name]);
        if let Err(error) = stripe.update_customer(&customer.id, email, name, &key).await {
            tracing::warn!(%org, %error, "a customer has no name yet");
        }
        Ok(customer.id)
    }

    /// The tenant that an object of `customer` belongs to, where `metadata` names one too. `None` when it is none of
    /// ours: somebody else's who shares the account.
    ///
    /// # Errors
    /// [`CommerceError::Mismatch`] when both do not agree.
    pub(crate) async fn tenant_of(
        &self,
        object: &str,
        customer: Option<&str>,
        metadata: Option<&Metadata>,
    ) -> Result<Option<TenantScope>, CommerceError> {
        let named = match metadata.and_then(|metadata| metadata.get(METADATA_ORG)) {
            None => None,
            Some(named) => {
                Some(named.parse::<OrgId>().map_err(|_| Mismatch::of(object, "names no organization of ours"))?)
            }
        };
        let Some(customer) = customer else {
            return match named {
                None => Ok(None),
                Some(_) => Err(Mismatch::of(object, "names an organization and no customer").into()),
            };
        };
        match (self.store.tenant_of_customer(customer).await?, named) {
            (Some(scope), Some(named)) if *scope.org() != named => {
                Err(Mismatch::of(object, "names another organization than its customer is").into())
            }
            (Some(scope), _) => Ok(Some(scope)),
            (None, None) => Ok(None),
            // Of one that was erased Stripe still tells, its last word last.
            (None, Some(named)) if self.store.tenant(&named).await?.is_none() => {
                tracing::info!(org = %named, object, customer, "the last word of a tenant that was erased, or never was");
                Ok(None)
            }
            (None, Some(_)) => Err(Mismatch::of(object, "names an organization whose customer it is not").into()),
        }
    }
}
