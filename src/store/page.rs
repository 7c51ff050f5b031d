//! Pages of lists: from a cursor to a condition, an order and a limit, and back to the order of the list.

use super::{Page, Paged};

/// How to ask the database for a page of a list that is ordered by one unique column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk<T> {
    /// Only what is greater than this.
    pub above: Option<T>,
    /// Only what is less than this.
    pub below: Option<T>,
    /// The order to ask in.
    pub descending: bool,
    /// Rows to ask for: one more than the page takes, to know whether there are more.
    pub limit: i64,
    /// Whether the rows come back to front.
    reverse: bool,
    size: usize,
}

impl<T> Walk<T> {
    /// The walk to `page`, its cursors given as values of the column.
    pub(super) fn new(page: &Page, after: Option<T>, before: Option<T>) -> Self {
        // Without `after`, the closest entries before `before` are found by walking away from it.
        let reverse = before.is_some() && after.is_none();
        let (above, below) = if page.ascending { (after, before) } else { (before, after) };
        Self {
            above,
            below,
            descending: page.ascending == reverse,
            limit: i64::from(page.limit) + 1,
            reverse,
            size: usize::try_from(page.limit).unwrap_or(usize::MAX),
        }
    }

    /// The page out of the rows that the database gave, read by `read`.
    pub(super) fn finish<R, O, E>(&self, mut rows: Vec<R>, read: impl Fn(R) -> Result<O, E>) -> Result<Paged<O>, E> {
        let has_more = rows.len() > self.size;
        rows.truncate(self.size);
        if self.reverse {
            rows.reverse();
        }
        Ok(Paged { data: rows.into_iter().map(read).collect::<Result<_, E>>()?, has_more })
    }
}

/// Adds a walk to a boxed query.
macro_rules! walk {
    ($query:expr, $walk:expr, $column:expr) => {{
        let mut query = $query;
        if let Some(above) = $walk.above.clone() {
            query = query.filter($column.gt(above));
        }
        if let Some(below) = $walk.below.clone() {
            query = query.filter($column.lt(below));
        }
        let query = if $walk.descending { query.order($column.desc()) } else { query.order($column.asc()) };
        query.limit($walk.limit)
    }};
}
pub(super) use walk;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(page: &Page) -> Paged<i64> {
        let cursor = |id: &Option<String>| id.as_ref().map(|id| id.parse::<i64>().unwrap());
        let walk = Walk::new(page, cursor(&page.after), cursor(&page.before));
        let inside = |n: &i64| walk.above.is_none_or(|above| *n > above) && walk.below.is_none_or(|below| *n < below);
        let mut rows: Vec<i64> = (1..=9).filter(inside).collect();
        if walk.descending {
            rows.reverse();
        }
        rows.truncate(usize::try_from(walk.limit).unwrap());
        walk.finish(rows, Ok::<_, ()>).unwrap()
    }

    #[test]
    fn pages_are_in_list_order_in_both_directions() {
        let page = |after: Option<i64>, before: Option<i64>, ascending| {
            let id = |n: Option<i64>| n.map(|n| n.to_string());
            let page = ask(&Page { limit: 3, after: id(after), before: id(before), ascending });
            (page.data, page.has_more)
        };
        assert_eq!(page(None, None, false), (vec![9, 8, 7], true));
        assert_eq!(page(Some(7), None, false), (vec![6, 5, 4], true));
        assert_eq!(page(Some(4), None, false), (vec![3, 2, 1], false));
        assert_eq!(page(None, Some(4), false), (vec![7, 6, 5], true));
        assert_eq!(page(None, Some(6), false), (vec![9, 8, 7], false));
        assert_eq!(page(None, None, true), (vec![1, 2, 3], true));
        assert_eq!(page(Some(7), None, true), (vec![8, 9], false));
        assert_eq!(page(None, Some(6), true), (vec![3, 4, 5], true));
        assert_eq!(page(Some(2), Some(5), true), (vec![3, 4], false));
        assert_eq!(page(Some(9), None, true), (vec![], false));
    }
}
