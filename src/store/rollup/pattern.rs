//! What a filter asks for: a value, with `*` for any text, or none of those with `!` before it.

/// A filter's text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    pub(super) is_negated: bool,
    /// What stands between the stars; empty: no value at all is meant.
    parts: Vec<Vec<u8>>,
}

impl Pattern {
    pub(super) fn of(text: &str) -> Self {
        let (is_negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        if text.is_empty() {
            return Self { is_negated, parts: Vec::new() };
        }
        let mut parts = vec![Vec::new()];
        let mut bytes = text.bytes().peekable();
        let mut add = |byte, is_star: bool| {
            if is_star {
                parts.push(Vec::new());
            } else if let Some(part) = parts.last_mut() {
                part.push(byte);
            }
        };
        while let Some(byte) = bytes.next() {
            match byte {
                b'*' => add(byte, true),
                // The letter behind it is meant as it is; before any other it is one itself.
                b'\\' => add(bytes.next_if(|next| matches!(next, b'*' | b'!' | b'\\')).unwrap_or(b'\\'), false),
                byte => add(byte, false),
            }
        }
        Self { is_negated, parts }
    }

    /// One that means a value, letter for letter.
    pub(super) fn literal(value: &str) -> Self {
        let parts = if value.is_empty() { Vec::new() } else { vec![value.as_bytes().to_vec()] };
        Self { is_negated: false, parts }
    }

    /// Whether a value is meant; an empty one is none. Whether it is negated is not looked at.
    pub(super) fn fits(&self, value: &[u8]) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return value.is_empty() };
        let Some((last, middle)) = rest.split_last() else { return value == first };
        // "*" is any value, and none is no value.
        if value.is_empty() || value.len() < first.len() + last.len() {
            return false;
        }
        let Some(mut left) = value.strip_prefix(&first[..]).and_then(|left| left.strip_suffix(&last[..])) else {
            return false;
        };
        middle.iter().filter(|part| !part.is_empty()).all(|part| {
            let found = left.windows(part.len()).position(|window| window == &part[..]);
            found.is_some_and(|at| {
                left = &left[at + part.len()..];
                true
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_what_it_says() {
        for (pattern, fits, does_not) in [
            ("/a", &["/a"][..], &["/", "/a/", "", "/A"][..]),
            ("*", &["/", "x"], &[""]),
            ("/a/*", &["/a/", "/a/b/c"], &["/a", "x/a/b"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "b", ""]),
            ("ab*ba", &["abba", "ab-ba"], &["aba"]),
            ("a**b", &["ab", "axb"], &["a"]),
            (r"\*", &["*"], &["x"]),
            (r"\!a", &["!a"], &["a"]),
            (r"a\\", &[r"a\"], &["a"]),
            (r"a\", &[r"a\"], &["a"]),
            (r"\d", &[r"\d"], &["d"]),
            ("", &[""], &["a"]),
        ] {
            let of = Pattern::of(pattern);
            assert!(!of.is_negated, "{pattern}");
            assert!(fits.iter().all(|value| of.fits(value.as_bytes())), "{pattern}");
            assert!(!does_not.iter().any(|value| of.fits(value.as_bytes())), "{pattern}");
            let negated = Pattern::of(&format!("!{pattern}"));
            assert_eq!(negated, Pattern { is_negated: true, ..of }, "{pattern}");
        }
    }

    #[test]
    fn a_long_pattern_takes_no_longer_than_pattern_times_value() {
        let pattern = Pattern::of(&"a*".repeat(2_000));
        assert!(!pattern.fits("a".repeat(1_024).as_bytes()));
    }
}
