//! Lists that can grow: `?limit=` and `?after=`, and the link to the next page (RFC 8288).

use std::fmt::Display;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::base::error::Error;
use crate::base::form_encoding::url_encoded;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// The most items of a page, and the default.
const MOST: usize = 100;

/// Reads the field `limit`.
pub(crate) fn limit(form: &mut Form) -> usize {
    let limit = form.optional("limit", |text| match text.parse() {
        Ok(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        _ => Err("must be a whole number from 1 to 100"),
    });
    limit.unwrap_or(MOST)
}

/// The error for a page after something that is not in the list, or no longer: an empty page would claim that nothing
/// comes after it.
pub(crate) fn no_such_place(what: &str) -> Error {
    Error::BrokenRules(vec![format!("after must be the id of {what}")])
}

/// 200 with a page. `last`: the id of its last item, if more comes after it.
pub(crate) fn answer<T: Serialize>(
    request: &Request,
    path: &str,
    limit: usize,
    items: &[T],
    last: Option<impl Display>,
) -> Result<Response, Error> {
    let mut response = response::ok(&items)?;
    if let Some(last) = last {
        response::tell_next(&mut response, &next(path, request.query.as_deref().unwrap_or_default(), limit, &last));
    }
    Ok(response)
}

/// The path of the next page, with the filters of this one.
fn next(path: &str, query: &str, limit: usize, last: &impl Display) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let filters = url_encoded(query).flatten().filter(|(name, _)| name != "limit" && name != "after");
    let filters: String = filters.map(|(name, value)| format!("{}={}&", encoded(&name), encoded(&value))).collect();
    format!("{path}?{filters}limit={limit}&after={last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_keeps_the_filters_as_they_were_meant() {
        for (query, expected) in [
            ("", "/x?limit=5&after=7"),
            ("limit=5&after=6", "/x?limit=5&after=7"),
            ("email=a%2Bb%40c&active=true&limit=5", "/x?email=a%2Bb%40c&active=true&limit=5&after=7"),
            ("email=a+b%26%3E%22", "/x?email=a%20b%26%3E%22&limit=5&after=7"),
            ("email=%C3%A4", "/x?email=%C3%A4&limit=5&after=7"),
        ] {
            assert_eq!(next("/x", query, 5, &7), expected);
        }
    }
}
