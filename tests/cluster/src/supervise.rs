use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SCRIPT: &str = concat!(include_str!("stop.sh"), include_str!("supervise.sh"));

/// How long a program may take to end after `SIGTERM`.
const GRACE: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(20);

/// A running program that ends with this process, even when this process is killed by `SIGKILL`.
///
/// The program runs in a process group of its own, so Ctrl-C in the terminal reaches only this process, which then
/// stops the program. Dropping the value stops the program: `SIGTERM`, and `SIGKILL` five seconds later.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    /// The pipe to the watcher. `None` once the program has ended or may outlive this process.
    leash: Option<ChildStdin>,
    log: PathBuf,
}

impl Supervised {
    /// Starts the program with the arguments, environment changes and working folder of `command`. The command's
    /// standard streams and `env_clear` are ignored: stdin is empty, and stdout and stderr are appended to `log`.
    ///
    /// A program that does not exist ends with exit status 127, and the log says why.
    pub fn spawn(command: &Command, log: &Path) -> io::Result<Self> {
        Self::spawn_in(command, log, Path::new(""))
    }

    /// Like [`spawn`](Self::spawn). Removes `folder` if the program has to be stopped because this process is gone.
    pub(crate) fn spawn_in(command: &Command, log: &Path, folder: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SCRIPT, "supervise"])
            .arg(folder)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        let mut child = shell.spawn()?;
        // Taken out of the child, because waiting for a child closes its stdin.
        let leash = child.stdin.take();
        Ok(Self { child, leash, log: log.to_owned() })
    }

    /// The process id of the program, and also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with the program's output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal by name: `TERM`, `STOP`, `CONT` and so on.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        if self.leash.is_none() {
            return Err(io::Error::other("the program has ended"));
        }
        // The shell's built-in `kill`, because some small systems have no program of that name.
        let output = Command::new("/bin/sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "kill", name])
            .arg(self.pid().to_string())
            .output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
    }

    /// Ends the program by `SIGKILL`, immediately and even if it is stopped.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.dismiss_watcher();
        Ok(status)
    }

    /// Sends `SIGTERM`, and kills the program if it still runs five seconds later.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.wait_exit(Duration::ZERO)? {
            return Ok(status);
        }
        self.signal("TERM")?;
        match self.wait_exit(GRACE)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Waits for the program to end; `None` if it still runs after `timeout`.
    pub fn wait_exit(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.dismiss_watcher();
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            thread::sleep(POLL.min(left));
        }
    }

    /// Lets the program outlive this process, and returns its process id.
    pub fn keep(mut self) -> u32 {
        self.dismiss_watcher();
        self.pid()
    }

    fn dismiss_watcher(&mut self) {
        if let Some(mut leash) = self.leash.take() {
            // Fails only if the watcher has already ended, which is the goal.
            let _ = leash.write_all(b"\n");
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.leash.is_some() && self.stop().is_err() {
            // Closing the pipe makes the watcher stop the program.
            self.leash = None;
        }
    }
}
