//! Features, which a plan includes or not, and things of which it includes a number; and which plan has what another
//! lacks.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize};

use crate::plans::{Limit, Plan, PlanPrice, Plans, is_word};

/// Something that a plan includes or not: a word of [`Feature::KNOWN`], or one that the plans file declares in
/// `own_features`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Feature(Cow<'static, str>);

impl Feature {
    /// Chat with models that ask for no other feature.
    pub const BASIC_CHAT: Self = Self::known("basic_chat");
    /// Looking at what others have published.
    pub const COMMUNITY_BROWSE: Self = Self::known("community_browse");
    /// Publishing characters.
    pub const CHARACTER_SHARE: Self = Self::known("character_share");
    /// The expensive models: those whose `feature` in the catalogue is this.
    pub const ADVANCED_MODELS: Self = Self::known("advanced_models");
    /// Making images.
    pub const IMAGE: Self = Self::known("image");
    /// Speech, both ways.
    pub const VOICE: Self = Self::known("voice");
    /// Evaluations of usage.
    pub const ANALYTICS: Self = Self::known("analytics");
    /// The tenant's own name and logo.
    pub const BRANDING: Self = Self::known("branding");

    /// Those that every deployment knows.
    pub const KNOWN: &'static [Self] = &[
        Self::BASIC_CHAT,
        Self::COMMUNITY_BROWSE,
        Self::CHARACTER_SHARE,
        Self::ADVANCED_MODELS,
        Self::IMAGE,
        Self::VOICE,
        Self::ANALYTICS,
        Self::BRANDING,
    ];

    /// The word by which a plan includes all features, those of the future too.
    pub(crate) const ALL: Self = Self::known("all");

    const fn known(word: &'static str) -> Self {
        Self(Cow::Borrowed(word))
    }

    /// The feature called `word`, if that is a word at all. Whether there is such a feature, [`Plans::knows`] says.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        is_word(word).then(|| Self(Cow::Owned(word.to_owned())))
    }

    /// The word in files and answers.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::parse(&word)
            .ok_or_else(|| serde::de::Error::custom("a feature must be 1 to 32 lower-case letters, digits, _ or -"))
    }
}

/// Things of which a plan includes a number at a time. What is used up by the month is a
/// [`Resource`](crate::Resource).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Assistants of kind bot.
    Bots,
    /// Members of the organization.
    Members,
    /// API keys.
    Keys,
}

impl Counted {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bots, Self::Members, Self::Keys];

    /// How many of them `plan` includes.
    #[must_use]
    pub const fn limit(self, plan: &Plan) -> Limit {
        match self {
            Self::Bots => plan.limits.bots,
            Self::Members => plan.limits.members,
            Self::Keys => plan.limits.keys,
        }
    }

    /// What people call them.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Bots => "bots",
            Self::Members => "members",
            Self::Keys => "API keys",
        }
    }
}

/// What a tenant's plan does not include.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// A feature.
    Feature(Feature),
    /// More of something than this many.
    More(Counted, u64),
}

/// A plan as it is offered to somebody whose own does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The plan's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it costs.
    pub price: PlanPrice,
}

/// Why a plan does not do, and which does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// What is asked for.
    pub lacking: Lacking,
    /// Id of the tenant's plan.
    pub plan: String,
    /// The smallest plan that does, if one of those that can be had does.
    pub offer: Option<Offer>,
    text: String,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Plan {
    /// Whether it includes `feature`.
    #[must_use]
    pub fn has(&self, feature: &Feature) -> bool {
        self.features.contains(feature)
    }

    fn offer(&self) -> Offer {
        Offer { id: self.id.clone(), name: self.name.clone(), price: self.price.clone() }
    }
}

impl Plans {
    /// Those that can be had without asking the operator: the one that everybody begins with, and those with a price.
    fn on_offer(&self) -> impl Iterator<Item = &Plan> {
        self.all().iter().enumerate().filter(|(place, plan)| *place == 0 || plan.price.is_sold()).map(|(_, plan)| plan)
    }

    /// The smallest plan on offer that includes `feature`.
    #[must_use]
    pub fn cheapest_with(&self, feature: &Feature) -> Option<&Plan> {
        self.on_offer().find(|plan| plan.has(feature))
    }

    /// The smallest plan on offer that includes more than `number` of `counted`.
    #[must_use]
    pub fn cheapest_with_more(&self, counted: Counted, number: u64) -> Option<&Plan> {
        self.on_offer().find(|plan| match counted.limit(plan) {
            Limit::Of(limit) => limit > number,
            Limit::Unlimited => true,
        })
    }

    /// What the plan called `id` lacks when `feature` is asked for; `None` when it includes it.
    #[must_use]
    pub fn without(&self, id: &str, feature: &Feature) -> Option<Shortfall> {
        let plan = self.get(id);
        if plan.has(feature) {
            return None;
        }
        let offer = self.cheapest_with(feature);
        let remedy = offer.map_or_else(
            || "No plan on offer does.".to_owned(),
            |offer| format!("The smallest plan that does is {}.", offer.name),
        );
        Some(Shortfall {
            text: format!("The plan {} does not include `{feature}`. {remedy}", plan.name),
            lacking: Lacking::Feature(feature.clone()),
            plan: plan.id.clone(),
            offer: offer.map(Plan::offer),
        })
    }

    /// What the plan called `id` lacks when it is asked for one more of `counted` than it includes; `None` when there is
    /// no limit.
    #[must_use]
    pub fn no_more(&self, id: &str, counted: Counted) -> Option<Shortfall> {
        let plan = self.get(id);
        let Limit::Of(limit) = counted.limit(plan) else { return None };
        let offer = self.cheapest_with_more(counted, limit);
        let remedy = offer.map_or_else(
            || "No plan on offer includes more.".to_owned(),
            |offer| match counted.limit(offer) {
                Limit::Of(more) => format!("Make room, or change to {}, which includes {more}.", offer.name),
                Limit::Unlimited => format!("Make room, or change to {}, which includes any number.", offer.name),
            },
        );
        let things = counted.in_words();
        Some(Shortfall {
            text: format!("The plan {} includes {limit} {things}, and there are as many. {remedy}", plan.name),
            lacking: Lacking::More(counted, limit),
            plan: plan.id.clone(),
            offer: offer.map(Plan::offer),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plans::DEFAULT_PLANS;

    fn plans(text: &str) -> Plans {
        Plans::parse(text).unwrap()
    }

    fn plan(id: &str, rest: &str) -> String {
        format!(
            "[[plan]]\nid = '{id}'\nname = '{id}!'\n{rest}\n[plan.limits]\nmessages = 1\nllm_tokens = 1\nimages = 1\n\
             api_calls = 1\nrequests_per_minute = 1\nin_flight = 1\nbots = 1\nmembers = 1\nkeys = 1\n"
        )
    }

    fn offered(shortfall: Option<Shortfall>) -> Option<String> {
        shortfall.unwrap().offer.map(|offer| offer.id)
    }

    #[test]
    fn the_default_plans_include_what_the_design_says() {
        let plans = plans(DEFAULT_PLANS);
        for feature in Feature::KNOWN {
            let basic = [Feature::BASIC_CHAT, Feature::COMMUNITY_BROWSE].contains(feature);
            assert_eq!(plans.get("free").has(feature), basic, "{feature}");
            assert!(plans.get("pro").has(feature) && plans.get("team").has(feature), "{feature}");
            assert_eq!(plans.cheapest_with(feature).unwrap().id, if basic { "free" } else { "pro" });
        }
        let shortfall = plans.without("free", &Feature::VOICE).unwrap();
        assert_eq!(
            shortfall.to_string(),
            "The plan Free does not include `voice`. The smallest plan that does is Pro."
        );
        assert_eq!(shortfall.offer.unwrap().price.usd_month, Some(1_900));
        assert_eq!(plans.without("pro", &Feature::VOICE), None);
    }

    #[test]
    fn what_nobody_declared_is_included_nowhere() {
        let plans = plans(DEFAULT_PLANS);
        for word in ["voise", "all", "beta"] {
            let feature = Feature::parse(word).unwrap();
            assert!(!plans.knows(&feature));
            for plan in plans.all() {
                assert_eq!(offered(plans.without(&plan.id, &feature)), None, "{word} of {}", plan.id);
            }
        }
        for word in ["", "Voice", "a b", "a`b", &"x".repeat(33)] {
            assert_eq!(Feature::parse(word), None, "{word}");
        }
    }

    #[test]
    fn a_plan_that_is_not_sold_is_not_offered_unless_everybody_begins_with_it() {
        let price = "price = { usd_month = 1 }";
        let text = [
            "own_features = ['beta']".to_owned(),
            plan("first", "features = ['voice']"),
            plan("friends", "features = ['beta', 'image']"),
            plan("one", &format!("features = ['image']\n{price}")),
            plan("two", &format!("features = ['image', 'branding']\n{price}")),
            plan("rest", "features = ['all']"),
        ];
        let plans = plans(&text.join("\n"));
        let cheapest = |feature| plans.cheapest_with(&feature).map(|plan| plan.id.as_str());
        assert_eq!(cheapest(Feature::VOICE), Some("first"));
        assert_eq!(cheapest(Feature::IMAGE), Some("one"));
        assert_eq!(cheapest(Feature::BRANDING), Some("two"));
        let beta = Feature::parse("beta").unwrap();
        assert_eq!(cheapest(beta.clone()), None, "the operator gives it by hand");
        assert!(plans.get("friends").has(&beta) && plans.get("rest").has(&beta));
        assert_eq!(plans.without("gone", &Feature::VOICE), None, "who has no plan any more has the first");
        assert!(plans.without("one", &beta).unwrap().to_string().ends_with("No plan on offer does."));
        assert_eq!(plans.features().count(), 9);
    }

    #[test]
    fn more_is_offered_by_the_next_plan_that_has_more() {
        let plans = plans(DEFAULT_PLANS);
        assert_eq!(offered(plans.no_more("free", Counted::Keys)).as_deref(), Some("pro"));
        assert_eq!(offered(plans.no_more("pro", Counted::Members)).as_deref(), Some("team"));
        for counted in Counted::ALL {
            assert_eq!(plans.no_more("team", counted), None);
        }
        let text = plans.no_more("free", Counted::Keys).unwrap().to_string();
        let says =
            "The plan Free includes 2 API keys, and there are as many. Make room, or change to Pro, which includes 20.";
        assert_eq!(text, says);
        assert!(plans.no_more("pro", Counted::Bots).unwrap().to_string().ends_with("Team, which includes any number."));
        let alone = Plans::parse(&plan("only", "")).unwrap();
        assert_eq!(offered(alone.no_more("only", Counted::Members)), None);
    }
}
