//! The form of lists.

use schemars::JsonSchema;
use serde::Serialize;

use crate::store::Paged;

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(super) struct List<T> {
    /// The entries, in the order that was asked for.
    data: Vec<T>,
    /// The cursor of the first entry.
    first_id: Option<String>,
    /// The cursor of the last entry.
    last_id: Option<String>,
    /// True when there are more in the direction that was asked for.
    has_more: bool,
}

impl<T> List<T> {
    /// A page with the ids of its first and last entry, which are cursors.
    pub(super) fn of(page: Paged<T>, id: impl Fn(&T) -> String) -> Self {
        Self {
            first_id: page.data.first().map(&id),
            last_id: page.data.last().map(&id),
            has_more: page.has_more,
            data: page.data,
        }
    }
}

/// A list that is always whole.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct Whole<T> {
    /// All of it.
    pub(super) data: T,
}
