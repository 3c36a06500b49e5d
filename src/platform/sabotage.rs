//! Failpoints that switch a safeguard off. With them, a test proves that it notices a missing safeguard.
//!
//! They exist only in builds with debug assertions. A release binary does not even contain their names.

/// Whether the environment variable `OPERATOR_SABOTAGE` is this name.
#[cfg(debug_assertions)]
pub fn is_on(name: &str) -> bool {
    std::env::var("OPERATOR_SABOTAGE").is_ok_and(|wanted| wanted == name)
}

/// Whether a safeguard is switched off.
#[cfg(debug_assertions)]
macro_rules! on {
    ($name:literal) => {
        $crate::platform::sabotage::is_on($name)
    };
}

/// Whether a safeguard is switched off: never, in a release.
#[cfg(not(debug_assertions))]
macro_rules! on {
    ($name:literal) => {
        false
    };
}

pub(crate) use on;
