//! Lists of assets and of their tags: filters, order, pages
//! (`app/assets/database/queries/asset_reference.py`, `tags.py`).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use http::Response;
use serde_json::{Map, Value, json};

use super::super::body::SimBody;
use super::super::http::json_answer;
use super::db::{Database, Reference};
use super::item::{item, refused};
use crate::comfy::assets::cursor::Cursor;
use crate::comfy::assets::query::{Order, Sort};
use crate::comfy::query::parameters;

/// `MAX_TAG_FILTER_TAGS`.
const TAGS_MAX: usize = 100;

type Refused = Box<Response<SimBody>>;

/// The filters of a list.
struct Filter {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
    name_contains: Option<String>,
    metadata: Map<String, Value>,
}

/// An error in pydantic's format.
fn invalid(kind: &str, field: &str, message: &str, input: &str) -> Refused {
    let error = json!({ "type": kind, "loc": [field], "msg": message, "input": input });
    let error = json!({
        "code": "INVALID_QUERY", "message": "Validation failed.", "details": { "errors": [error] },
    });
    Box::new(json_answer(400, &json!({ "error": error })))
}

/// The value of a parameter that may be given only once.
fn one(query: &str, field: &str) -> Result<Option<String>, Refused> {
    let mut values = parameters(query, field);
    if 1 < values.len() {
        return Err(invalid("string_type", field, "Input should be a valid string", ""));
    }
    Ok(values.pop())
}

fn number(
    query: &str,
    field: &str,
    (min, max): (u64, u64),
    default: u64,
) -> Result<usize, Refused> {
    let Some(text) = one(query, field)? else {
        return Ok(usize::try_from(default).unwrap_or(0));
    };
    let parsed = text.trim().parse::<i64>().map_err(|_| {
        let message = "Input should be a valid integer, unable to parse string as an integer";
        invalid("int_parsing", field, message, &text)
    })?;
    match u64::try_from(parsed) {
        Ok(value) if max < value => {
            let message = format!("Input should be less than or equal to {max}");
            Err(invalid("less_than_equal", field, &message, &text))
        }
        Ok(value) if min <= value => Ok(usize::try_from(value).unwrap_or(usize::MAX)),
        Ok(_) | Err(_) => {
            let message = format!("Input should be greater than or equal to {min}");
            Err(invalid("greater_than_equal", field, &message, &text))
        }
    }
}

impl Filter {
    /// `_resolve_tag_filters`, and the checks of pydantic.
    fn read(query: &str) -> Result<Self, Refused> {
        let tags = |field: &str| -> Result<Vec<String>, Refused> {
            let mut tags: Vec<String> = Vec::new();
            for text in parameters(query, field) {
                for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
                    if !tags.iter().any(|it| it == tag) {
                        tags.push(tag.to_owned());
                    }
                }
            }
            let (count, max) = (tags.len(), TAGS_MAX);
            if max < count {
                let message = format!("'{field}' lists {count} tags; the maximum is {max}.");
                let details = json!({ "parameter": field, "count": count, "max": max });
                return Err(Box::new(refused(400, "INVALID_TAG_FILTER", &message, &details)));
            }
            Ok(tags)
        };
        let (include, exclude) = (tags("include_tags")?, tags("exclude_tags")?);
        let (all, any, none) = (tags("tags_all")?, tags("tags_any")?, tags("tags_none")?);
        let name_contains = one(query, "name_contains")?;
        let metadata = metadata(query)?;
        if all.is_empty() && any.is_empty() && none.is_empty() {
            return Ok(Self { all: include, any, none: exclude, name_contains, metadata });
        }
        for (old, new, names) in [
            (&include, &all, ["include_tags", "tags_all"]),
            (&exclude, &none, ["exclude_tags", "tags_none"]),
        ] {
            if !old.is_empty() && !new.is_empty() {
                let [old, new] = names;
                let message = format!("Cannot combine '{old}' with '{new}'; use '{new}'.");
                let details = json!({ "parameters": names });
                return Err(Box::new(refused(400, "INVALID_TAG_FILTER", &message, &details)));
            }
        }
        let (names_of_all, all) =
            if all.is_empty() { ("include_tags", include) } else { ("tags_all", all) };
        let (names_of_none, none) =
            if none.is_empty() { ("exclude_tags", exclude) } else { ("tags_none", none) };
        if let Some(tag) = all.iter().find(|tag| none.contains(tag)) {
            let names = [names_of_all, names_of_none];
            let [by, against] = names;
            let message = format!(
                "Query can never match: '{tag}' required by '{by}' but rejected by '{against}'."
            );
            let details = json!({ "conflicting_tags": [tag], "parameters": names });
            return Err(Box::new(refused(400, "INVALID_TAG_FILTER", &message, &details)));
        }
        Ok(Self { all, any, none, name_contains, metadata })
    }

    fn takes(&self, reference: &Reference, owner: &str) -> bool {
        let has = |tag: &String| reference.tags.contains(tag);
        let name = reference.name.to_lowercase();
        reference.is_visible_to(owner)
            && !reference.is_missing
            && !reference.is_deleted
            && self.name_contains.as_ref().is_none_or(|it| name.contains(&it.to_lowercase()))
            && self.all.iter().all(has)
            && (self.any.is_empty() || self.any.iter().any(has))
            && !self.none.iter().any(has)
            && self.metadata.iter().all(|(key, value)| has_metadata(reference, key, value))
    }
}

fn metadata(query: &str) -> Result<Map<String, Value>, Refused> {
    let Some(text) = one(query, "metadata_filter")? else { return Ok(Map::new()) };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let field = "metadata_filter";
    match serde_json::from_str(&text) {
        Ok(Value::Object(filter)) => Ok(filter),
        Ok(_) => {
            let message = "Value error, metadata_filter must be a JSON object";
            Err(invalid("value_error", field, message, &text))
        }
        Err(error) => {
            let message = format!("Value error, metadata_filter must be JSON: {error}");
            Err(invalid("value_error", field, &message, &text))
        }
    }
}

fn has_metadata(reference: &Reference, key: &str, wanted: &Value) -> bool {
    let system = reference.system_metadata.as_ref().and_then(|it| it.get(key));
    let known = reference.user_metadata.get(key).or(system);
    let is = |wanted: &Value| match (known, wanted) {
        (None | Some(Value::Null), Value::Null) => true,
        (Some(Value::Array(all)), wanted) => all.contains(wanted),
        (Some(known), wanted) => known == wanted,
        (None, _) => false,
    };
    match wanted.as_array() {
        Some(any) => any.is_empty() || any.iter().any(is),
        None => is(wanted),
    }
}

/// `GET /api/assets`.
pub(super) fn list(database: &Database, owner: &str, query: &str) -> Result<Value, Refused> {
    let limit = number(query, "limit", (1, 500), 20)?;
    let offset = number(query, "offset", (0, u64::MAX / 2), 0)?;
    let (sort, order) = (sort(query)?, order(query)?);
    let filter = Filter::read(query)?;
    let after = one(query, "after")?;
    let cursor =
        match &after {
            None => None,
            Some(_) if !sort.has_cursor() => {
                let message = "cursor pagination is not supported for sort='last_access_time'";
                return Err(Box::new(refused(400, "INVALID_CURSOR", message, &json!({}))));
            }
            Some(text) => Some(Cursor::decode(text, sort, order).map_err(|message| {
                Box::new(refused(400, "INVALID_CURSOR", &message, &json!({})))
            })?),
        };
    let mut found: Vec<&Reference> =
        database.references.values().filter(|it| filter.takes(it, owner)).collect();
    let total = found.len();
    found.sort_by(|a, b| compare(database, a, b, sort, order));
    if let Some(cursor) = &cursor {
        found.retain(|it| is_after(database, it, cursor, sort, order));
    } else {
        found.drain(..offset.min(found.len()));
    }
    let has_next = limit < found.len();
    found.truncate(limit);
    let next = found.last().filter(|_| has_next && sort.has_cursor()).and_then(|last| {
        Cursor::new(sort, order, value(database, last, sort)?, &last.id).map(|it| it.encode())
    });
    let has_more = if cursor.is_some() { next.is_some() } else { offset + found.len() < total };
    let assets: Vec<Value> = found.into_iter().map(|it| item(database, it)).collect();
    let mut list = json!({ "assets": assets, "total": total, "has_more": has_more });
    if let Some(next) = next {
        list["next_cursor"] = json!(next);
    }
    Ok(list)
}

fn sort(query: &str) -> Result<Sort, Refused> {
    let Some(text) = one(query, "sort")? else { return Ok(Sort::CreatedAt) };
    Sort::ALL.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
        let message = "Input should be 'name', 'created_at', 'updated_at', 'size' or \
            'last_access_time'";
        invalid("literal_error", "sort", message, &text)
    })
}

fn order(query: &str) -> Result<Order, Refused> {
    match one(query, "order")?.as_deref() {
        None | Some("desc") => Ok(Order::Desc),
        Some("asc") => Ok(Order::Asc),
        Some(text) => {
            Err(invalid("literal_error", "order", "Input should be 'asc' or 'desc'", text))
        }
    }
}

/// The value of a cursor.
fn value(database: &Database, reference: &Reference, sort: Sort) -> Option<String> {
    Some(match sort {
        Sort::Name => reference.name.clone(),
        Sort::CreatedAt => reference.created.to_string(),
        Sort::UpdatedAt => reference.updated.to_string(),
        Sort::Size => database.contents[reference.content].size.to_string(),
        Sort::LastAccessTime => return None,
    })
}

fn key(database: &Database, reference: &Reference, sort: Sort) -> u64 {
    match sort {
        Sort::Name => 0,
        Sort::CreatedAt => reference.created,
        Sort::UpdatedAt => reference.updated,
        Sort::Size => database.contents[reference.content].size as u64,
        Sort::LastAccessTime => reference.accessed,
    }
}

fn compare(
    database: &Database,
    a: &Reference,
    b: &Reference,
    sort: Sort,
    order: Order,
) -> Ordering {
    let by_name = if sort == Sort::Name { a.name.cmp(&b.name) } else { Ordering::Equal };
    let keys = key(database, a, sort).cmp(&key(database, b, sort));
    let ordering = by_name.then(keys).then_with(|| a.id.cmp(&b.id));
    match order {
        Order::Asc => ordering,
        Order::Desc => ordering.reverse(),
    }
}

fn is_after(
    database: &Database,
    reference: &Reference,
    cursor: &Cursor,
    sort: Sort,
    order: Order,
) -> bool {
    let by_value = match sort {
        Sort::Name => reference.name.as_str().cmp(cursor.value.as_str()),
        Sort::CreatedAt | Sort::UpdatedAt | Sort::Size | Sort::LastAccessTime => {
            key(database, reference, sort).cmp(&cursor.value.parse().unwrap_or(0))
        }
    };
    let ordering = by_value.then_with(|| reference.id.as_str().cmp(cursor.id.as_str()));
    ordering == if order == Order::Asc { Ordering::Greater } else { Ordering::Less }
}

/// `GET /api/tags`.
pub(super) fn tags(database: &Database, owner: &str, query: &str) -> Result<Value, Refused> {
    let limit = number(query, "limit", (1, 1000), 100)?;
    let offset = number(query, "offset", (0, 10_000_000), 0)?;
    let prefix = one(query, "prefix")?.unwrap_or_default();
    let with_zero = one(query, "include_zero")?.is_none_or(|it| it != "false" && it != "0");
    let by_name = one(query, "order")?.is_some_and(|it| it == "name_asc");
    let counts = count(
        database
            .references
            .values()
            .filter(|it| it.is_visible_to(owner) && !it.is_deleted && !it.is_missing),
    );
    let mut rows: Vec<(&String, usize)> = database
        .tags
        .iter()
        .filter(|tag| tag.starts_with(prefix.trim()))
        .map(|tag| (tag, counts.get(tag.as_str()).copied().unwrap_or(0)))
        .filter(|(_, count)| with_zero || 0 < *count)
        .collect();
    if !by_name {
        rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    }
    let total = rows.len();
    let page = rows.into_iter().skip(offset).take(limit);
    let page: Vec<Value> =
        page.map(|(name, count)| json!({ "name": name, "count": count })).collect();
    let has_more = offset + page.len() < total;
    Ok(json!({ "tags": page, "total": total, "has_more": has_more }))
}

/// `GET /api/assets/tags/refine`.
pub(super) fn refine(database: &Database, owner: &str, query: &str) -> Result<Value, Refused> {
    let limit = number(query, "limit", (1, 1000), 100)?;
    let filter = Filter::read(query)?;
    let counts = count(database.references.values().filter(|it| filter.takes(it, owner)));
    let mut rows: Vec<(&str, usize)> = counts.into_iter().collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let counts: Map<String, Value> =
        rows.into_iter().take(limit).map(|(tag, count)| (tag.to_owned(), json!(count))).collect();
    Ok(json!({ "tag_counts": counts }))
}

fn count<'a>(references: impl Iterator<Item = &'a Reference>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for tag in references.flat_map(|it| &it.tags) {
        *counts.entry(tag.as_str()).or_default() += 1;
    }
    counts
}
