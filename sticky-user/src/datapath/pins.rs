//! Where programs, links and maps are pinned: `PIN_DIR/v1/maps/NAME`, `PIN_DIR/v1/links/NAME`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::Pod;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use sticky_common::ABI_VERSION;

use super::Error;
use super::sys::{self, Map, links};

const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The pin directory of this version's layouts.
#[derive(Clone, Debug)]
pub struct Pins {
    maps: PathBuf,
    links: PathBuf,
}

impl Pins {
    /// Makes the directories, and mounts the BPF file system if it is missing.
    pub fn create(pin_dir: &Path) -> Result<Self, Error> {
        mount_bpffs(pin_dir)?;
        let root = pin_dir.join(format!("v{ABI_VERSION}"));
        let pins = Self { maps: root.join("maps"), links: root.join("links") };
        for dir in [&pins.maps, &pins.links] {
            fs::create_dir_all(dir).map_err(|e| match e.kind() {
                io::ErrorKind::PermissionDenied => Error::NotPermitted {
                    capability: "CAP_BPF",
                    what: format!("create {}", dir.display()),
                },
                _ => Error::failed(format!("cannot create {}", dir.display()), e),
            })?;
        }
        Ok(pins)
    }

    /// What another process pinned.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let root = pin_dir.join(format!("v{ABI_VERSION}"));
        let pins = Self { maps: root.join("maps"), links: root.join("links") };
        if pins.maps.exists() {
            return Ok(pins);
        }
        match fs::read_dir(pin_dir) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Error::NotPermitted {
                capability: "CAP_DAC_READ_SEARCH",
                what: format!("read {}", pin_dir.display()),
            }),
            _ => Err(Error::NotLoaded(pin_dir.to_owned())),
        }
    }

    /// Opens a pinned map.
    pub fn open_map<K: Pod, V: Pod>(&self, name: &str) -> Result<Map<K, V>, Error> {
        match sys::get(&self.map(name)) {
            Ok(fd) => Ok(Map::new(fd)),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Error::NotPermitted {
                capability: "CAP_BPF",
                what: format!("open {}", self.map(name).display()),
            }),
            Err(e) => Err(Error::failed(format!("cannot open {}", self.map(name).display()), e)),
        }
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    pub fn link(&self, name: &str) -> PathBuf {
        self.links.join(name)
    }

    /// Names of all pinned links.
    pub fn links(&self) -> Vec<String> {
        names(&self.links)
    }

    /// Names of all pinned maps.
    pub fn maps(&self) -> Vec<String> {
        names(&self.maps)
    }
}

/// Names of what is in a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()
}

fn mount_bpffs(pin_dir: &Path) -> Result<(), Error> {
    let nearest = pin_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let is_bpffs = |path: &Path| statfs(path).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs(nearest) {
        return Ok(());
    }
    if !pin_dir.starts_with(BPFFS) {
        return Err(Error::failed(
            format!("{} is not in a BPF file system", pin_dir.display()),
            format!("choose a --pin-dir below {BPFFS}, or mount one there (mount -t bpf bpf DIR)"),
        ));
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|e| match e {
        nix::Error::EPERM => Error::NotPermitted {
            capability: "CAP_SYS_ADMIN",
            what: format!("mount the BPF file system on {BPFFS}"),
        },
        e => Error::failed(format!("cannot mount the BPF file system on {BPFFS}"), e),
    })
}

/// Removes everything below a pin directory, of any version; returns how many objects it was.
///
/// The links of all versions first, those of XDP before all others: a choice that nobody delivers would fall through to
/// the host. Without links no packet reaches the maps.
pub fn remove_all(pin_dir: &Path) -> Result<usize, Error> {
    let versions: Vec<_> = names(pin_dir).iter().map(|version| pin_dir.join(version)).collect();
    let of = |kind: &str| {
        let dirs = versions.iter().map(move |version| version.join(kind));
        dirs.flat_map(|dir| names(&dir).into_iter().map(move |name| dir.join(name)))
            .collect::<Vec<PathBuf>>()
    };
    let mut links = of("links");
    links.sort_by_key(|path| !path.file_name().is_some_and(is_xdp));
    let maps = of("maps");
    for path in &links {
        sys::get(path)
            .and_then(|link| links::detach(link.as_fd()))
            .map_err(|e| Error::failed(format!("cannot detach {}", path.display()), e))?;
    }
    for path in links.iter().chain(&maps) {
        fs::remove_file(path)
            .map_err(|e| Error::failed(format!("cannot remove {}", path.display()), e))?;
    }
    for version in &versions {
        remove_dir(&version.join("links"))?;
        remove_dir(&version.join("maps"))?;
        remove_dir(version)?;
    }
    remove_dir(pin_dir)?;
    Ok(links.len() + maps.len())
}

fn is_xdp(name: &OsStr) -> bool {
    name.to_string_lossy().contains("xdp-")
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::failed(format!("cannot remove {}", dir.display()), e)),
    }
}
