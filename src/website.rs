//! What people call a website and say of it: one rule for each, wherever a website is registered, changed or imported.
//! Pure, and knows nobody; where its pages are is `domain`'s.

/// Checks the name that people see; the limit is in characters.
pub fn check_name(text: &str, chars_max: usize) -> Result<String, String> {
    if !(1..=chars_max).contains(&text.chars().count()) {
        return Err(format!("Expected 1 to {chars_max} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("Control characters are not taken".into());
    }
    Ok(text.to_owned())
}

/// Checks what people wrote about it; the limit is in characters.
pub fn check_description(text: &str, chars_max: usize) -> Result<String, String> {
    if text.chars().count() > chars_max {
        return Err(format!("At most {chars_max} characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_descriptions() {
        for (text, is_name, is_description) in [
            ("", false, true),
            ("a", true, true),
            ("\u{f1}\u{f1}\u{f1}", true, true),
            ("four", false, false),
            ("a\nb", false, true),
        ] {
            assert_eq!(check_name(text, 3).is_ok(), is_name, "{text:?}");
            assert_eq!(check_description(text, 3).is_ok(), is_description, "{text:?}");
        }
    }
}
