//! The table itself, for places that have no deploy template: the laptop and the tests.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TimeToLiveSpecification,
};

use crate::{
    Store,
    error::{Result, StoreError},
    keys::{PK, SK},
};

/// Attribute after whose time (seconds) DynamoDB may delete the item.
pub(crate) const TTL: &str = "ttl";

impl Store {
    /// Creates the table, unless it is there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn create_table(&self) -> Result<()> {
        let mut create = self.db.create_table().table_name(&*self.table).billing_mode(BillingMode::PayPerRequest);
        for (name, role) in [(PK, KeyType::Hash), (SK, KeyType::Range)] {
            let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            let element = KeySchemaElement::builder().attribute_name(name).key_type(role);
            let invalid = |error: aws_sdk_dynamodb::error::BuildError| StoreError::Unavailable(error.to_string());
            create = create
                .attribute_definitions(attribute.build().map_err(invalid)?)
                .key_schema(element.build().map_err(invalid)?);
        }
        match create.send().await {
            Ok(_) => {}
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => return Ok(()),
            Err(error) => return Err(StoreError::from_sdk(error)),
        }
        let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name(TTL).build();
        let ttl = ttl.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.db
            .update_time_to_live()
            .table_name(&*self.table)
            .time_to_live_specification(ttl)
            .send()
            .await
            .map_err(StoreError::from_sdk)?;
        Ok(())
    }
}
