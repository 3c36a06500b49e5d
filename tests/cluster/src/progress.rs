use std::io::Write;

/// Tells the person at the terminal what takes so long.
/// libtest hides what `eprintln!` writes until a test fails, but not what is written to the handle itself.
pub(crate) fn say(text: &str) {
    // Nobody listening is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "cluster: {text}");
}
