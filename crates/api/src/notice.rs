//! Notices: what is wrong or surprising about an object, where, and what cures it.

use crate::meta::Meta;
use std::fmt;

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// In force, but probably not as meant.
    Warning,
    /// About one object: not in force, it is refused or its last good value stays.
    /// About several objects together (analysis): in force, and requests fail because of it.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        })
    }
}

/// The object that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Subject {
    /// Kind; empty when the text does not say.
    pub kind: String,
    /// Namespace; empty when the text names none.
    pub namespace: String,
    /// Name; empty when the text names none.
    pub name: String,
}

impl Subject {
    /// The object of `kind` with this metadata.
    pub fn new(kind: &str, meta: &Meta) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.kind, &*self.namespace, &*self.name) {
            ("", _, _) => f.write_str("document"),
            (kind, _, "") => write!(f, "{kind} without a name"),
            (kind, "", name) => write!(f, "{kind} {name}"),
            (kind, namespace, name) => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// Where a notice's text is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// File name as the user gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// One notice. `Display` gives one line: place, severity and code, object, field, and the sentence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// Istio's message code, such as `IST0106`, where one fits.
    pub code: Option<&'static str>,
    /// Where the text is; absent for objects that came from an API server.
    pub place: Option<Place>,
    /// The object.
    pub subject: Subject,
    /// Field path such as `spec.http[0].route[1].weight`; empty for the whole object.
    pub field: String,
    /// What is wrong and what cures it: one sentence without a full stop.
    pub message: String,
}

impl Notice {
    /// A notice about `field` (may be empty) of `subject`.
    pub fn new(
        severity: Severity,
        subject: &Subject,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code: None,
            place: None,
            subject: subject.clone(),
            field: field.into(),
            message: message.into(),
        }
    }

    /// An error: the object is not put in force.
    pub fn error(subject: &Subject, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, subject, field, message)
    }

    /// A warning: in force, but probably not as meant.
    pub fn warning(
        subject: &Subject,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, subject, field, message)
    }

    /// The same notice with Istio's message code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Whether the object is refused.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}: ", place.file, place.line)?;
        }
        match self.code {
            Some(code) => write!(f, "{} [{code}]: ", self.severity)?,
            None => write!(f, "{}: ", self.severity)?,
        }
        write!(f, "{}: ", self.subject)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Whether any of `notices` is an error.
pub fn any_error(notices: &[Notice]) -> bool {
    notices.iter().any(Notice::is_error)
}
