//! Cargo's companions at pinned versions. One on the PATH is used when it is of the same minor version; otherwise it is
//! built from crates.io into `target/tools`, once.
//!
//! They are built without optimization: that takes half the time, and what they spend their own time on is waiting for
//! the compiler and for tests. Neither has a binary package that is up to date on crates.io, PyPI or npm.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::{Result, cargo, program, root, run};

/// Runs the tests; `.config/nextest.toml` says how.
pub(crate) const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.151",
    // Everything but the self-update.
    features: &["--no-default-features", "--features", "default-no-update"],
};
/// Checks licences, sources and advisories; `deny.toml` says which.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", features: &[] };

/// A program that comes as a crate.
pub(crate) struct Tool {
    /// Of the crate and of the program.
    pub(crate) name: &'static str,
    version: &'static str,
    features: &'static [&'static str],
}

/// A program that is there.
pub(crate) struct Installed(PathBuf);

impl Installed {
    /// The program, ready for its arguments.
    pub(crate) fn command(&self) -> Command {
        program(&self.0)
    }
}

impl Tool {
    /// Finds the program or builds it.
    pub(crate) fn prepare(&self) -> Result<Installed> {
        let folder = root().join("target/tools");
        let own = folder.join("bin").join(format!("{}{}", self.name, std::env::consts::EXE_SUFFIX));
        for candidate in [own.as_path(), Path::new(self.name)] {
            if let Some(found) = version_of(candidate).filter(|found| same_minor(found, self.version)) {
                println!("{} {found}", self.name);
                return Ok(Installed(candidate.to_owned()));
            }
        }
        println!("building {} {}: a minute or two, once", self.name, self.version);
        let build = folder.join("build");
        run(cargo(["install", self.name, "--locked", "--debug", "--version"])
            .arg(format!("={}", self.version))
            .args(self.features)
            .arg("--root")
            .arg(&folder)
            .arg("--target-dir")
            .arg(&build)
            .env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
        // The program is installed; a gigabyte of its parts is of no use, and no harm if it stays.
        std::fs::remove_dir_all(&build).ok();
        Ok(Installed(own))
    }
}

/// The version a program tells, if it is there and runs.
fn version_of(path: &Path) -> Option<String> {
    let output = program(path).arg("--version").output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    said.split_whitespace().nth(1).map(str::to_owned)
}

fn same_minor(found: &str, pinned: &str) -> bool {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(found).is_some() && minor(found) == minor(pinned)
}

#[cfg(test)]
mod tests {
    use super::same_minor;

    #[test]
    fn a_patch_may_differ_and_nothing_else() {
        assert!(same_minor("0.9.143", "0.9.151"));
        assert!(!same_minor("0.10.0", "0.9.151"));
        assert!(!same_minor("1.9.151", "0.9.151"));
        assert!(!same_minor("", ""));
    }
}
