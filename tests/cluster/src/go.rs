use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::files::tail;
use crate::progress::say;
use crate::{Environment, Error, Supervised};

/// The interval of progress messages during a build.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

pub(crate) struct Program {
    pub(crate) name: &'static str,
    package: &'static str,
    /// How long the build takes on two cores with empty caches.
    first_time: &'static str,
}

/// A Go module in this crate's folder. It pins the versions of the programs that are built from it.
pub(crate) struct Module {
    /// The module's folder, in this crate and in the cache.
    pub(crate) name: &'static str,
    go_mod: &'static str,
    /// Other files that affect the built programs.
    others: &'static [&'static str],
    /// The module that the programs take their version from, as go.mod names it.
    main: &'static str,
    /// The variable that the linker sets to that version.
    version_variable: &'static str,
    /// The build tags.
    tags: &'static str,
    /// In build order: later programs reuse packages compiled for earlier ones.
    pub(crate) programs: &'static [Program],
}

pub(crate) const CONTROL_PLANE: Module = Module {
    name: "controlplane",
    go_mod: include_str!("../controlplane/go.mod"),
    others: &[include_str!("../controlplane/go.sum"), include_str!("../controlplane/pause/main.go")],
    main: "k8s.io/kubernetes ",
    version_variable: "k8s.io/component-base/version.gitVersion",
    tags: "",
    programs: &[
        Program { name: "etcd", package: "go.etcd.io/etcd/server/v3", first_time: "1 minute" },
        Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver", first_time: "6 minutes" },
        Program {
            name: "kube-controller-manager",
            package: "k8s.io/kubernetes/cmd/kube-controller-manager",
            first_time: "2 minutes",
        },
        Program { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl", first_time: "1 minute" },
    ],
};

/// The programs that a node runs besides Debian's packages. Built only when a test needs a node.
pub(crate) const NODE: Module = Module {
    programs: &[
        Program { name: "kube-scheduler", package: "k8s.io/kubernetes/cmd/kube-scheduler", first_time: "1 minute" },
        Program { name: "kubelet", package: "k8s.io/kubernetes/cmd/kubelet", first_time: "2 minutes" },
        Program { name: "kube-proxy", package: "k8s.io/kubernetes/cmd/kube-proxy", first_time: "1 minute" },
        Program { name: "pause", package: "./pause", first_time: "1 second" },
    ],
    ..CONTROL_PLANE
};

/// Older control planes, newest first. They run with the etcd and the kubectl of [`CONTROL_PLANE`].
static OLDER: [(&str, Module); 4] = [
    older(
        "1.36",
        "kubernetes/1.36",
        include_str!("../kubernetes/1.36/go.mod"),
        &[include_str!("../kubernetes/1.36/go.sum")],
    ),
    older(
        "1.35",
        "kubernetes/1.35",
        include_str!("../kubernetes/1.35/go.mod"),
        &[include_str!("../kubernetes/1.35/go.sum")],
    ),
    older(
        "1.34",
        "kubernetes/1.34",
        include_str!("../kubernetes/1.34/go.mod"),
        &[include_str!("../kubernetes/1.34/go.sum")],
    ),
    older(
        "1.33",
        "kubernetes/1.33",
        include_str!("../kubernetes/1.33/go.mod"),
        &[include_str!("../kubernetes/1.33/go.sum")],
    ),
];

const fn older(
    version: &'static str,
    name: &'static str,
    go_mod: &'static str,
    others: &'static [&'static str],
) -> (&'static str, Module) {
    let programs = &[
        Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver", first_time: "6 minutes" },
        Program {
            name: "kube-controller-manager",
            package: "k8s.io/kubernetes/cmd/kube-controller-manager",
            first_time: "2 minutes",
        },
    ];
    (version, Module { name, go_mod, others, programs, ..CONTROL_PLANE })
}

/// The module of an older control plane; none for the version of [`CONTROL_PLANE`].
pub(crate) fn older_control_plane(version: &str) -> Result<Option<&'static Module>, Error> {
    let newest = CONTROL_PLANE.version().trim_start_matches('v');
    if newest.strip_prefix(version).is_some_and(|patch| patch.is_empty() || patch.starts_with('.')) {
        return Ok(None);
    }
    let found = OLDER.iter().find(|(minor, _)| *minor == version);
    found.map(|(_, module)| Some(module)).ok_or_else(|| Error::UnknownKubernetes {
        version: version.to_owned(),
        known: OLDER.iter().map(|(minor, _)| *minor).collect(),
        newest,
    })
}

pub(crate) const GITOPS: Module = Module {
    name: "gitops",
    go_mod: include_str!("../gitops/go.mod"),
    others: &[include_str!("../gitops/go.sum"), include_str!("../gitops/health/main.go")],
    main: "helm.sh/helm/v4 ",
    version_variable: "helm.sh/helm/v4/internal/version.version",
    tags: "",
    programs: &[
        Program { name: "helm", package: "helm.sh/helm/v4/cmd/helm", first_time: "3 minutes" },
        Program { name: "helm3", package: "helm.sh/helm/v3/cmd/helm", first_time: "1 minute" },
        Program { name: "health", package: "./health", first_time: "1 minute" },
    ],
};

/// The programs that publish a release.
pub(crate) const RELEASE: Module = Module {
    name: "release",
    go_mod: include_str!("../release/go.mod"),
    others: &[include_str!("../release/go.sum")],
    main: "github.com/sigstore/cosign/v3 ",
    version_variable: "sigs.k8s.io/release-utils/version.gitVersion",
    tags: "",
    programs: &[
        Program { name: "crane", package: "github.com/google/go-containerregistry/cmd/crane", first_time: "1 minute" },
        Program { name: "cosign", package: "github.com/sigstore/cosign/v3/cmd/cosign", first_time: "3 minutes" },
    ],
};

/// The program that checks workflows of GitHub.
pub(crate) const LINT: Module = Module {
    programs: &[Program {
        name: "actionlint",
        package: "github.com/rhysd/actionlint/cmd/actionlint",
        first_time: "1 minute",
    }],
    ..RELEASE
};

/// The program that checks metrics and alerts.
pub(crate) const PROMETHEUS: Module = Module {
    name: "prometheus",
    go_mod: include_str!("../prometheus/go.mod"),
    others: &[include_str!("../prometheus/go.sum")],
    main: "github.com/prometheus/prometheus ",
    version_variable: "github.com/prometheus/common/version.Version",
    // Without the clients of all clouds, in which Prometheus finds targets.
    tags: "remove_all_sd",
    programs: &[Program {
        name: "promtool",
        package: "github.com/prometheus/prometheus/cmd/promtool",
        first_time: "3 minutes",
    }],
};

impl Module {
    /// A folder name for the built programs. The name changes with every input of the build.
    pub(crate) fn key(&self) -> String {
        // FNV-1a, because the hashes of `std` may change with the compiler.
        let hash = [self.go_mod, self.tags]
            .into_iter()
            .chain(self.others.iter().copied())
            .flat_map(str::bytes)
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        format!("{}-{os}-{arch}-{hash:016x}", self.version())
    }

    fn version(&self) -> &'static str {
        self.go_mod_value(self.main)
    }

    fn go_mod_value(&self, prefix: &str) -> &'static str {
        let mut lines = self.go_mod.lines();
        lines
            .find_map(|line| line.trim().trim_start_matches("require ").strip_prefix(prefix))
            .expect("go.mod is checked in with this line")
    }
}

/// A Go installation that is new enough.
pub(crate) struct Go {
    path: OsString,
    module: &'static Module,
}

impl Go {
    pub(crate) fn find(environment: &Environment, module: &'static Module) -> Result<Self, Error> {
        let go = Self { path: environment.path.clone().unwrap_or_default(), module };
        let needed = module.go_mod_value("go ");
        let output = match go.command().args(["env", "GOVERSION"]).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::GoMissing { needed: needed.to_owned() });
            }
            result => result.map_err(Error::io("run `go env GOVERSION`"))?,
        };
        if !output.status.success() {
            return Err(Error::GoBroken { output: String::from_utf8_lossy(&output.stderr).into_owned() });
        }
        let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if release(&found) < release(needed) {
            return Err(Error::GoTooOld { found, needed: needed.to_owned() });
        }
        Ok(go)
    }

    /// Builds one program into `folder`. The program appears there only when it is complete.
    pub(crate) fn build(&self, index: usize, program: &Program, folder: &Path) -> Result<(), Error> {
        let Program { name, package, first_time } = *program;
        let partial = folder.join(format!("{name}.partial"));
        let log = folder.join(format!("{name}.log"));
        // An interrupted build may have left a log.
        let _ = fs::remove_file(&log);

        let mut command = self.command();
        command
            .args(["build", "-trimpath", "-ldflags"])
            .arg(format!("-s -w -X {}={}", self.module.version_variable, self.module.version()))
            .arg("-o")
            .arg(&partial)
            .arg(package);
        say(&format!(
            "building {name} ({} of {}), about {first_time} the first time",
            index + 1,
            self.module.programs.len()
        ));
        let start = Instant::now();
        let run = |error| Error::io(format!("run `go build` for {name}"))(error);
        let mut build = Supervised::spawn(&command, &log).map_err(run)?;
        let status = loop {
            if let Some(status) = build.wait_exit(SIGN_OF_LIFE).map_err(run)? {
                break status;
            }
            say(&format!("still building {name}, {} s so far", start.elapsed().as_secs()));
        };
        if !status.success() {
            let output = tail(&log);
            let full = output.contains("no space left on device") || is_full(&log);
            return Err(if full {
                Error::NoSpace { program: name, cache: folder.to_owned() }
            } else {
                Error::Build { program: name, output }
            });
        }
        let target = folder.join(name);
        fs::rename(&partial, &target).map_err(Error::io(format!("create {}", target.display())))?;
        let _ = fs::remove_file(&log);
        say(&format!("built {name} in {} s", start.elapsed().as_secs()));
        Ok(())
    }

    /// `go` in the module's folder. Overrides settings that would change the build.
    fn command(&self) -> Command {
        let mut command = Command::new("go");
        command
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(self.module.name))
            .env("PATH", &self.path)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", format!("-mod=readonly -buildvcs=false -tags={}", self.module.tags))
            .env("GOWORK", "off")
            .env_remove("GOOS")
            .env_remove("GOARCH");
        command
    }
}

/// Whether the disk has no room even for the log, so that the log cannot mention it.
fn is_full(log: &Path) -> bool {
    fs::write(log, [b'\n'; 1 << 16])
        .is_err_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Parses `go1.26.8`, `1.26.0`, `devel go1.27-0c1d2e3` and so on into numbers that can be compared.
fn release(version: &str) -> Vec<u32> {
    let start = version.rfind("go").map_or(0, |at| at + "go".len());
    version[start..]
        .split('.')
        .map_while(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_releases_are_compared_as_numbers() {
        assert_eq!(release("go1.26.8"), [1, 26, 8]);
        assert_eq!(release("devel go1.27-0c1d2e3 Mon"), [1, 27]);
        assert_eq!(release("go1.27rc1"), [1, 27]);
        assert!(release("go1.9.7") < release("1.26.0"));
        assert!(release("go1.100") > release("1.26.0"));
    }

    #[test]
    fn the_folder_is_named_after_the_version_of_what_is_in_it() {
        for (module, major) in [(&CONTROL_PLANE, "v1."), (&GITOPS, "v4."), (&RELEASE, "v3."), (&PROMETHEUS, "v0.")] {
            assert!(module.key().starts_with(major), "{}", module.key());
        }
        for (version, module) in &OLDER {
            assert!(module.key().starts_with(&format!("v{version}.")), "{}", module.key());
        }
    }

    #[test]
    fn a_control_plane_is_chosen_by_its_minor_version_and_others_are_refused_with_those_there_are() {
        let name = |version| older_control_plane(version).unwrap().map(|module| module.name);
        assert_eq!((name("1.33"), name("1.37"), name("1.37.2")), (Some("kubernetes/1.33"), None, None));
        for unknown in ["1.3", "1.32", "1.33.13", "new"] {
            let said = older_control_plane(unknown).err().unwrap().to_string();
            assert!(said.contains(unknown) && said.contains("1.36, 1.35, 1.34, 1.33"), "{said}");
        }
    }
}
