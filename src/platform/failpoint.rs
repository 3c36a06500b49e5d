//! Failpoints: places where a test kills or stops the process, or turns a safeguard off.
//!
//! `OPERATOR_FAILPOINTS` holds `NAME=kill`, `NAME=stop` or `NAME=active`, separated by commas. Failpoints exist only in
//! builds with debug assertions. A release binary does not even contain their names.

/// Acts as the environment says: ends this process (`kill`) or suspends it (`stop`). Only the first reconcile to get
/// here does so.
#[cfg(debug_assertions)]
pub fn reached(name: &str) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static REACHED: AtomicBool = AtomicBool::new(false);
    let signal = match action(name).as_deref() {
        Some("kill") => "KILL",
        Some("stop") => "STOP",
        _ => return,
    };
    if !REACHED.swap(true, Ordering::SeqCst) {
        let me = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-s", signal, &me]).status();
        // A stop reaches one thread first, and the others, such as this one, a moment later.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// Whether the environment says `NAME=active`, which turns off the safeguard at this place.
#[cfg(debug_assertions)]
pub fn is_active(name: &str) -> bool {
    action(name).as_deref() == Some("active")
}

#[cfg(debug_assertions)]
fn action(name: &str) -> Option<String> {
    let wanted = std::env::var("OPERATOR_FAILPOINTS").ok()?;
    let mut actions = wanted.split(',').filter_map(|wanted| wanted.split_once('='));
    actions.find(|(point, _)| *point == name).map(|(_, action)| action.to_owned())
}

/// A place where a test may kill or stop the process.
#[cfg(debug_assertions)]
macro_rules! reach {
    ($name:literal) => {
        $crate::platform::failpoint::reached($name)
    };
}

/// Nothing in a release.
#[cfg(not(debug_assertions))]
macro_rules! reach {
    ($name:literal) => {};
}

/// Whether a test has turned off the safeguard at this place.
#[cfg(debug_assertions)]
macro_rules! active {
    ($name:literal) => {
        $crate::platform::failpoint::is_active($name)
    };
}

/// Never in a release.
#[cfg(not(debug_assertions))]
macro_rules! active {
    ($name:literal) => {
        false
    };
}

pub(crate) use active;
pub(crate) use reach;
