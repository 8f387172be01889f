//! `GET /usage/stats`: one period at a glance.

use std::collections::BTreeMap;

use axum::{Json, extract::State as Shared};
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    Millis, Period, Resource,
    metering::Meter,
    roles::Permission,
    time::{day, rfc3339},
};
use tenantry_store::{RollUp, Sums};
use tenantry_web::{ApiError, Caller, Code, Query, error::Problem};
use utoipa::{IntoParams, ToSchema};

use crate::{
    State,
    days::{Month, days},
    figures::{Figures, ResourceName, Totals},
};

/// Which period.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatsQuery {
    /// A UTC calendar month; the current one when left out.
    #[param(value_type = Option<String>, pattern = r"^(19[7-9]\d|[2-8]\d{3})-(0[1-9]|1[0-2])$", example = "2026-11")]
    period: Option<Month>,
}

/// A UTC calendar month, from its start to before its end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeriodAnswer {
    /// Its name.
    #[schema(example = "2026-11")]
    id: String,
    /// First moment.
    #[schema(format = DateTime)]
    start: String,
    /// First moment after it; the allowances start afresh.
    #[schema(format = DateTime)]
    end: String,
}

/// How a resource stands.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ResourceStats {
    /// Which resource.
    resource: ResourceName,
    /// What was charged.
    used: u64,
    /// What requests in flight hold, until it is known what they use.
    held: u64,
    /// The period's allowance; `null` when unlimited, or not known any more.
    #[schema(required)]
    limit: Option<u64>,
    /// What is left of it for further requests.
    #[schema(required)]
    left: Option<u64>,
    /// `used` in percent of `limit`, to one decimal.
    #[schema(example = 12.5, required)]
    percent: Option<f64>,
}

/// Credits, in micro-credits.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CreditStats {
    /// What is left now, or was when a past period ended; `null` when that is not known.
    #[schema(required)]
    left: Option<u64>,
    /// What requests in flight hold.
    held: u64,
    /// What was charged in the period.
    used: u64,
}

/// One day of the series.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayFigures {
    /// The UTC day.
    #[schema(format = Date, example = "2026-11-20")]
    day: String,
    /// Its sums.
    #[serde(flatten)]
    figures: Figures,
}

/// A period at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    /// The period.
    period: PeriodAnswer,
    /// Id of the plan; `null` for a past period in which nothing happened.
    #[schema(required)]
    plan: Option<String>,
    /// How each resource stands.
    resources: Vec<ResourceStats>,
    /// How the credits stand.
    credits: CreditStats,
    /// Sums of the period.
    totals: Figures,
    /// Sums of each day of the period up to today, zeros too.
    series: Vec<DayFigures>,
}

/// Usage of a period
///
/// What was used of each allowance and what is left, sums, and a series by day. `used`, `held` and `left`
/// are exact at any moment; sums and series follow within seconds.
#[utoipa::path(
    get,
    path = "/api/v1/usage/stats",
    tag = "usage",
    operation_id = "get_usage_stats",
    params(StatsQuery),
    responses(
        (status = 200, description = "The period.", body = Stats),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The API key lacks the scope `usage`.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The period has not begun.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn stats(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<StatsQuery>,
) -> Result<Json<Stats>, ApiError> {
    let scope = caller.scope(Permission::ReadUsage)?;
    let current = state.store.meter(scope).await?;
    // Not the clock's month: another instance, whose clock runs ahead, may have begun the next period.
    let period = query.period.map_or(current.period, |Month(period)| period);
    if period > current.period {
        return Err(ApiError::new(Code::InvalidValue, "period: has not begun yet"));
    }
    let meter = if period == current.period { Some(current) } else { state.store.closed_meter(scope, period).await? };
    let last = state.store.now().min(period.end() - 1);
    let mut series = Series::new(period.start(), last);
    let (from, to) = (day(period.start()), day(period.end() - 1));
    state.store.each_roll_up(scope, &from, &to, |roll_up| series.add(&roll_up)).await?;
    Ok(Json(summary(period, meter.as_ref(), series)))
}

/// Roll-ups being added up, all together and by day.
struct Series {
    totals: Totals,
    by_day: BTreeMap<String, Totals>,
}

impl Series {
    /// Nothing yet, from the day of `first` to that of `last`.
    fn new(first: Millis, last: Millis) -> Self {
        let by_day = days(first, last).map(|day| (day, Totals::default())).collect();
        Self { totals: Totals::default(), by_day }
    }

    fn add(&mut self, roll_up: &RollUp) {
        self.totals.add(roll_up);
        self.by_day.entry(roll_up.key.day.clone()).or_default().add(roll_up);
    }
}

/// The answer from the meter (none for a past period without one) and what the period's roll-ups add up to.
fn summary(period: Period, meter: Option<&Meter>, Series { totals, by_day }: Series) -> Stats {
    Stats {
        period: PeriodAnswer { id: period.to_string(), start: rfc3339(period.start()), end: rfc3339(period.end()) },
        plan: meter.map(|meter| meter.plan.clone()),
        resources: Resource::ALL.into_iter().map(|resource| standing(resource, meter, &totals.sums)).collect(),
        credits: CreditStats {
            left: meter.map(|meter| meter.credits),
            held: meter.map_or(0, |meter| meter.holds.values().map(|hold| hold.credits).sum()),
            used: totals.sums.credits,
        },
        totals: totals.into(),
        series: by_day.into_iter().map(|(day, totals)| DayFigures { day, figures: totals.into() }).collect(),
    }
}

fn standing(resource: Resource, meter: Option<&Meter>, totals: &Sums) -> ResourceStats {
    let name = resource.into();
    match meter.and_then(|meter| meter.level(resource)) {
        Some(level) => ResourceStats {
            resource: name,
            used: level.used,
            held: level.held,
            limit: Some(level.limit),
            left: Some(level.left),
            percent: Some(level.percent()),
        },
        // Nothing counts an unlimited resource down, so its use is what the records add up to.
        None => {
            let used = totals.charged.get(resource);
            ResourceStats { resource: name, used, held: 0, limit: None, left: None, percent: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use tenantry_domain::{
        Amounts, RequestId,
        metering::Hold,
        plans::{DEFAULT_PLANS, Limit, Plans},
    };
    use tenantry_store::RollUpKey;

    use super::*;

    fn november() -> Period {
        "2026-11".parse().unwrap()
    }

    fn roll_up(day: &str, tokens: u64) -> RollUp {
        let key = RollUpKey { day: day.into(), model: "m".into(), key: None, member: None, operation: "chat" };
        let charged = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, tokens);
        RollUp { key, sums: Sums { requests: 1, charged, credits: 7, cost: 99, ..Sums::default() } }
    }

    fn series(roll_ups: &[RollUp], last: Millis) -> Series {
        let mut series = Series::new(november().start(), last);
        roll_ups.iter().for_each(|roll_up| series.add(roll_up));
        series
    }

    #[test]
    fn used_held_and_left_make_the_limit() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let mut meter = Meter::new(plans.get("free"), november());
        meter.left = tenantry_domain::metering::Allowances::from_fn(|resource| match resource {
            Resource::LlmTokens => Limit::Of(150_000),
            other => plans.get("free").allowances().get(other),
        });
        let amounts = Amounts::NONE.with(Resource::LlmTokens, 40_000);
        let hold = Hold {
            amounts,
            counted: [true; 4],
            credits: 3,
            period: november(),
            expires_at: 0,
            budgets: vec![],
            shard: 0,
        };
        meter.holds.insert(RequestId::new(), hold);
        let now = november().start() + 1;
        let stats = summary(november(), Some(&meter), series(&[], now));
        let tokens = &stats.resources[1];
        assert_eq!((tokens.used, tokens.held, tokens.left), (10_000, 40_000, Some(150_000)));
        assert_eq!((tokens.limit, tokens.percent), (Some(200_000), Some(5.0)));
        assert_eq!(stats.credits, CreditStats { left: Some(0), held: 3, used: 0 });
    }

    #[test]
    fn an_unlimited_resource_is_what_the_records_add_up_to() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let meter = Meter::new(plans.get("team"), november());
        let roll_ups = [roll_up("2026-11-02", 5), roll_up("2026-11-02", 6), roll_up("2026-11-04", 7)];
        let last = november().start() + 4 * crate::days::DAY;
        let stats = summary(november(), Some(&meter), series(&roll_ups, last));
        let messages = ResourceStats {
            resource: ResourceName::Messages,
            used: 3,
            held: 0,
            limit: None,
            left: None,
            percent: None,
        };
        assert_eq!(stats.resources[0], messages);
        assert_eq!(stats.credits.used, 21);
        let days: Vec<_> = stats.series.iter().map(|entry| entry.day.as_str()).collect();
        assert_eq!(days, ["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04", "2026-11-05"]);
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["series"][1]["charged"]["llm_tokens"], 11);
        assert_eq!(json["series"][2]["requests"], 0);
        assert!(!json.to_string().contains("cost"), "what vendors charge is not shown");
    }

    #[test]
    fn a_month_without_a_meter_has_no_limits() {
        let stats = summary(november(), None, series(&[], november().end() - 1));
        assert_eq!((stats.plan, stats.series.len()), (None, 30));
        assert!(stats.resources.iter().all(|r| r.limit.is_none() && r.used == 0));
    }
}
