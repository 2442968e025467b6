//! Which form of an answer a client wants, RFC 9110, section 12.5.1.

use hyper::{
    HeaderMap,
    header::{ACCEPT, HeaderValue},
};

use super::accept_encoding::weight;

/// The place of the form that the client likes best, of those that there are, each with its media types; of those that
/// it likes equally, the first. `None` if it takes none of them. What in the header is not of its grammar names none.
pub(super) fn preferred(headers: &HeaderMap, forms: &[&[&str]]) -> Option<usize> {
    let lists = headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
    let mut items = lists.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).peekable();
    let mut ranges = Vec::new();
    let mut says_nothing = true;
    for item in items.by_ref().filter(|item| !item.is_empty()) {
        says_nothing = false;
        ranges.extend(str::from_utf8(item).ok().and_then(media_range));
    }
    if says_nothing {
        return Some(0);
    }
    let weight_of = |form: &[&str]| form.iter().map(|media_type| weight_in(&ranges, media_type)).max().unwrap_or(0);
    let weights = forms.iter().map(|form| weight_of(form)).enumerate();
    // Of equal ones `max_by_key` takes the last.
    weights.rev().max_by_key(|(_, weight)| *weight).filter(|(_, weight)| *weight > 0).map(|(at, _)| at)
}

/// A media range in lower case and its weight in thousandths; `None` where an item is none.
fn media_range(item: &str) -> Option<(String, u16)> {
    let mut parts = item.split(';').map(str::trim);
    let range = parts.next().filter(|range| range.contains('/'))?.to_ascii_lowercase();
    let q = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let thousandths = q.map_or(Some(1_000), |(_, value)| weight(value.trim()))?;
    Some((range, thousandths))
}

/// What the most exact of the ranges that a type is in says of it.
fn weight_in(ranges: &[(String, u16)], media_type: &str) -> u16 {
    let kind = media_type.split('/').next().unwrap_or_default();
    let of = |wanted: &dyn Fn(&str) -> bool| {
        ranges.iter().filter(|(range, _)| wanted(range)).map(|(_, thousandths)| *thousandths).max()
    };
    let exact = of(&|range| range == media_type);
    let of_kind = || of(&|range| range.strip_suffix("/*") == Some(kind));
    exact.or_else(of_kind).or_else(|| of(&|range| range == "*/*")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_likes_best() {
        let forms: [&[&str]; 2] = [&["text/event-stream"], &["application/x-ndjson", "application/ndjson"]];
        for (lists, wanted) in [
            (&[][..], Some(0)),
            (&[""], Some(0)),
            (&[" , "], Some(0)),
            (&["*/*"], Some(0)),
            (&["text/*"], Some(0)),
            (&["text/event-stream"], Some(0)),
            (&["TEXT/Event-Stream; charset=utf-8"], Some(0)),
            (&["application/x-ndjson"], Some(1)),
            (&["application/ndjson"], Some(1)),
            (&["application/*"], Some(1)),
            (&["application/x-ndjson, */*;q=0.1"], Some(1)),
            (&["application/x-ndjson, */*"], Some(0)),
            (&["application/x-ndjson, text/event-stream;q=0.9"], Some(1)),
            (&["application/x-ndjson;q=0.9", "text/event-stream"], Some(0)),
            (&["application/x-ndjson; charset=utf-8 ; Q=0.5, text/event-stream;q=0.4"], Some(1)),
            (&["text/event-stream;q=0, */*;q=0.1"], Some(1)),
            (&["application/x-ndjson;q=0, application/*;q=0, */*"], Some(0)),
            (&["application/json"], None),
            (&["text/html, image/*"], None),
            (&["*/*;q=0"], None),
            (&["text/event-stream;q=0"], None),
            (&["text/event-stream;q=2"], None),
            (&["event-stream"], None),
            (&["gr\u{fc}n"], None),
            (&["text/html", "application/ndjson;q=0.001"], Some(1)),
        ] {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(ACCEPT, HeaderValue::from_bytes(list.as_bytes()).unwrap());
            }
            assert_eq!(preferred(&headers, &forms), wanted, "{lists:?}");
        }
    }
}
