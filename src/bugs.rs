//! Mistakes that an operator could make, for tests that must notice: each is a switch of test builds, by the variable BUG.
//! `tests/sweep/bugs` has the list, and which test notices which.

/// Whether this mistake is to be made.
#[cfg(feature = "faults")]
pub(crate) fn is_made(bug: &str) -> bool {
    static MADE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    MADE.get_or_init(|| std::env::var("BUG").ok()).as_deref() == Some(bug)
}

/// Other builds make none.
#[cfg(not(feature = "faults"))]
pub(crate) const fn is_made(_: &str) -> bool {
    false
}

/// Whether the mistake of this name is to be made here.
macro_rules! bug {
    ($name:literal) => {
        $crate::bugs::is_made($name)
    };
}
