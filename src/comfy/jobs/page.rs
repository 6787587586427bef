//! Chooses the prompts on a page of the list of jobs, and writes the answer.
//!
//! A page is chosen from *rows*, which have only what filters and sort orders need. For most
//! queries the ledger has that for ended prompts, and only the entries on the page are fetched.

use std::cmp::Ordering;

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::Status;
use super::query::{JobQuery, Order, SortBy};
use crate::routing::ids::PromptId;
use crate::routing::pending::End;

/// One prompt, with what lists are filtered and sorted by.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: PromptId,
    pub status: Status,
    /// `create_time`, in milliseconds since 1970; 0 if it is not known.
    pub created_ms: f64,
    /// 0 if it has not run, or its duration is unknown.
    pub duration_ms: f64,
    pub workflow_id: Option<Box<str>>,
}

impl Row {
    /// A row for a prompt that ended according to the ledger, submitted at `created_ms`; `None` if
    /// ComfyUI would no longer know it. It suffices for queries that read only the entries on the
    /// page.
    #[must_use]
    pub fn of_end(id: PromptId, end: End, created_ms: u64) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds has 41 bits")]
        let created_ms = created_ms as f64;
        let status = Status::of_end(end)?;
        Some(Self { id, status, created_ms, duration_ms: 0.0, workflow_id: None })
    }
}

/// The prompts from which pages are chosen. Each is in it once, with its latest state.
#[derive(Debug, Default)]
pub struct Rows(IndexMap<PromptId, Row>);

/// A page: its rows in order, and how many rows there would be without limit and offset.
#[derive(Debug, PartialEq)]
pub struct Page<'a> {
    pub rows: Vec<&'a Row>,
    pub total: usize,
}

impl Rows {
    /// Adds a prompt. Prompts that are equal in the requested order are listed in the order in
    /// which they were added. ComfyUI's order is: running, waiting, then ended ones, oldest first.
    ///
    /// A prompt may end after its queue was read and before the ledger is: the later state counts.
    pub fn push(&mut self, row: Row) {
        match self.0.entry(row.id.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(row);
            }
            Entry::Occupied(mut known) if known.get().status < row.status => {
                known.insert(row);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// The rows that a query asks for.
    #[must_use]
    pub fn page(&self, query: &JobQuery) -> Page<'_> {
        let workflow = query.workflow_id.as_deref();
        let mut rows: Vec<&Row> = self
            .0
            .values()
            .filter(|row| query.wants(row.status))
            .filter(|row| workflow.is_none() || workflow == row.workflow_id.as_deref())
            .collect();
        // Equal ones keep their order in both directions, as in Python.
        match query.order {
            Order::Ascending => rows.sort_by(|one, other| compare(query.sort_by, one, other)),
            Order::Descending => rows.sort_by(|one, other| compare(query.sort_by, other, one)),
        }
        let total = rows.len();
        let offset = usize::try_from(query.offset).unwrap_or(usize::MAX);
        let limit = query.limit.and_then(|limit| usize::try_from(limit).ok());
        let rows = rows.into_iter().skip(offset).take(limit.unwrap_or(usize::MAX)).collect();
        Page { rows, total }
    }
}

fn compare(by: SortBy, one: &Row, other: &Row) -> Ordering {
    match by {
        SortBy::Created => one.created_ms.total_cmp(&other.created_ms),
        SortBy::Duration => one.duration_ms.total_cmp(&other.duration_ms),
    }
}

/// The answer of `GET /api/jobs`: the objects for the page's rows that were found, in order.
#[must_use]
pub fn answer<'j>(
    query: &JobQuery,
    page: &Page<'_>,
    jobs: impl IntoIterator<Item = &'j str>,
) -> Vec<u8> {
    let mut out = b"{\"jobs\": [".to_vec();
    for (index, job) in jobs.into_iter().enumerate() {
        if 0 < index {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(job.as_bytes());
    }
    let limit = query.limit.map_or_else(|| "null".to_owned(), |limit| limit.to_string());
    // Counts rows and not objects, so that a missing entry on a page does not end the list.
    let listed = u64::try_from(page.rows.len()).unwrap_or(u64::MAX);
    let total = u64::try_from(page.total).unwrap_or(u64::MAX);
    let has_more = query.offset.saturating_add(listed) < total;
    let pagination = format!(
        "], \"pagination\": {{\"offset\": {}, \"limit\": {limit}, \"total\": {total}, \
         \"has_more\": {has_more}}}}}",
        query.offset
    );
    out.extend_from_slice(pagination.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::super::Interrupted;
    use super::*;

    fn row(id: &str, status: Status, created_ms: f64) -> Row {
        let id = PromptId::parse(id).unwrap();
        Row { id, status, created_ms, duration_ms: 0.0, workflow_id: None }
    }

    fn query(raw: &str) -> JobQuery {
        JobQuery::read(raw, Interrupted::Cancelled).unwrap()
    }

    fn ids<'a>(page: &Page<'a>) -> Vec<&'a str> {
        page.rows.iter().map(|row| row.id.as_str()).collect()
    }

    fn rows() -> Rows {
        let mut rows = Rows::default();
        rows.push(row("run", Status::InProgress, 40.0));
        rows.push(row("wait", Status::Pending, 50.0));
        rows.push(row("old", Status::Completed, 10.0));
        rows.push(Row { duration_ms: 7.0, ..row("bad", Status::Failed, 20.0) });
        rows.push(Row { workflow_id: Some("w".into()), ..row("cut", Status::Cancelled, 20.0) });
        rows
    }

    #[test]
    fn a_list_is_filtered_sorted_and_cut() {
        let rows = rows();
        let listed = |raw: &str| ids(&rows.page(&query(raw)));
        assert_eq!(listed(""), ["wait", "run", "bad", "cut", "old"]);
        assert_eq!(listed("sort_order=asc"), ["old", "bad", "cut", "run", "wait"]);
        assert_eq!(listed("sort_by=execution_duration&limit=1"), ["bad"]);
        assert_eq!(listed("status=pending,in_progress"), ["wait", "run"]);
        assert_eq!(listed("status=cancelled"), ["cut"]);
        assert_eq!(listed("workflow_id=w"), ["cut"]);
        assert_eq!(listed("limit=2&offset=1"), ["run", "bad"]);
        assert_eq!(listed("offset=9"), [""; 0]);
    }

    #[test]
    fn an_answer_says_where_its_page_is() {
        let rows = rows();
        let answered = |raw: &str| {
            let query = query(raw);
            let body = answer(&query, &rows.page(&query), ["{\"id\":  1}", "{}"]);
            let text = String::from_utf8(body).unwrap();
            assert!(text.starts_with(r#"{"jobs": [{"id":  1}, {}], "pagination": {"#), "{text}");
            serde_json::from_str::<Value>(&text).unwrap()["pagination"].clone()
        };
        assert_eq!(
            answered("limit=2&offset=1"),
            json!({ "offset": 1, "limit": 2, "total": 5, "has_more": true })
        );
        assert_eq!(
            answered("offset=3"),
            json!({ "offset": 3, "limit": null, "total": 5, "has_more": false })
        );
        let far = answered(&format!("offset={}", i64::MAX));
        assert_eq!(far["has_more"], false);
    }

    #[test]
    fn a_prompt_that_ends_between_two_looks_is_listed_once_as_ended() {
        let mut rows = Rows::default();
        for status in [Status::Pending, Status::Completed, Status::InProgress] {
            rows.push(row("p", status, 1.0));
        }
        let all = query("");
        let page = rows.page(&all);
        assert_eq!((page.total, page.rows[0].status), (1, Status::Completed));
    }

    #[test]
    fn a_row_is_made_of_what_the_ledger_knows() {
        let id = || PromptId::parse("p").unwrap();
        assert_eq!(Row::of_end(id(), End::Deleted, 5), None);
        let made = Row::of_end(id(), End::Interrupted, 1_795_406_283_940).unwrap();
        assert_eq!(made, row("p", Status::Cancelled, 1_795_406_283_940.0));
    }

    proptest! {
        #[test]
        fn pages_cover_the_list_exactly_once(
            made in vec((0..5_usize, 0..6_u8, 0..3_u8), 0..60),
            size in 1..9_usize,
            by in "created_at|execution_duration",
            order in "asc|desc",
            status in "|pending|completed,failed|failed,cancelled,in_progress",
        ) {
            let mut rows = Rows::default();
            for (at, (status, created, duration)) in made.iter().enumerate() {
                let of = row(&at.to_string(), Status::ALL[*status], f64::from(*created));
                rows.push(Row { duration_ms: f64::from(*duration), ..of });
            }
            let asked = format!("sort_by={by}&sort_order={order}&status={status}");
            let mut seen = BTreeMap::new();
            let mut listed = Vec::new();
            for offset in (0..=made.len()).step_by(size) {
                let query = query(&format!("{asked}&limit={size}&offset={offset}"));
                let page = rows.page(&query);
                let body: Value = serde_json::from_slice(&answer(&query, &page, [])).unwrap();
                listed.extend(ids(&page));
                prop_assert_eq!(body["pagination"]["has_more"] == true, listed.len() < page.total);
                for row in page.rows {
                    prop_assert!(query.wants(row.status));
                    *seen.entry(row.id.clone()).or_insert(0) += 1;
                }
            }
            let whole = query(&asked);
            let whole = rows.page(&whole);
            prop_assert_eq!(&listed, &ids(&whole));
            prop_assert!(seen.values().all(|times| *times == 1));
            prop_assert_eq!(seen.len(), whole.total);
        }
    }
}
