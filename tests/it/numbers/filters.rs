//! Which values a question leaves.

use std::collections::BTreeMap;

use super::fault::{Fault, Rules};

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    AnyText,
    Letter(char),
}

/// What one parameter says.
#[derive(Debug, Clone)]
struct Condition {
    is_not: bool,
    /// Nothing: those that have no value.
    parts: Vec<Part>,
}

impl Condition {
    fn new(text: &str, rules: Rules) -> Self {
        let (is_not, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (mut parts, mut letters) = (Vec::new(), text.chars().peekable());
        while let Some(letter) = letters.next() {
            let escaped = letters.peek().copied().filter(|next| letter == '\\' && matches!(next, '*' | '!' | '\\'));
            parts.push(match escaped {
                Some(next) => {
                    letters.next();
                    Part::Letter(next)
                }
                None if letter == '*' && !rules.lack(Fault::StarIsALetter) => Part::AnyText,
                None => Part::Letter(letter),
            });
        }
        Self { is_not, parts }
    }

    /// Whether it names this value, never mind whether those are wanted or not.
    fn names(&self, value: Option<&str>, rules: Rules) -> bool {
        match value {
            None => self.parts.is_empty() || (self.parts == [Part::AnyText] && rules.lack(Fault::StarTakesNone)),
            Some(_) if self.parts.is_empty() => false,
            Some(text) => fits(&self.parts, &text.chars().collect::<Vec<_>>()),
        }
    }
}

/// Whether a text is these parts.
fn fits(parts: &[Part], text: &[char]) -> bool {
    // Which beginnings of the text are the parts so far, by their lengths.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for part in parts {
        let mut next = vec![false; text.len() + 1];
        for length in 0..=text.len() {
            next[length] = match part {
                Part::AnyText => reached[length] || (length > 0 && next[length - 1]),
                Part::Letter(letter) => length > 0 && reached[length - 1] && text[length - 1] == *letter,
            };
        }
        reached = next;
    }
    reached[text.len()]
}

/// All of a question's.
pub struct Filters {
    by_name: BTreeMap<String, Vec<Condition>>,
    rules: Rules,
}

impl Filters {
    pub fn new(parameters: &[(String, String)], rules: Rules) -> Self {
        let mut by_name: BTreeMap<String, Vec<Condition>> = BTreeMap::new();
        for (name, text) in parameters {
            by_name.entry(name.clone()).or_default().push(Condition::new(text, rules));
        }
        Self { by_name, rules }
    }

    /// Whether those of these names leave what has these values.
    pub fn leave(&self, names: &[&str], value: impl Fn(&str) -> Option<String>) -> bool {
        names.iter().filter_map(|name| self.by_name.get_key_value(*name)).all(|(name, conditions)| {
            let value = value(name);
            self.leaves(conditions, value.as_deref())
        })
    }

    fn leaves(&self, conditions: &[Condition], value: Option<&str>) -> bool {
        let named = |is_not: bool| {
            let conditions = conditions.iter().filter(move |condition| condition.is_not == is_not);
            conditions.map(|condition| condition.names(value, self.rules))
        };
        let lacks = |fault| self.rules.lack(fault);
        let is_wanted = named(false).count() == 0
            || if lacks(Fault::RepeatedMeansAnd) { named(false).all(|is| is) } else { named(false).any(|is| is) };
        let is_unwanted = match lacks(Fault::RepeatedNotMeansOr) {
            true => named(true).count() > 0 && named(true).all(|is| is),
            false => named(true).any(|is| is),
        };
        let is_none = value.is_none() && named(true).count() > 0 && lacks(Fault::NotLeavesNoNone);
        is_wanted && !is_unwanted && !is_none
    }
}

/// A text as a pattern that names it and nothing else.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if matches!(letter, '*' | '!' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}
