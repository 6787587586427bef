//! The query of a list of assets (ComfyUI 0.33 `app/assets/api/schemas_in.py`), as far as merging
//! several lists needs it.
//!
//! A backend checks the query; here it is assumed to be valid.

use crate::comfy::query::{parameter, with_parameter, without_parameter};

/// The largest page.
pub const LIMIT_MAX: usize = 500;

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    Name,
    CreatedAt,
    UpdatedAt,
    Size,
    LastAccessTime,
}

impl Sort {
    pub const ALL: [Self; 5] =
        [Self::Name, Self::CreatedAt, Self::UpdatedAt, Self::Size, Self::LastAccessTime];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::Size => "size",
            Self::LastAccessTime => "last_access_time",
        }
    }

    /// True if a page can begin after a value of this field.
    #[must_use]
    pub fn has_cursor(self) -> bool {
        self != Self::LastAccessTime
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    Asc,
    Desc,
}

impl Order {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// The page of a list that a client asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    pub sort: Sort,
    pub order: Order,
    pub limit: usize,
    /// 0 if the page begins after a cursor.
    pub offset: usize,
    pub has_cursor: bool,
}

impl Window {
    /// Reads a query that a backend has accepted.
    #[must_use]
    pub fn of(query: &str) -> Self {
        let sort = parameter(query, "sort");
        let sort = Sort::ALL.into_iter().find(|it| Some(it.as_str()) == sort.as_deref());
        let order = parameter(query, "order");
        let order = if order.as_deref() == Some("asc") { Order::Asc } else { Order::Desc };
        let number = |name| parameter(query, name).and_then(|text| text.trim().parse().ok());
        let has_cursor = parameter(query, "after").is_some();
        Self {
            sort: sort.unwrap_or(Sort::CreatedAt),
            order,
            limit: number("limit").unwrap_or(20).clamp(1, LIMIT_MAX),
            offset: if has_cursor { 0 } else { number("offset").unwrap_or(0) },
            has_cursor,
        }
    }

    /// How many of the first entries are needed to fill the page and to know whether more follow.
    #[must_use]
    pub fn needed(self) -> usize {
        self.offset.saturating_add(self.limit).saturating_add(1)
    }
}

/// Where reading a backend's list continues.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Begin {
    Offset(usize),
    After(String),
}

/// The query for a page of one backend: the client's filters and order, with our window.
#[must_use]
pub fn page(query: &str, from: Option<&Begin>, limit: usize) -> String {
    let query = with_parameter(query, "limit", &limit.min(LIMIT_MAX).to_string());
    match from {
        None => without_parameter(&query, "offset"),
        Some(Begin::Offset(offset)) => {
            let query = without_parameter(&query, "after");
            with_parameter(&query, "offset", &offset.to_string())
        }
        Some(Begin::After(cursor)) => {
            let query = without_parameter(&query, "offset");
            with_parameter(&query, "after", cursor)
        }
    }
}

/// The query for the whole list: without the place where a page begins.
#[must_use]
pub fn whole(query: &str) -> String {
    without_parameter(&without_parameter(query, "after"), "offset")
}

/// The tag of model files.
const MODELS: &str = "models";

/// The same query for everything except models; `None` if it asks for models. A model can be loaded
/// only on its own backend, and every backend has the same models.
#[must_use]
pub fn without_models(query: &str) -> Option<String> {
    let tags = |name: &str| -> Vec<String> {
        let all = crate::comfy::query::parameters(query, name);
        let split = |text: String| -> Vec<String> {
            text.split(',').map(|tag| tag.trim().to_owned()).filter(|it| !it.is_empty()).collect()
        };
        all.into_iter().flat_map(split).collect()
    };
    let wanted = ["tags_all", "include_tags"]
        .into_iter()
        .any(|name| tags(name).contains(&MODELS.to_owned()));
    let any = tags("tags_any");
    if wanted || (!any.is_empty() && any.iter().all(|tag| tag == MODELS)) {
        return None;
    }
    // Backends refuse both spellings in one query.
    let name = if tags("exclude_tags").is_empty() { "tags_none" } else { "exclude_tags" };
    let mut none = tags(name);
    none.push(MODELS.to_owned());
    Some(with_parameter(&without_parameter(query, name), name, &none.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_read_as_comfyui_reads_it() {
        let window = Window::of("");
        let expected = Window {
            sort: Sort::CreatedAt,
            order: Order::Desc,
            limit: 20,
            offset: 0,
            has_cursor: false,
        };
        assert_eq!((window, window.needed()), (expected, 21));
        let window = Window::of("sort=size&order=asc&limit=3&offset=7&after=x");
        assert_eq!((window.sort, window.order), (Sort::Size, Order::Asc));
        assert_eq!((window.offset, window.limit, window.has_cursor), (0, 3, true));
    }

    #[test]
    fn a_page_keeps_its_filters() {
        let query = "tags_all=a%2Cb&limit=3&offset=7";
        let after = Begin::After("x_y".to_owned());
        assert_eq!(page(query, Some(&Begin::Offset(9)), 5), "tags_all=a%2Cb&limit=5&offset=9");
        assert_eq!(page(query, Some(&after), 900), "tags_all=a%2Cb&limit=500&after=x_y");
        assert_eq!(page("after=z", None, 5), "after=z&limit=5");
        assert_eq!(whole("a=1&after=z&offset=3"), "a=1");
    }

    #[test]
    fn models_are_those_of_one_backend() {
        assert_eq!(without_models("a=1").as_deref(), Some("a=1&tags_none=models"));
        let both = without_models("tags_none=x&tags_none=y,z");
        assert_eq!(both.as_deref(), Some("tags_none=x%2Cy%2Cz%2Cmodels"));
        let old = without_models("exclude_tags=x");
        assert_eq!(old.as_deref(), Some("exclude_tags=x%2Cmodels"));
        for query in ["include_tags=models", "tags_all=a,%20models", "tags_any=models"] {
            assert_eq!(without_models(query), None, "{query}");
        }
        assert!(without_models("tags_any=models,x").is_some());
    }
}
