//! Why an event, or a whole body, is refused: always the client's fault.

use std::borrow::Cow;

/// Most texts that are told of one field, or of the form. More would help nobody, and take memory for each repetition.
const TEXTS_MAX: usize = 3;

/// Why a body or an item of a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The body is not JSON that hitlog takes: the text says what is wrong and at which byte.
    Malformed(String),
    /// Well-formed JSON that breaks the rules of an event or a batch.
    Invalid(Faults),
    /// An event that is valid, but for its page: that is of none of the hosts that its website takes events of.
    OtherHost(Faults),
    /// Its visitor sends `Sec-GPC: 1`, and its website takes no events of those who do.
    Gpc,
    /// The tracking code belongs to no website. Carries the code as sent (shortened when very long).
    UnknownWebsite(String),
}

impl Rejection {
    pub(super) fn other_host(field: &'static str, fault: Cow<'static, str>) -> Self {
        Self::OtherHost(Faults::of_field(field, fault))
    }
}

/// What is said of an event whose website takes none of visitors who send `Sec-GPC: 1`.
pub const GPC_REFUSED: &str = "This website takes no events of visitors who send Sec-GPC: 1; this one is not stored, \
                               and need not be sent again";

/// All faults of one event (or of one batch as a whole), told at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Faults that belong to no single field.
    pub form: Vec<Cow<'static, str>>,
    /// Faults by field, in the order in which they were found.
    pub fields: Vec<(&'static str, Vec<Cow<'static, str>>)>,
    /// Faults of what stands within a field, by its place, such as `goals[0].page`, in the same order.
    pub places: Vec<(String, Vec<Cow<'static, str>>)>,
}

impl Faults {
    /// One fault that belongs to no single field.
    pub fn of_form(text: impl Into<Cow<'static, str>>) -> Self {
        Self { form: vec![text.into()], ..Self::default() }
    }

    /// One fault of one field.
    pub fn of_field(field: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let mut faults = Self::default();
        faults.add(field, text);
        faults
    }

    /// Adds a fault of `field`: each text once, and no more texts than a reader wants to see, however often the client
    /// repeats itself.
    pub fn add(&mut self, field: &'static str, text: impl Into<Cow<'static, str>>) {
        match self.fields.iter_mut().find(|(name, _)| *name == field) {
            Some((_, texts)) => add_text(texts, text.into()),
            None => self.fields.push((field, vec![text.into()])),
        }
    }

    /// Adds a fault of what stands at a place within a field, as [`Faults::add`] does. How many places there may be is
    /// bounded by whoever looks at them.
    pub fn add_at(&mut self, place: impl Into<String>, text: impl Into<Cow<'static, str>>) {
        let place = place.into();
        match self.places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, texts)) => add_text(texts, text.into()),
            None => self.places.push((place, vec![text.into()])),
        }
    }

    /// Adds a fault that belongs to no single field, as [`Faults::add`] does.
    pub(super) fn add_of_form(&mut self, text: impl Into<Cow<'static, str>>) {
        add_text(&mut self.form, text.into());
    }

    /// Adds the faults of another look at the same event.
    pub(super) fn append(&mut self, others: &Self) {
        for text in &others.form {
            self.add_of_form(text.clone());
        }
        for (field, texts) in &others.fields {
            for text in texts {
                self.add(field, text.clone());
            }
        }
        for (place, texts) in &others.places {
            for text in texts {
                self.add_at(place.as_str(), text.clone());
            }
        }
    }

    /// Whether there are no faults.
    pub fn is_empty(&self) -> bool {
        self.form.is_empty() && self.fields.is_empty() && self.places.is_empty()
    }
}

fn add_text(texts: &mut Vec<Cow<'static, str>>, text: Cow<'static, str>) {
    if texts.len() < TEXTS_MAX && !texts.contains(&text) {
        texts.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_bounded_however_often_they_come() {
        let mut faults = Faults::default();
        for round in 0..1_000 {
            faults.add("os", "Given more than once");
            faults.add("url", format!("fault {round}"));
            faults.add_at("goals[0]", format!("fault {round}"));
            faults.add_of_form(format!("fault {}", round / 2));
        }
        let texts = ["fault 0", "fault 1", "fault 2"].map(Cow::from).to_vec();
        assert_eq!(faults.fields, [("os", vec!["Given more than once".into()]), ("url", texts.clone())]);
        assert_eq!(faults.places, [("goals[0]".to_owned(), texts.clone())]);
        assert_eq!(faults.form, texts);
    }
}
