use std::io::Write;

/// Shows the person at the terminal what takes so long. libtest hides the output of `eprintln!` until a test fails, but
/// not text written to the handle itself.
pub(crate) fn say(text: &str) {
    // A closed stderr must not fail the test.
    let _ = writeln!(std::io::stderr().lock(), "cluster: {text}");
}
