use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Variables of the process's environment that say where programs are, and where to keep built ones.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `KUBEBUILDER_ASSETS`: a folder with ready programs.
    pub assets: Option<PathBuf>,
    /// `KUBERNETES_VERSION`: an older minor version of the control plane, such as `1.33`.
    pub kubernetes: Option<String>,
    /// The user's cache folder.
    pub cache: Option<PathBuf>,
    /// `PATH`, which is searched for `go`.
    pub path: Option<OsString>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let default_cache = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        Self {
            assets: set("KUBEBUILDER_ASSETS").map(PathBuf::from),
            kubernetes: set("KUBERNETES_VERSION").map(|version| version.to_string_lossy().into_owned()),
            cache: set("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .filter(|folder| folder.is_absolute())
                .or_else(|| env::home_dir().map(|home| home.join(default_cache))),
            path: set("PATH"),
        }
    }
}
