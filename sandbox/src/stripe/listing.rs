//! Lists, newest first, with cursors: <https://docs.stripe.com/api/pagination>.

use serde_json::Value;

use super::{
    error::{Answer, StripeError},
    object::{Kind, int, list, text},
    params::Params,
    state::State,
};

/// Which part of a list is asked for.
#[derive(Debug, Clone)]
pub(super) struct Page {
    limit: usize,
    starting_after: Option<String>,
    ending_before: Option<String>,
    /// Bounds of `created`, inclusive.
    created: (i64, i64),
}

impl Page {
    pub(super) fn take(p: &mut Params) -> Answer<Self> {
        let limit = p.int("limit")?.unwrap_or(10);
        if !(1..=100).contains(&limit) {
            return Err(StripeError::invalid("Invalid integer: limit must be between 1 and 100").param("limit"));
        }
        let created = if p.has("created") { range(p)? } else { (i64::MIN, i64::MAX) };
        Ok(Self {
            limit: usize::try_from(limit).unwrap_or(10),
            starting_after: p.some_text("starting_after")?,
            ending_before: p.some_text("ending_before")?,
            created,
        })
    }
}

/// `created=…` or `created[gte]=…`.
fn range(p: &mut Params) -> Answer<(i64, i64)> {
    if let Ok(Some(exact)) = p.clone().int("created") {
        p.without_effect(&["created"]);
        return Ok((exact, exact));
    }
    let Some(mut group) = p.group("created")? else { return Ok((i64::MIN, i64::MAX)) };
    let from = [group.int("gte")?, group.int("gt")?.map(|at| at.saturating_add(1))];
    let to = [group.int("lte")?, group.int("lt")?.map(|at| at.saturating_sub(1))];
    group.done()?;
    let from = from.into_iter().flatten().max().unwrap_or(i64::MIN);
    Ok((from, to.into_iter().flatten().min().unwrap_or(i64::MAX)))
}

/// The page of the objects that `is` holds for.
pub(super) fn page(s: &State, kind: Kind, page: &Page, url: &str, is: impl Fn(&Value) -> bool) -> Answer {
    let in_time = |object: &Value| (page.created.0..=page.created.1).contains(&int(object, "created"));
    let found: Vec<&Value> = s.all(kind).rev().filter(|object| in_time(object) && is(object)).collect();
    let position = |id: &str, param: &str| {
        s.referred(kind, id, param)?;
        Ok(found.iter().position(|object| text(object, "id") == id))
    };
    if let Some(before) = &page.ending_before {
        let end = position(before, "ending_before")?.unwrap_or(0);
        let start = end.saturating_sub(page.limit);
        let data = found[start..end].iter().map(|object| (*object).clone()).collect();
        return Ok(list(data, start > 0, url));
    }
    let start = match &page.starting_after {
        Some(after) => position(after, "starting_after")?.map_or(found.len(), |position| position + 1),
        None => 0,
    };
    let data: Vec<Value> = found.iter().skip(start).take(page.limit).map(|object| (*object).clone()).collect();
    let has_more = start + data.len() < found.len();
    Ok(list(data, has_more, url))
}
