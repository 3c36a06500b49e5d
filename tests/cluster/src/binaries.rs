use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::go::{CONTROL_PLANE, GITOPS, Go, LINT, Module, NODE, PROMETHEUS, RELEASE, older_control_plane};
use crate::progress::say;
use crate::{Environment, Error};

/// The programs of a control plane.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager. Without it, nothing is garbage-collected by owner reference, and a deleted namespace
    /// stays `Terminating`.
    pub kube_controller_manager: Option<PathBuf>,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// The programs in `KUBEBUILDER_ASSETS`. By default, those in the user's cache folder, where missing programs are
    /// built first; the API server and its controllers have the version in `KUBERNETES_VERSION`, or the newest.
    ///
    /// Several processes may call this at once: one builds, and the others wait.
    pub fn find_or_build(environment: &Environment) -> Result<Self, Error> {
        match (&environment.assets, &environment.kubernetes) {
            (Some(_), Some(version)) => Err(Error::VersionOfAssets { version: version.clone() }),
            (Some(folder), None) => Self::from_assets(folder),
            (None, version) => Self::from_cache(environment, version.as_deref()),
        }
    }

    /// Like [`find_or_build`](Self::find_or_build), but for a [node](crate::Node): its pods come from Deployments, so
    /// kube-controller-manager must not be missing. All programs are of the newest version: no kubelet may be newer than
    /// its API server.
    pub fn find_or_build_for_node(environment: &Environment) -> Result<Self, Error> {
        let binaries = Self::find_or_build(&Environment { kubernetes: None, ..environment.clone() })?;
        match &environment.assets {
            Some(folder) if binaries.kube_controller_manager.is_none() => {
                Err(Error::ControllerManagerMissing { folder: folder.clone() })
            }
            _ => Ok(binaries),
        }
    }

    fn from_assets(folder: &Path) -> Result<Self, Error> {
        static WARNING: Once = Once::new();
        let binaries = Self::in_folder(folder);
        for (program, file) in
            [("etcd", &binaries.etcd), ("kube-apiserver", &binaries.kube_apiserver), ("kubectl", &binaries.kubectl)]
        {
            if !file.is_file() {
                return Err(Error::AssetMissing { folder: folder.to_owned(), program });
            }
        }
        let kube_controller_manager = binaries.kube_controller_manager.filter(|file| file.is_file());
        if kube_controller_manager.is_none() {
            WARNING.call_once(|| {
                say("KUBEBUILDER_ASSETS has no kube-controller-manager: nothing is garbage-collected by owner \
                     reference, and deleted namespaces stay Terminating");
            });
        }
        Ok(Self { kube_controller_manager, ..binaries })
    }

    fn from_cache(environment: &Environment, version: Option<&str>) -> Result<Self, Error> {
        let older = version.map(older_control_plane).transpose()?.flatten();
        let newest = Self::in_folder(&built(&CONTROL_PLANE, environment)?);
        let Some(module) = older else { return Ok(newest) };
        let Self { kube_apiserver, kube_controller_manager, .. } = Self::in_folder(&built(module, environment)?);
        Ok(Self { kube_apiserver, kube_controller_manager, ..newest })
    }

    fn in_folder(folder: &Path) -> Self {
        Self {
            etcd: folder.join("etcd"),
            kube_apiserver: folder.join("kube-apiserver"),
            kube_controller_manager: Some(folder.join("kube-controller-manager")),
            kubectl: folder.join("kubectl"),
        }
    }
}

/// Programs that bring resources from a chart or from Git into a cluster.
#[derive(Debug, Clone)]
pub struct GitOps {
    /// Helm.
    pub helm: PathBuf,
    /// The major version of Helm before it.
    pub helm3: PathBuf,
    /// Shows how GitOps tools judge a resource: see `gitops/health/main.go`.
    pub health: PathBuf,
}

impl GitOps {
    /// The programs in the user's cache folder. Missing programs are built first.
    pub fn find_or_build(environment: &Environment) -> Result<Self, Error> {
        let folder = built(&GITOPS, environment)?;
        Ok(Self { helm: folder.join("helm"), helm3: folder.join("helm3"), health: folder.join("health") })
    }
}

/// Programs that turn a machine into a node.
#[derive(Debug, Clone)]
pub struct NodeBinaries {
    /// kube-scheduler.
    pub kube_scheduler: PathBuf,
    /// kubelet.
    pub kubelet: PathBuf,
    /// kube-proxy.
    pub kube_proxy: PathBuf,
    /// A static program that does nothing, for the pause image.
    pub pause: PathBuf,
}

impl NodeBinaries {
    /// The programs in the user's cache folder. Missing programs are built first.
    pub fn find_or_build(environment: &Environment) -> Result<Self, Error> {
        let folder = built(&NODE, environment)?;
        Ok(Self {
            kube_scheduler: folder.join("kube-scheduler"),
            kubelet: folder.join("kubelet"),
            kube_proxy: folder.join("kube-proxy"),
            pause: folder.join("pause"),
        })
    }
}

/// Programs that publish a release.
#[derive(Debug, Clone)]
pub struct ReleaseTools {
    /// crane: pushes images, and is a registry.
    pub crane: PathBuf,
    /// cosign: signs what is in a registry, and verifies it.
    pub cosign: PathBuf,
}

impl ReleaseTools {
    /// The programs in the user's cache folder. Missing programs are built first.
    pub fn find_or_build(environment: &Environment) -> Result<Self, Error> {
        let folder = built(&RELEASE, environment)?;
        Ok(Self { crane: folder.join("crane"), cosign: folder.join("cosign") })
    }
}

/// actionlint, which checks workflows of GitHub. It is in the user's cache folder, and is built first if it is missing.
pub fn find_or_build_actionlint(environment: &Environment) -> Result<PathBuf, Error> {
    Ok(built(&LINT, environment)?.join("actionlint"))
}

/// promtool, which checks metrics and alerts. It is in the user's cache folder, and is built first if it is missing.
pub fn find_or_build_promtool(environment: &Environment) -> Result<PathBuf, Error> {
    Ok(built(&PROMETHEUS, environment)?.join("promtool"))
}

/// The folder with all programs of the module. Missing programs are built first.
fn built(module: &'static Module, environment: &Environment) -> Result<PathBuf, Error> {
    let cache = environment.cache.as_ref().ok_or(Error::NoCacheFolder)?;
    let folder = cache.join("mistral-workflows-operator").join(module.name).join(module.key());
    let missing = || module.programs.iter().enumerate().filter(|(_, program)| !folder.join(program.name).is_file());
    if missing().next().is_some() {
        fs::create_dir_all(&folder).map_err(Error::io(format!("create {}", folder.display())))?;
        let _lock = lock(&folder.join("lock"))?;
        // Checked again: another process may have built the programs while this one waited.
        if missing().next().is_some() {
            let go = Go::find(environment, module)?;
            for (index, program) in missing() {
                go.build(index, program, &folder)?;
            }
        }
    }
    Ok(folder)
}

/// Takes the lock. Closing the file releases it, also when the process dies.
fn lock(path: &Path) -> Result<File, Error> {
    let action = format!("lock {}", path.display());
    let file = File::create(path).map_err(Error::io(&action))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say("another process is building the same programs, waiting for it");
            file.lock().map_err(Error::io(&action))?;
        }
        Err(TryLockError::Error(error)) => return Err(Error::io(&action)(error)),
    }
    Ok(file)
}
