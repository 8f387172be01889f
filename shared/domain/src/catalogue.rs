//! The model catalogue: which models there are, whose they are, and what they cost.
//! The defaults stand in `infra/catalogue.toml`.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use crate::{features::Feature, usage::Tokens};

/// The default catalogue, compiled in.
pub const DEFAULT_CATALOGUE: &str = include_str!("../../../infra/catalogue.toml");

/// A company that serves models, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// Stable word, `openai`.
    pub id: String,
    /// Name for people; also `owned_by` in `/models`.
    pub name: String,
    /// Where its OpenAI-compatible API is, without a slash at the end.
    pub base_url: String,
    /// Environment variable that replaces `base_url`.
    pub base_url_env: String,
    /// Environment variable that holds the key.
    pub api_key_env: String,
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Chat completions.
    Chat,
    /// Embeddings.
    Embedding,
}

/// Which member of a chat request caps the completion. OpenAI's reasoning models know only the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapField {
    /// `max_tokens`, which every compatible vendor understands.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

/// A price per million tokens, in the unit that the field using it names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPrice {
    /// Per million prompt tokens that were not cached.
    pub input: u64,
    /// Per million prompt tokens read from the vendor's cache; like `input` when absent.
    pub cached_input: Option<u64>,
    /// Per million completion tokens.
    #[serde(default)]
    pub output: u64,
}

impl TokenPrice {
    /// The price of `tokens`, rounded up to a whole unit once, at the end.
    #[must_use]
    pub fn of(&self, tokens: &Tokens) -> u64 {
        let cached = tokens.cached.min(tokens.prompt);
        let sum = u128::from(tokens.prompt - cached) * u128::from(self.input)
            + u128::from(cached) * u128::from(self.cached_input.unwrap_or(self.input))
            + u128::from(tokens.completion) * u128::from(self.output);
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// The most that `tokens` can cost, whatever turns out to be cached.
    #[must_use]
    pub fn at_most(&self, tokens: &Tokens) -> u64 {
        let dearest = self.input.max(self.cached_input.unwrap_or(0));
        Self { input: dearest, cached_input: None, ..*self }.of(tokens)
    }
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name that clients use.
    pub id: String,
    /// Whose it is.
    pub vendor: String,
    /// The vendor's name for it; like `id` when absent.
    pub upstream: Option<String>,
    /// What it does.
    pub kind: ModelKind,
    /// Largest prompt, in tokens.
    pub context_tokens: u64,
    /// Largest completion, in tokens; 0 for embeddings.
    #[serde(default)]
    pub max_output_tokens: u64,
    /// Which member caps the completion.
    #[serde(default)]
    pub cap_field: CapField,
    /// What a plan must include for its tenants to call the model; nothing when absent.
    pub feature: Option<Feature>,
    /// The most tokens that one image of a prompt costs.
    #[serde(default = "image_tokens")]
    pub image_tokens: u64,
    /// Version of the price rule; raised with every change of the prices.
    #[serde(default = "first_version")]
    pub price_version: u32,
    /// What the tenant pays in micro-credits per million tokens, on top of the plan's allowances.
    #[serde(default)]
    pub price: TokenPrice,
    /// What the vendor charges the platform in micro-dollars per million tokens.
    pub cost: TokenPrice,
}

/// More than an image costs on nearly every model: OpenAI's newer ones take up to 3,800, Anthropic's up to
/// 4,800 at the highest resolution, Google's some 1,100 to 5,000.
const fn image_tokens() -> u64 {
    5_000
}

const fn first_version() -> u32 {
    1
}

impl Model {
    /// The vendor's name for it.
    #[must_use]
    pub fn upstream_name(&self) -> &str {
        self.upstream.as_deref().unwrap_or(&self.id)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vendor: Vec<Vendor>,
    model: Vec<Model>,
}

/// All vendors and models.
#[derive(Debug, Clone)]
pub struct Catalogue {
    vendors: Arc<BTreeMap<String, Vendor>>,
    models: Arc<BTreeMap<String, Arc<Model>>>,
}

/// A catalogue that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Not the TOML that is wanted; the text names line and column.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// Well-formed but wrong.
    #[error("{what} `{id}`: {why}")]
    Invalid {
        /// `vendor` or `model`.
        what: &'static str,
        /// Its id.
        id: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl Catalogue {
    /// The catalogue in `text` (the format of `infra/catalogue.toml`).
    ///
    /// # Errors
    /// [`CatalogueError`], which names the line, vendor or model.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let file: File = toml::from_str(text)?;
        let mut vendors = BTreeMap::new();
        for vendor in file.vendor {
            if vendors.contains_key(&vendor.id) {
                return Err(CatalogueError::Invalid { what: "vendor", id: vendor.id, why: "stands twice" });
            }
            vendors.insert(vendor.id.clone(), vendor);
        }
        let mut models = BTreeMap::new();
        for model in file.model {
            let why = if models.contains_key(&model.id) {
                "stands twice"
            } else if !vendors.contains_key(&model.vendor) {
                "names a vendor that is not in the catalogue"
            } else if model.id.is_empty() || model.id.len() > 64 || !model.id.chars().all(model_char) {
                // The name is part of a stored key, where # separates.
                "id must be 1 to 64 letters, digits or . _ - / :"
            } else if model.kind == ModelKind::Chat && model.max_output_tokens == 0 {
                "a chat model needs max_output_tokens, or nothing could be reserved"
            } else {
                models.insert(model.id.clone(), Arc::new(model));
                continue;
            };
            return Err(CatalogueError::Invalid { what: "model", id: model.id, why });
        }
        Ok(Self { vendors: Arc::new(vendors), models: Arc::new(models) })
    }

    /// The model called `id`.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.get(id)
    }

    /// Every model, by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// Every vendor, by id.
    pub fn vendors(&self) -> impl Iterator<Item = &Vendor> {
        self.vendors.values()
    }
}

fn model_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_catalogue_has_models_of_every_vendor_and_a_cost_for_each() {
        let catalogue = Catalogue::parse(DEFAULT_CATALOGUE).unwrap();
        for vendor in catalogue.vendors() {
            assert!(catalogue.models().any(|model| model.vendor == vendor.id), "{} has no model", vendor.id);
        }
        for model in catalogue.models().filter(|model| model.vendor != "sandbox") {
            assert!(model.cost.input > 0, "{} costs nothing", model.id);
        }
        // Where the line lies is a matter of taste; that it is one is not.
        for model in catalogue.models() {
            let advanced = (model.cost.output >= 8_000_000).then_some(Feature::ADVANCED_MODELS);
            assert_eq!(model.feature, advanced, "{}", model.id);
        }
        let mini = catalogue.model("gpt-4o-mini").unwrap();
        assert_eq!(mini.cost, TokenPrice { input: 150_000, cached_input: Some(75_000), output: 600_000 });
    }

    #[test]
    fn a_price_is_rounded_up_once_and_cached_tokens_are_a_part_of_the_prompt() {
        let price = TokenPrice { input: 1_000_000, cached_input: Some(100_000), output: 3 };
        let tokens = Tokens { prompt: 10, cached: 4, completion: 1, reasoning: 0 };
        // 6 × 1 + 4 × 0.1 + 0.000003
        assert_eq!(price.of(&tokens), 7);
        assert_eq!(price.at_most(&tokens), 11);
        let absurd = Tokens { prompt: 1, cached: u64::MAX, completion: 0, reasoning: 0 };
        assert_eq!(price.of(&absurd), 1);
    }

    #[test]
    fn a_wrong_catalogue_names_what_is_wrong() {
        let vendor = "[[vendor]]\nid='v'\nname='V'\nbase_url='https://v'\nbase_url_env='A'\napi_key_env='B'\n";
        let model =
            "[[model]]\nid='m'\nvendor='v'\nkind='chat'\ncontext_tokens=1\nmax_output_tokens=1\ncost={input=1}\n";
        assert!(Catalogue::parse(&format!("{vendor}{model}")).is_ok());
        for (text, says) in [
            (format!("{vendor}{model}{model}"), "twice"),
            (format!("{vendor}{}", model.replace("'v'", "'w'")), "vendor"),
            (format!("{vendor}{}", model.replace("'m'", "'m#'")), "id must"),
            (format!("{vendor}{}", model.replace("max_output_tokens=1\n", "")), "max_output_tokens"),
            (format!("{vendor}{}", model.replace("cost={input=1}\n", "")), "cost"),
        ] {
            let error = Catalogue::parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
