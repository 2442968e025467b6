//! Why an event, or a whole body, is refused: always the client's fault.

use std::borrow::Cow;

/// Why a body or an item of a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The body is not JSON that hitlog takes: the text says what is wrong and at which byte.
    Malformed(String),
    /// Well-formed JSON that breaks the rules of an event or a batch.
    Invalid(Faults),
    /// The tracking code belongs to no website. Carries the code as sent (shortened when very long).
    UnknownWebsite(String),
}

/// All faults of one event (or of one batch as a whole), told at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Faults that belong to no single field.
    pub form: Vec<Cow<'static, str>>,
    /// Faults by field, in the order in which they were found.
    pub fields: Vec<(&'static str, Vec<Cow<'static, str>>)>,
}

impl Faults {
    /// One fault that belongs to no single field.
    pub fn of_form(text: impl Into<Cow<'static, str>>) -> Self {
        Self { form: vec![text.into()], fields: Vec::new() }
    }

    /// One fault of one field.
    pub fn of_field(field: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let mut faults = Self::default();
        faults.add(field, text);
        faults
    }

    /// Adds a fault of `field`.
    pub fn add(&mut self, field: &'static str, text: impl Into<Cow<'static, str>>) {
        match self.fields.iter_mut().find(|(name, _)| *name == field) {
            Some((_, texts)) => texts.push(text.into()),
            None => self.fields.push((field, vec![text.into()])),
        }
    }

    /// Whether there are no faults.
    pub fn is_empty(&self) -> bool {
        self.form.is_empty() && self.fields.is_empty()
    }
}
