//! `GET /usage/history`: sums over days, grouped.

use std::collections::BTreeMap;

use axum::{Json, extract::State as Shared};
use serde::{Deserialize, Serialize};
use tenantry_domain::{Amounts, KeyId, Millis, Resource, UserId, roles::Permission, time::day};
use tenantry_store::{RollUp, Sums};
use tenantry_web::{ApiError, Caller, Code, Query, error::Problem};
use utoipa::{IntoParams, ToSchema};

use crate::{
    State,
    days::{DAY, Day, days, start_of_day},
    figures::{Figures, ResourceName, Totals},
};

/// Days that are shown when nothing is asked for, today included.
const DEFAULT_DAYS: Millis = 30;

/// Most days in one answer: a year, leap or not.
const MAX_DAYS: Millis = 366;

/// Which days, and how to group them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// First UTC day; 29 days before `to` when left out.
    #[param(value_type = Option<String>, format = Date, pattern = r"^(19[7-9]\d|[2-8]\d{3})-", example = "2026-11-01")]
    from: Option<Day>,
    /// Last UTC day, included; today when left out. At most 366 days.
    #[param(value_type = Option<String>, format = Date, pattern = r"^(19[7-9]\d|[2-8]\d{3})-", example = "2026-11-30")]
    to: Option<Day>,
    /// What a row is; a day when left out.
    #[serde(default)]
    #[param(inline)]
    group_by: GroupBy,
}

/// What a row is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupBy {
    /// A day, in order, days without requests too.
    #[default]
    Day,
    /// A model, the busiest first. What the organization recorded itself has none.
    Model,
    /// An API key, the busiest first.
    Key,
    /// A member, the busiest first; a key's requests are its maker's.
    Member,
    /// A resource. The rows overlap: a chat request is in three of them. The organization's own ones, if it recorded any,
    /// come after the plan's.
    Resource,
}

/// What the sums of a row are of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Group {
    /// A UTC day.
    Day {
        /// The day.
        #[schema(format = Date)]
        day: String,
    },
    /// A model.
    Model {
        /// As clients name it.
        model: String,
    },
    /// An API key.
    Key {
        /// The key; `null` for requests of signed-in people.
        #[schema(value_type = Option<String>, required)]
        api_key_id: Option<KeyId>,
    },
    /// A member.
    Member {
        /// The member; `null` where it is not known.
        #[schema(value_type = Option<String>, required)]
        member_id: Option<UserId>,
    },
    /// A resource.
    Resource {
        /// The resource: one of the plan's, or the organization's own.
        #[schema(value_type = String, example = "messages")]
        resource: AnyResource,
    },
}

/// A resource of the plan's, or one of the organization's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub(crate) enum AnyResource {
    Plans(ResourceName),
    Own(String),
}

impl From<Resource> for AnyResource {
    fn from(resource: Resource) -> Self {
        Self::Plans(resource.into())
    }
}

/// Sums of one group.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct HistoryRow {
    /// What they are of.
    #[serde(flatten)]
    group: Group,
    /// The sums.
    #[serde(flatten)]
    figures: Figures,
}

/// Sums over days, grouped.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    /// First day.
    #[schema(format = Date)]
    from: String,
    /// Last day, included.
    #[schema(format = Date)]
    to: String,
    /// What a row is.
    group_by: GroupBy,
    /// The rows.
    data: Vec<HistoryRow>,
}

/// Usage over time
///
/// Sums over days, by day, model, API key, member or resource. They follow a request within seconds.
#[utoipa::path(
    get,
    path = "/api/v1/usage/history",
    tag = "usage",
    operation_id = "get_usage_history",
    params(HistoryQuery),
    responses(
        (status = 200, description = "The sums.", body = History),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The API key lacks the scope `usage`.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`from` lies behind `to`, or they are too far apart.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn history(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<History>, ApiError> {
    let scope = caller.scope(Permission::ReadUsage)?;
    let (first, last) = range(&query, state.store.now())?;
    let mut groups = Groups::new(query.group_by, first, last);
    state.store.each_roll_up(scope, &day(first), &day(last), |roll_up| groups.add(&roll_up)).await?;
    Ok(Json(History { from: day(first), to: day(last), group_by: query.group_by, data: groups.into_rows() }))
}

/// First millisecond of the first and of the last day.
fn range(query: &HistoryQuery, now: Millis) -> Result<(Millis, Millis), ApiError> {
    let last = query.to.map_or_else(|| start_of_day(now), |Day(at)| at);
    let first = query.from.map_or(last - (DEFAULT_DAYS - 1) * DAY, |Day(at)| at);
    if first > last {
        return Err(ApiError::new(Code::InvalidValue, "from: lies behind `to`, which is today when left out"));
    }
    if (last - first) / DAY >= MAX_DAYS {
        return Err(ApiError::new(Code::InvalidValue, format!("from: at most {MAX_DAYS} days at once")));
    }
    Ok((first, last))
}

/// Roll-ups being added up by group.
struct Groups {
    by: GroupBy,
    rows: BTreeMap<Group, Totals>,
}

impl Groups {
    /// Nothing yet: the groups that are shown also without usage.
    fn new(by: GroupBy, first: Millis, last: Millis) -> Self {
        let rows = match by {
            GroupBy::Day => days(first, last).map(|day| (Group::Day { day }, Totals::default())).collect(),
            GroupBy::Resource => {
                Resource::ALL.into_iter().map(|r| (Group::Resource { resource: r.into() }, Totals::default())).collect()
            }
            GroupBy::Model | GroupBy::Key | GroupBy::Member => BTreeMap::new(),
        };
        Self { by, rows }
    }

    fn add(&mut self, roll_up: &RollUp) {
        let RollUp { key, sums } = roll_up;
        let own = key.own_resource().is_some();
        let group = match self.by {
            GroupBy::Day => Group::Day { day: key.day.clone() },
            GroupBy::Model if own => return,
            GroupBy::Model => Group::Model { model: key.model.clone() },
            GroupBy::Key => Group::Key { api_key_id: key.key.clone() },
            GroupBy::Member => Group::Member { member_id: key.member.clone() },
            GroupBy::Resource if own => Group::Resource { resource: AnyResource::Own(key.model.clone()) },
            GroupBy::Resource => {
                for (resource, amount) in sums.charged.iter().filter(|(_, amount)| *amount > 0) {
                    let share = Sums { charged: Amounts::NONE.with(resource, amount), ..*sums };
                    self.rows.entry(Group::Resource { resource: resource.into() }).or_default().sums.add(&share);
                }
                return;
            }
        };
        self.rows.entry(group).or_default().add(roll_up);
    }

    /// In the order of the answer.
    fn into_rows(self) -> Vec<HistoryRow> {
        let mut rows: Vec<_> = self.rows.into_iter().collect();
        if matches!(self.by, GroupBy::Model | GroupBy::Key | GroupBy::Member) {
            rows.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.sums.requests));
        }
        rows.into_iter().map(|(group, totals)| HistoryRow { group, figures: totals.into() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use tenantry_domain::time::parse_day;
    use tenantry_store::RollUpKey;

    use super::*;

    fn query(from: Option<&str>, to: Option<&str>) -> HistoryQuery {
        let day = |text: &str| Day(parse_day(text).unwrap());
        HistoryQuery { from: from.map(day), to: to.map(day), group_by: GroupBy::Day }
    }

    #[test]
    fn thirty_days_unless_asked_and_a_year_at_most() {
        let now = parse_day("2026-11-20").unwrap() + 5;
        let shown = |query: HistoryQuery| range(&query, now).map(|(first, last)| (day(first), day(last)));
        let days = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
        assert_eq!(shown(query(None, None)).ok(), days("2026-10-22", "2026-11-20"));
        assert_eq!(shown(query(None, Some("2026-03-01"))).ok(), days("2026-01-31", "2026-03-01"));
        assert_eq!(shown(query(Some("2026-11-20"), None)).ok(), days("2026-11-20", "2026-11-20"));
        assert_eq!(shown(query(Some("2025-11-20"), None)).ok(), days("2025-11-20", "2026-11-20"));
        for (from, to) in [("2025-11-19", None), ("2026-11-21", None), ("2026-02-02", Some("2026-02-01"))] {
            assert_eq!(range(&query(Some(from), to), now).unwrap_err().code(), Code::InvalidValue, "{from}");
        }
    }

    #[test]
    fn groups_sum_up_and_the_busiest_comes_first() {
        let roll_up = |day: &str, model: &str, key: Option<KeyId>, requests| RollUp {
            key: RollUpKey { day: day.into(), model: model.into(), key, member: None, operation: "chat" },
            sums: Sums {
                requests,
                charged: Amounts::NONE.with(Resource::Messages, requests).with(Resource::LlmTokens, 10 * requests),
                ..Sums::default()
            },
        };
        let key = KeyId::new();
        let rows = [
            roll_up("2026-11-01", "a", None, 1),
            roll_up("2026-11-03", "a", Some(key.clone()), 2),
            roll_up("2026-11-03", "b", Some(key.clone()), 4),
        ];
        let (first, last) = (parse_day("2026-11-01").unwrap(), parse_day("2026-11-03").unwrap());
        let shown = |by, field: &str, sum: &str| -> Vec<(serde_json::Value, serde_json::Value)> {
            let mut groups = Groups::new(by, first, last);
            rows.iter().for_each(|row| groups.add(row));
            let rows = serde_json::to_value(groups.into_rows()).unwrap();
            rows.as_array().unwrap().iter().map(|row| (row[field].clone(), row.pointer(sum).unwrap().clone())).collect()
        };
        let day = |day: &str, n: u64| (day.into(), n.into());
        assert_eq!(
            shown(GroupBy::Day, "day", "/requests"),
            [day("2026-11-01", 1), day("2026-11-02", 0), day("2026-11-03", 6)]
        );
        assert_eq!(shown(GroupBy::Model, "model", "/requests"), [day("b", 4), day("a", 3)]);
        assert_eq!(
            shown(GroupBy::Key, "api_key_id", "/charged/llm_tokens"),
            [(key.to_string().into(), 60.into()), (serde_json::Value::Null, 10.into())]
        );
        assert_eq!(shown(GroupBy::Member, "member_id", "/requests"), [(serde_json::Value::Null, 7.into())]);
        assert_eq!(
            shown(GroupBy::Resource, "resource", "/charged/llm_tokens"),
            [day("messages", 0), day("llm_tokens", 70), day("images", 0), day("api_calls", 0)]
        );
    }
}
