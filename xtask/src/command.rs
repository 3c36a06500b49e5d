//! Runs other programs. Their failures become sentences.

use std::process::{Command, Stdio};

use crate::demo::Result;

/// Runs a command that prints its own progress.
pub fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|error| format!("{program} does not start: {error}; is it installed?"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed ({status}); it says why above.").into()) }
}

/// Runs a command and returns its output without the final newline.
pub fn answer(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program} does not start: {error}; is it installed?"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(complaint.trim().lines().last().unwrap_or("it does not say why").to_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
