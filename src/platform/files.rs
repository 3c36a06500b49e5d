//! How many files and connections the process may have open.

/// Raises the soft limit of open files to the hard one, as Go programs do at their start.
///
/// The soft limit is 1,024 on many machines, for the sake of programs that use `select`. Each connection takes one, and
/// a process that has none left can reach neither the cluster nor Mistral. A limit that cannot be raised is no reason to
/// stop.
pub fn raise_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
    }
}
