//! The demo application as a container image, packed without a daemon or a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::workspace::{cargo, target};

/// The name under which `docker load` files the image.
pub(crate) const TAG: &str = "sticky-demo:latest";

/// The demo application in the two forms that the lab and the tests use.
pub(crate) struct Demo {
    /// The static program, for namespaces.
    pub(crate) program: PathBuf,
    /// The image, for `docker load`.
    pub(crate) image: PathBuf,
}

/// Builds the demo application and packs it, unless the image is newer than the program.
pub(crate) fn build() -> Result<Demo> {
    let program = build_static()?;
    let image = target("sticky-demo.tar");
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if time(&image) <= time(&program) {
        pack(&program, &image)?;
    }
    Ok(Demo { program, image })
}

/// `FROM scratch` has no libraries, so the C library goes into the program. `--target` keeps the
/// flag away from build scripts and macros, which cannot be static.
fn build_static() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let dir = target("demo");
    let mut build = cargo(["build", "--release", "--package", "sticky-demo", "--target", &triple]);
    build
        .env("CARGO_TARGET_DIR", &dir)
        // Saves a third of the build; nobody measures the demo.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols");
    progress::run_open("building the demo application (static)", &mut build)?;
    Ok(dir.join(triple).join("release/sticky-demo"))
}

/// Writes the archive that `docker save` would: one layer with one file, the image's
/// configuration, and a manifest that names both. The same program gives the same image id.
fn pack(program: &Path, image: &Path) -> Result<()> {
    let dir = target("sticky-demo.image");
    // What an interrupted run left would end up in the image.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("root")).context("target cannot be written")?;
    fs::copy(program, dir.join("root/sticky-demo"))
        .context("the demo application cannot be copied")?;
    tar(&dir.join("layer.tar"), &dir.join("root"), &["sticky-demo"])?;
    let layer = sha256(&dir.join("layer.tar"))?;

    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{"Entrypoint":["/sticky-demo"],"ExposedPorts":{{"8080/tcp":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
    );
    fs::write(dir.join("config.json"), config).context("target cannot be written")?;
    let config = format!("{}.json", sha256(&dir.join("config.json"))?);
    fs::rename(dir.join("config.json"), dir.join(&config)).context("target cannot be written")?;
    let manifest =
        format!(r#"[{{"Config":"{config}","RepoTags":["{TAG}"],"Layers":["layer.tar"]}}]"#);
    fs::write(dir.join("manifest.json"), manifest).context("target cannot be written")?;

    // Renamed into place, so that a reader never meets half an image.
    let whole = dir.join("image.tar");
    tar(&whole, &dir, &["manifest.json", &config, "layer.tar"])?;
    fs::rename(&whole, image).with_context(|| format!("{} cannot be written", image.display()))?;
    fs::remove_dir_all(&dir).context("target cannot be cleaned up")
}

fn tar(archive: &Path, dir: &Path, names: &[&str]) -> Result<()> {
    let mut cmd = Command::new("tar");
    cmd.args([
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--mode=0755",
        "--format=ustar",
    ])
    .arg("--create")
    .arg("--file")
    .arg(archive)
    .arg("--directory")
    .arg(dir)
    .args(names);
    let status = cmd.status().context("tar does not start")?;
    if !status.success() {
        bail!("tar ended with {status} while packing {}", archive.display());
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let done = Command::new("sha256sum").arg(file).output().context("sha256sum does not start")?;
    let text = String::from_utf8_lossy(&done.stdout);
    let sum = text.split_whitespace().next().filter(|sum| sum.len() == 64);
    sum.map(str::to_owned).with_context(|| format!("sha256sum says nothing of {}", file.display()))
}
