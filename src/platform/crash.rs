//! Failpoints at which a test may kill or stop the process.
//!
//! They exist only in builds with debug assertions. A release binary does not even contain their names.

/// Kills (`kill`) or stops (`stop`) this process if the environment variable `OPERATOR_CRASH_POINT` is `NAME=kill` or
/// `NAME=stop`. Only the first reconcile that gets here triggers it.
#[cfg(debug_assertions)]
pub fn reached(name: &str) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static REACHED: AtomicBool = AtomicBool::new(false);
    let Ok(wanted) = std::env::var("OPERATOR_CRASH_POINT") else { return };
    let signal = match wanted.split_once('=') {
        Some((point, "kill")) if point == name => "KILL",
        Some((point, "stop")) if point == name => "STOP",
        _ => return,
    };
    if !REACHED.swap(true, Ordering::SeqCst) {
        let me = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-s", signal, &me]).status();
        // A stop signal reaches one thread first, and the others, such as this one, a moment later.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// Marks a failpoint.
#[cfg(debug_assertions)]
macro_rules! point {
    ($name:literal) => {
        $crate::platform::crash::reached($name)
    };
}

/// Marks a failpoint, which does nothing in a release.
#[cfg(not(debug_assertions))]
macro_rules! point {
    ($name:literal) => {};
}

pub(crate) use point;
