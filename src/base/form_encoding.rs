//! `application/x-www-form-urlencoded`: queries, and the bodies of OAuth.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The names and values of a query, or of a body in the same encoding. `None`: this pair cannot be decoded.
pub(crate) fn url_encoded(text: &str) -> impl Iterator<Item = Option<(Cow<'_, str>, Cow<'_, str>)>> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((form_decoded(name)?, form_decoded(value)?))
    })
}

/// Decodes one name or value. `None`: it is not percent-encoded UTF-8.
pub(crate) fn form_decoded(text: &str) -> Option<Cow<'_, str>> {
    let is_code = |code: &[u8]| code.iter().all(u8::is_ascii_hexdigit);
    if !text.split('%').skip(1).all(|rest| rest.as_bytes().get(..2).is_some_and(is_code)) {
        return None;
    }
    if text.contains('+') {
        let text = text.replace('+', " ");
        return percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned().into());
    }
    percent_decode_str(text).decode_utf8().ok()
}
