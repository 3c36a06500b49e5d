//! What a plan wants people to learn.

/// Something that happened to a resource. A plan makes one notice per change, not one per reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `Normal` or `Warning`.
    pub type_: &'static str,
    /// A stable CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl Notice {
    /// A notice that all is well.
    pub fn normal(reason: &str, note: impl Into<String>) -> Self {
        Self { type_: "Normal", reason: reason.to_owned(), note: note.into() }
    }

    /// A notice that something is wrong.
    pub fn warning(reason: &str, note: impl Into<String>) -> Self {
        Self { type_: "Warning", reason: reason.to_owned(), note: note.into() }
    }
}
