//! The query of a list of jobs, and ComfyUI's own error texts for it.

use std::fmt;

use serde_json::json;

use super::{Interrupted, Status};
use crate::comfy::number::integer;
use crate::comfy::query::parameter;

/// The query of `GET /api/jobs`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JobQuery {
    /// `None` for all.
    statuses: Option<Vec<Status>>,
    pub workflow_id: Option<String>,
    pub sort_by: SortBy,
    pub order: Order,
    /// `None` for no limit; never 0.
    pub limit: Option<u64>,
    pub offset: u64,
    pub interrupted: Interrupted,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SortBy {
    #[default]
    Created,
    Duration,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    Ascending,
    #[default]
    Descending,
}

/// Which entries must be read to know which prompts are on the page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reads {
    /// Only those on the page: the ledger knows enough about the others.
    Page,
    /// All: the list is sorted or filtered by fields that only entries have.
    All,
}

/// Errors that ComfyUI answers with 400.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadJobQuery {
    #[error("Invalid status value(s): {}. Valid values: {}", .0.join(", "), Names)]
    Status(Vec<String>),
    #[error("sort_by must be 'created_at' or 'execution_duration'")]
    SortBy,
    #[error("sort_order must be 'asc' or 'desc'")]
    Order,
    #[error("limit must be an integer")]
    LimitNotAnInteger,
    #[error("limit must be a positive integer")]
    LimitNotPositive,
    #[error("offset must be an integer")]
    Offset,
}

impl BadJobQuery {
    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> String {
        json!({ "error": self.to_string() }).to_string()
    }
}

/// The names of all statuses.
struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Status::ALL.map(Status::name).join(", "))
    }
}

impl JobQuery {
    /// Reads a query. A client whose query contains `cancelled` knows this status; for all others,
    /// an interrupted prompt has the status that `otherwise` says.
    ///
    /// # Errors
    /// The first error that ComfyUI would report.
    pub fn read(raw_query: &str, otherwise: Interrupted) -> Result<Self, BadJobQuery> {
        let statuses = statuses(parameter(raw_query, "status").as_deref())?;
        let lower = |name| parameter(raw_query, name).map(|text| text.to_lowercase());
        let sort_by = match lower("sort_by").as_deref() {
            None | Some("created_at") => SortBy::Created,
            Some("execution_duration") => SortBy::Duration,
            Some(_) => return Err(BadJobQuery::SortBy),
        };
        let order = match lower("sort_order").as_deref() {
            None | Some("desc") => Order::Descending,
            Some("asc") => Order::Ascending,
            Some(_) => return Err(BadJobQuery::Order),
        };
        let knows = statuses.as_ref().is_some_and(|them| them.contains(&Status::Cancelled));
        Ok(Self {
            statuses,
            workflow_id: parameter(raw_query, "workflow_id").filter(|id| !id.is_empty()),
            sort_by,
            order,
            limit: limit(parameter(raw_query, "limit").as_deref())?,
            offset: offset(parameter(raw_query, "offset").as_deref())?,
            interrupted: if knows { Interrupted::Cancelled } else { otherwise },
        })
    }

    /// True if the query asks for prompts with this status.
    #[must_use]
    pub fn wants(&self, status: Status) -> bool {
        let told = self.interrupted.told(status);
        self.statuses.as_ref().is_none_or(|wanted| wanted.contains(&told))
    }

    /// True if the query asks for prompts that have not ended: queues are needed.
    #[must_use]
    pub fn wants_queued(&self) -> bool {
        self.wants(Status::InProgress) || self.wants(Status::Pending)
    }

    /// True if the query asks for prompts that have ended.
    #[must_use]
    pub fn wants_ended(&self) -> bool {
        Status::ALL.into_iter().any(|status| status.is_ended() && self.wants(status))
    }

    #[must_use]
    pub fn reads(&self) -> Reads {
        match (&self.workflow_id, self.sort_by) {
            (None, SortBy::Created) => Reads::Page,
            (Some(_), SortBy::Created) | (_, SortBy::Duration) => Reads::All,
        }
    }
}

fn statuses(text: Option<&str>) -> Result<Option<Vec<Status>>, BadJobQuery> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for name in text.split(',').map(|name| name.trim().to_lowercase()) {
        match Status::named(&name) {
            Some(status) if known.contains(&status) => {}
            Some(status) => known.push(status),
            None if name.is_empty() => {}
            None => unknown.push(name),
        }
    }
    // A list of nothing but commas names no status, and matches no job.
    if unknown.is_empty() { Ok(Some(known)) } else { Err(BadJobQuery::Status(unknown)) }
}

fn limit(text: Option<&str>) -> Result<Option<u64>, BadJobQuery> {
    let Some(text) = text else { return Ok(None) };
    let limit = integer(text).ok_or(BadJobQuery::LimitNotAnInteger)?;
    match u64::try_from(limit) {
        Ok(0) | Err(_) => Err(BadJobQuery::LimitNotPositive),
        Ok(limit) => Ok(Some(limit)),
    }
}

/// A negative offset counts as 0.
fn offset(text: Option<&str>) -> Result<u64, BadJobQuery> {
    let Some(text) = text else { return Ok(0) };
    let offset = integer(text).ok_or(BadJobQuery::Offset)?;
    Ok(u64::try_from(offset).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn read(raw_query: &str) -> Result<JobQuery, BadJobQuery> {
        JobQuery::read(raw_query, Interrupted::Failed)
    }

    #[track_caller]
    fn refused(raw_query: &str, message: &str) {
        let body = read(raw_query).unwrap_err().body();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, json!({ "error": message }), "{raw_query}");
    }

    #[test]
    fn a_query_is_read_as_comfyui_reads_it() {
        let all = read("").unwrap();
        assert!(Status::ALL.into_iter().all(|status| all.wants(status)));
        assert_eq!((all.limit, all.offset, all.reads()), (None, 0, Reads::Page));
        assert_eq!((all.sort_by, all.order), (SortBy::Created, Order::Descending));
        let page = read(
            "status=%20In_Progress,,pending&limit=+200&offset=-3&sort_order=ASC\
             &sort_by=Execution_Duration&workflow_id=w",
        )
        .unwrap();
        assert!(page.wants_queued() && !page.wants_ended());
        assert_eq!((page.limit, page.offset, page.reads()), (Some(200), 0, Reads::All));
        assert_eq!((page.sort_by, page.order), (SortBy::Duration, Order::Ascending));
        assert_eq!(read("status=&workflow_id=").unwrap(), all);
        let none = read("status=,").unwrap();
        assert!(!none.wants_queued() && !none.wants_ended());
    }

    #[test]
    fn what_is_wrong_is_said_in_comfyuis_words_and_order() {
        refused(
            "status=done,%20Lost&sort_by=x",
            "Invalid status value(s): done, lost. Valid values: pending, in_progress, completed, \
             failed, cancelled",
        );
        refused("sort_by=&sort_order=x", "sort_by must be 'created_at' or 'execution_duration'");
        refused("sort_order=up&limit=x", "sort_order must be 'asc' or 'desc'");
        refused("limit=x&offset=x", "limit must be an integer");
        refused("limit=", "limit must be an integer");
        refused("limit=0", "limit must be a positive integer");
        refused("limit=-5", "limit must be a positive integer");
        refused("limit=5&offset=1.5", "offset must be an integer");
    }

    #[test]
    fn an_interrupted_prompt_is_cancelled_to_who_knows_the_word() {
        let newer = read("status=completed,failed,cancelled").unwrap();
        assert!(newer.wants(Status::Cancelled));
        assert_eq!(newer.interrupted, Interrupted::Cancelled);
        let older = read("status=completed,failed").unwrap();
        assert!(older.wants(Status::Cancelled), "it is failed there");
        let newest = JobQuery::read("status=failed", Interrupted::Cancelled).unwrap();
        assert!(!newest.wants(Status::Cancelled) && newest.wants(Status::Failed));
        assert!(!read("status=cancelled").unwrap().wants(Status::Failed));
    }

    proptest! {
        #[test]
        fn no_query_breaks_it(query in any::<String>(), limit in any::<String>()) {
            let _any_answer = read(&query);
            let _any_answer = read(&format!("limit={limit}&offset={query}&status={query}"));
        }

        #[test]
        fn any_positive_limit_and_any_offset_are_taken(limit in 1..i64::MAX, offset: i64) {
            let query = read(&format!("limit={limit}&offset={offset}")).unwrap();
            prop_assert_eq!(query.limit, u64::try_from(limit).ok());
            prop_assert_eq!(query.offset, u64::try_from(offset.max(0)).unwrap());
        }
    }
}
