//! Everything the double knows, as values. Whoever changes an object says which event tells of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    checkout::Order,
    error::{Answer, StripeError},
    events::{Cause, Queued},
    idempotency::Kept,
    object::{Kind, overlay, previous},
    pending::Pending,
    settings::{Card, Fault, Settings},
};

/// The double's memory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Seconds since the epoch, as the double sees them. Never goes back.
    pub(super) now: i64,
    ids: u64,
    tables: BTreeMap<Kind, Table>,
    /// How the card behind a payment method behaves.
    pub(super) cards: BTreeMap<String, Card>,
    /// What a checkout session was ordered with.
    pub(super) orders: BTreeMap<String, Order>,
    /// Changes of subscriptions that wait for their payment, by subscription.
    pub(super) pending: BTreeMap<String, Pending>,
    /// Trials whose end was announced.
    pub(super) announced: BTreeSet<String>,
    /// Answers by idempotency key.
    pub(super) kept: BTreeMap<String, Kept>,
    /// Deliveries that have not succeeded yet, in the order of their events.
    pub(super) queue: Vec<Queued>,
    /// Whether deliveries wait for somebody to let them go.
    pub(super) held: bool,
    /// The request that is being served; `None` for what happens by itself.
    #[serde(skip)]
    pub(super) cause: Cause,
    /// What the next calls suffer.
    #[serde(skip)]
    pub(super) faults: VecDeque<Fault>,
    /// Writes below this path are done, and nobody hears of it.
    #[serde(skip)]
    pub(super) losing: Option<String>,
    /// Calls below this path are not allowed to the key.
    #[serde(skip)]
    pub(super) denied: Option<String>,
    /// Of the double that holds this.
    #[serde(skip)]
    pub(super) settings: Settings,
}

/// The objects of a kind, in the order in which they were made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Table {
    order: Vec<String>,
    by_id: BTreeMap<String, Value>,
}

impl State {
    /// A new id: a counter, so that the same calls make the same ids.
    pub(super) fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}{}{:08}", self.settings.id_space, self.ids)
    }

    /// How many ids were given out: nothing happens without an event, which takes one.
    pub(super) const fn given_out(&self) -> u64 {
        self.ids
    }

    pub(super) fn new_id(&mut self, kind: Kind) -> String {
        self.id(kind.prefix())
    }

    pub(super) fn get(&self, kind: Kind, id: &str) -> Option<&Value> {
        self.tables.get(&kind)?.by_id.get(id)
    }

    /// A copy of what the path names.
    pub(super) fn named(&self, kind: Kind, id: &str) -> Answer {
        self.get(kind, id).cloned().ok_or_else(|| StripeError::not_found(kind, id))
    }

    /// A copy of what a parameter names.
    pub(super) fn referred(&self, kind: Kind, id: &str, param: &str) -> Answer {
        self.get(kind, id).cloned().ok_or_else(|| StripeError::no_such(kind, id, param))
    }

    /// Whatever has this id.
    pub(super) fn any(&self, id: &str) -> Option<&Value> {
        self.tables.values().find_map(|table| table.by_id.get(id))
    }

    /// Oldest first.
    pub(super) fn all(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &Value> {
        self.tables.get(&kind).into_iter().flat_map(|table| table.order.iter().filter_map(|id| table.by_id.get(id)))
    }

    /// Ids of the objects that `is` holds for, oldest first.
    pub(super) fn ids(&self, kind: Kind, is: impl Fn(&Value) -> bool) -> Vec<String> {
        self.all(kind)
            .filter(|object| is(object))
            .filter_map(|object| object["id"].as_str().map(str::to_owned))
            .collect()
    }

    /// Keeps a new object, or replaces one.
    pub(super) fn put(&mut self, kind: Kind, object: Value) {
        let id = super::object::text(&object, "id").to_owned();
        let table = self.tables.entry(kind).or_default();
        if table.by_id.insert(id.clone(), object).is_none() {
            table.order.push(id);
        }
    }

    /// Keeps a new object and tells of it.
    pub(super) fn create(&mut self, kind: Kind, object: Value, event: &str) {
        self.put(kind, object.clone());
        self.emit(event, object, None);
    }

    /// Writes members of an object without telling anybody.
    pub(super) fn set(&mut self, kind: Kind, id: &str, changes: Value) {
        if let Some(object) = self.tables.get_mut(&kind).and_then(|table| table.by_id.get_mut(id)) {
            overlay(object, changes);
        }
    }

    /// Writes members of an object and tells of it. An `….updated` that changes nothing is not told, and tells what was
    /// there before.
    pub(super) fn change(&mut self, kind: Kind, id: &str, event: &str, changes: Value) {
        let Some(before) = self.get(kind, id).cloned() else { return };
        self.set(kind, id, changes);
        let Some(after) = self.get(kind, id).cloned() else { return };
        let previous = event.ends_with(".updated").then(|| previous(&before, &after));
        if previous.as_ref().is_some_and(serde_json::Map::is_empty) {
            return;
        }
        self.emit(event, after, previous);
    }

    /// Tells of an object as it is.
    pub(super) fn tell(&mut self, kind: Kind, id: &str, event: &str) {
        if let Some(object) = self.get(kind, id).cloned() {
            self.emit(event, object, None);
        }
    }
}
