//! The form of lists.

use serde::Serialize;

use crate::store::Paged;

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
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
#[derive(Debug, Serialize)]
pub(super) struct Whole<T> {
    /// All of it.
    pub(super) data: T,
}
