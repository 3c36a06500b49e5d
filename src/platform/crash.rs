//! Crash points: places at which a test may have the process killed or stopped.
//!
//! They exist only in builds with debug assertions; a release binary does not even contain their names.

/// Ends (`kill`) or stops (`stop`) this process if the environment's `OPERATOR_CRASH_POINT` is
/// `NAME=kill` or `NAME=stop`. The first pass that gets here is the only one.
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
        // A stop reaches one thread first, and the others, such as this one, a moment later.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// Marks a crash point.
#[cfg(debug_assertions)]
macro_rules! point {
    ($name:literal) => {
        $crate::platform::crash::reached($name)
    };
}

/// Marks a crash point: nothing, in a release.
#[cfg(not(debug_assertions))]
macro_rules! point {
    ($name:literal) => {};
}

pub(crate) use point;
