//! Plans and packages of credits: what is sold, what it costs and what it allows. The defaults stand in
//! `infra/plans.toml`.
//!
//! At Stripe a plan is the product [`plan_product_id`], with a price for each [`Interval`] that it is sold by, whose lookup
//! key is [`plan_price_key`]. So no ids of Stripe's need to be configured, and a price that changes keeps its key.

mod packages;

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use packages::is_word;
use packages::{LARGEST_CREDITS, are_prices, is_name};
pub use packages::{Package, PackagePrice, credits_back, pro_rata};

use crate::{
    features::Feature,
    metering::{Allowances, Rate, Resource},
};

/// The default plans, compiled in.
pub const DEFAULT_PLANS: &str = include_str!("../../../infra/plans.toml");

/// A number, or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most this many.
    Of(u64),
    /// Not counted.
    Unlimited,
}

impl Limit {
    /// The number, or `default` when there is none.
    #[must_use]
    pub const fn or(self, default: u64) -> u64 {
        match self {
            Self::Of(n) => n,
            Self::Unlimited => default,
        }
    }

    /// The number, `None` when unlimited, as answers show it (`null`).
    #[must_use]
    pub const fn number(self) -> Option<u64> {
        match self {
            Self::Of(n) => Some(n),
            Self::Unlimited => None,
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(u64),
            Word(String),
        }
        match Text::deserialize(deserializer) {
            // DynamoDB numbers keep 38 digits and JSON readers 53 bits; nobody needs more than 2^53.
            Ok(Text::Number(n)) if n <= 1 << 53 => Ok(Self::Of(n)),
            Ok(Text::Word(word)) if word == "unlimited" => Ok(Self::Unlimited),
            _ => Err(serde::de::Error::custom("must be a whole number from 0 to 2^53, or \"unlimited\"")),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(n) => serializer.serialize_u64(*n),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

/// The numbers of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanLimits {
    /// Chat answers a month.
    pub messages: Limit,
    /// Tokens a month.
    pub llm_tokens: Limit,
    /// Images a month.
    pub images: Limit,
    /// Calls of model endpoints a month.
    pub api_calls: Limit,
    /// Requests a minute, 1 to 60,000 or unlimited.
    pub requests_per_minute: Limit,
    /// Requests that may come at once after a quiet while; a minute's worth when absent.
    pub burst: Option<u64>,
    /// Requests in flight at the same time, 1 to 1,000.
    pub in_flight: u64,
    /// Assistants of kind bot.
    pub bots: Limit,
    /// Members of the organization.
    pub members: Limit,
    /// API keys.
    pub keys: Limit,
}

/// Prices in minor units (cents, fen); absent where the plan is not sold that way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlanPrice {
    /// US cents a month.
    pub usd_month: Option<u64>,
    /// US cents a year.
    pub usd_year: Option<u64>,
    /// Fen a month.
    pub cny_month: Option<u64>,
}

/// One plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Stable word, `free`.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// The numbers.
    pub limits: PlanLimits,
    /// What it includes; `all` in the file stands for everything there is.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// What it costs.
    #[serde(default)]
    pub price: PlanPrice,
    /// Micro-credits that come with each month that is paid for by subscription, and end with it.
    pub credits_month: Option<u64>,
    /// Days of trial of a tenant's first subscription; none when absent.
    pub trial_days: Option<u32>,
}

/// How often a subscription is paid; the longer interval is the larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interval {
    /// Every month.
    Month,
    /// Every year.
    Year,
}

impl Interval {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Month, Self::Year];

    /// The word in answers and lookup keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

impl PlanPrice {
    /// Whether it can be bought at all.
    #[must_use]
    pub const fn is_sold(&self) -> bool {
        self.usd_month.is_some() || self.usd_year.is_some() || self.cny_month.is_some()
    }

    /// US cents for an interval, where the plan is sold by it.
    #[must_use]
    pub const fn usd(&self, interval: Interval) -> Option<u64> {
        match interval {
            Interval::Month => self.usd_month,
            Interval::Year => self.usd_year,
        }
    }
}

/// The id of a plan's product at Stripe: `tenantry_pro`.
#[must_use]
pub fn plan_product_id(plan: &str) -> String {
    format!("tenantry_{plan}")
}

/// The lookup key of a plan's price at Stripe: `pro_usd_month`.
#[must_use]
pub fn plan_price_key(plan: &str, interval: Interval) -> String {
    format!("{plan}_usd_{}", interval.name())
}

impl Plan {
    /// The monthly allowances.
    #[must_use]
    pub fn allowances(&self) -> Allowances {
        Allowances::from_fn(|resource| match resource {
            Resource::Messages => self.limits.messages,
            Resource::LlmTokens => self.limits.llm_tokens,
            Resource::Images => self.limits.images,
            Resource::ApiCalls => self.limits.api_calls,
        })
    }

    /// The request rate as the meter keeps it.
    #[must_use]
    pub fn rate(&self) -> Rate {
        let Limit::Of(per_minute) = self.limits.requests_per_minute else {
            return Rate { interval: 0, burst: 0 };
        };
        Rate::per_minute(per_minute, self.limits.burst.unwrap_or(per_minute))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Counted up with every change, so that an order can say what it was made from.
    #[serde(default = "first_version")]
    version: u32,
    /// Features beyond [`Feature::KNOWN`]. They are declared, so that a misspelled one is found.
    #[serde(default)]
    own_features: Vec<Feature>,
    plan: Vec<Plan>,
    #[serde(default)]
    package: Vec<Package>,
}

impl File {
    fn features(&self) -> impl Iterator<Item = &Feature> {
        Feature::KNOWN.iter().chain(&self.own_features)
    }

    fn check_own_features(&self) -> Result<(), PlansError> {
        for (place, own) in self.own_features.iter().enumerate() {
            if Feature::KNOWN.contains(own) || *own == Feature::ALL || self.own_features[..place].contains(own) {
                return Err(PlansError::OwnFeature(own.clone()));
            }
        }
        Ok(())
    }

    /// Puts the features that there are in the place of `all`, and refuses others.
    fn spell_out_features(&mut self) -> Result<(), PlansError> {
        let all: Vec<Feature> = self.features().cloned().collect();
        for plan in &mut self.plan {
            if let Some(unknown) =
                plan.features.iter().find(|feature| !all.contains(feature) && **feature != Feature::ALL)
            {
                return Err(PlansError::UnknownFeature { plan: plan.id.clone(), feature: unknown.clone() });
            }
            if plan.features.contains(&Feature::ALL) {
                plan.features.clone_from(&all);
            }
        }
        Ok(())
    }
}

const fn first_version() -> u32 {
    1
}

/// All plans, from the smallest to the largest, and the packages. New organizations start on the first plan. There is at
/// least one.
#[derive(Debug, Clone)]
pub struct Plans(Arc<File>);

/// A plans file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlansError {
    /// Not the TOML that is wanted; the text names line and column.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// Well-formed but wrong.
    #[error("plan `{plan}`: {why}")]
    Invalid {
        /// The plan's id.
        plan: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Well-formed but wrong.
    #[error("package `{package}`: {why}")]
    InvalidPackage {
        /// The package's id.
        package: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A plan includes what there is not.
    #[error("plan `{plan}`: there is no feature `{feature}`; those of your own stand in own_features")]
    UnknownFeature {
        /// The plan's id.
        plan: String,
        /// The feature.
        feature: Feature,
    },
    /// A feature of one's own that cannot be one.
    #[error("own_features: `{0}` stands twice, or is a word of ours")]
    OwnFeature(Feature),
    /// No plan at all.
    #[error("there must be at least one [[plan]]")]
    Empty,
}

impl Plan {
    fn check(&self) -> Result<(), &'static str> {
        if !is_word(&self.id) {
            return Err("id must be 1 to 32 lower-case letters, digits, _ or -");
        }
        if !is_name(&self.name) {
            return Err("name must be 1 to 100 characters without /, =, & and control characters");
        }
        if !matches!(self.limits.requests_per_minute, Limit::Unlimited | Limit::Of(1..=60_000)) {
            return Err("requests_per_minute must be 1 to 60000, or \"unlimited\"");
        }
        if !(1..=1_000).contains(&self.limits.in_flight) {
            return Err("in_flight must be 1 to 1000");
        }
        if self.limits.burst.is_some_and(|burst| !(1..=60_000).contains(&burst)) {
            return Err("burst must be 1 to 60000");
        }
        if !are_prices(&[self.price.usd_month, self.price.usd_year, self.price.cny_month]) {
            return Err("a price must be 1 to 100000000 cents or fen; leave it out where the plan is not sold");
        }
        if self.credits_month.is_some_and(|credits| credits > LARGEST_CREDITS) {
            return Err("credits_month must be at most 100000000000000000");
        }
        // Stripe's most: <https://docs.stripe.com/api/checkout/sessions/create>.
        if self.trial_days.is_some_and(|days| !(1..=730).contains(&days)) {
            return Err("trial_days must be 1 to 730; leave it out where there is no trial");
        }
        Ok(())
    }
}

impl Plans {
    /// The plans in `text` (the format of `infra/plans.toml`).
    ///
    /// # Errors
    /// [`PlansError`], which names the line, the plan or the package.
    pub fn parse(text: &str) -> Result<Self, PlansError> {
        const TWICE: &str = "this id stands twice";
        let mut file: File = toml::from_str(text)?;
        file.check_own_features()?;
        for (place, plan) in file.plan.iter().enumerate() {
            let twice = file.plan[..place].iter().any(|other| other.id == plan.id);
            let checked = plan.check().and(if twice { Err(TWICE) } else { Ok(()) });
            checked.map_err(|why| PlansError::Invalid { plan: plan.id.clone(), why })?;
        }
        file.spell_out_features()?;
        for (place, package) in file.package.iter().enumerate() {
            let twice = file.package[..place].iter().any(|other| other.id == package.id);
            let checked = package.check().and(if twice { Err(TWICE) } else { Ok(()) });
            checked.map_err(|why| PlansError::InvalidPackage { package: package.id.clone(), why })?;
        }
        if file.plan.is_empty() { Err(PlansError::Empty) } else { Ok(Self(Arc::new(file))) }
    }

    /// Every feature that there is.
    pub fn features(&self) -> impl Iterator<Item = &Feature> {
        self.0.features()
    }

    /// Whether there is such a feature.
    #[must_use]
    pub fn knows(&self, feature: &Feature) -> bool {
        self.features().any(|known| known == feature)
    }

    /// Which version of the catalogue this is.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// The packages of credits, in the order of the file.
    #[must_use]
    pub fn packages(&self) -> &[Package] {
        &self.0.package
    }

    /// The package called `id`, if it is sold.
    #[must_use]
    pub fn package(&self, id: &str) -> Option<&Package> {
        self.0.package.iter().find(|package| package.id == id)
    }

    /// The plan called `id`; the first plan when it is gone, so that a tenant is never without limits.
    #[must_use]
    pub fn get(&self, id: &str) -> &Plan {
        self.find(id).unwrap_or_else(|| self.first())
    }

    /// The plan called `id`, if there is one.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Plan> {
        self.0.plan.iter().find(|plan| plan.id == id)
    }

    /// The plan that new organizations get.
    #[must_use]
    pub fn first(&self) -> &Plan {
        &self.0.plan[0]
    }

    /// All of them, from the smallest to the largest.
    #[must_use]
    pub fn all(&self) -> &[Plan] {
        &self.0.plan
    }

    /// The larger of two plans; one that is gone is smaller than any.
    #[must_use]
    pub fn larger<'a>(&self, one: &'a str, other: &'a str) -> &'a str {
        let place = |id| self.0.plan.iter().position(|plan| plan.id == id);
        if place(other) > place(one) { other } else { one }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plans_are_those_of_the_design() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let free = plans.first();
        assert_eq!(free.id, "free");
        assert_eq!(free.limits.messages, Limit::Of(1_000));
        assert_eq!(free.rate(), Rate { interval: 6_000, burst: 54_000 });
        assert_eq!(plans.get("team").limits.messages, Limit::Unlimited);
        assert_eq!(plans.get("pro").price.usd_year, Some(19_000));
        assert_eq!(plans.get("gone").id, "free");
        assert_eq!(plan_price_key("pro", Interval::Year), "pro_usd_year");
        assert_eq!(plans.get("pro").price.usd(Interval::Month), Some(1_900));
        assert!(plans.version() >= 1 && plans.package("small").is_some() && plans.package("gone").is_none());
        for package in plans.packages() {
            assert!(package.price.usd.is_some() && package.price.cny.is_some(), "{} is sold everywhere", package.id);
        }
    }

    #[test]
    fn a_wrong_file_names_what_is_wrong() {
        let good = DEFAULT_PLANS;
        for (from, to, says) in [
            ("in_flight = 2", "in_flight = 0", "in_flight"),
            ("messages = 1_000", "messages = -1", "messages"),
            ("messages = 1_000", "messages = \"many\"", "unlimited"),
            ("messages = 1_000", "mesages = 1_000", "mesages"),
            ("id = \"pro\"", "id = \"free\"", "twice"),
            ("requests_per_minute = 10", "requests_per_minute = 0", "requests_per_minute"),
            ("usd_month = 1_900", "usd_month = 0", "`pro`: a price"),
            ("name = \"Pro\"", "name = \"Pro & more\"", "`pro`: name"),
            ("id = \"medium\"", "id = \"small\"", "`small`: this id stands twice"),
            ("expires_after_days = 365", "expires_after_days = 0", "expires_after_days"),
            ("usd = 1_000", "eur = 1_000", "eur"),
            ("\"voice\"", "\"voise\"", "`pro`: there is no feature `voise`"),
            ("\"voice\"", "\"Voice\"", "a feature must be"),
            ("version = 1", "own_features = [\"voice\"]", "own_features: `voice`"),
            ("version = 1", "own_features = [\"all\"]", "own_features: `all`"),
            ("version = 1", "own_features = [\"a\", \"a\"]", "own_features: `a` stands twice"),
        ] {
            let error = Plans::parse(&good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(matches!(Plans::parse("plan = []"), Err(PlansError::Empty)));
    }
}
