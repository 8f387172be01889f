//! The condition that a plan includes a feature: a part of the write that admits a request, so that it costs nothing and
//! counts at that moment.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use tenantry_domain::{Feature, plans::Plans};

use crate::item::s;

/// Adds the condition to an update of the meter. A plan that is gone counts as the first one, as [`Plans::get`] has it.
pub(super) fn demand(
    plans: &Plans,
    feature: &Feature,
    condition: &mut Vec<String>,
    names: &mut HashMap<String, String>,
    values: &mut HashMap<String, AttributeValue>,
) {
    let first_has = plans.first().has(feature);
    let others: Vec<_> = plans.all().iter().filter(|plan| plan.has(feature) != first_has).collect();
    let mut placeholders = vec![];
    for (place, plan) in others.iter().enumerate() {
        placeholders.push(format!(":plan{place}"));
        values.insert(format!(":plan{place}"), s(&plan.id));
    }
    let placeholders = placeholders.join(", ");
    condition.push(match (first_has, others.is_empty()) {
        // Every plan includes it.
        (true, true) => return,
        (true, false) => format!("NOT (#plan IN ({placeholders}))"),
        (false, false) => format!("#plan IN ({placeholders})"),
        // None does, and every meter has a plan: the write fails, and tells which.
        (false, true) => "attribute_not_exists(#plan)".to_owned(),
    });
    names.insert("#plan".into(), "plan".into());
}
