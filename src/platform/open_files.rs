//! The limit of open files and connections.

/// Raises the soft limit of open files to the hard limit, as Go programs do when they start.
///
/// The soft limit is 1,024 on many machines, for the sake of programs that use `select`. Each connection takes one
/// file, and a process that has none left can reach neither the cluster nor other servers. If the limit cannot be
/// raised, the operator goes on.
pub fn raise_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::debug!(%error, "the limit of open files cannot be raised"),
    }
}
