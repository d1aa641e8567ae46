//! The rules, as data. A path that ends in no `.rs` means the module and everything below it.

/// Longest source file.
pub(super) const MAX_LINES: usize = 400;

/// A crate that only some files use.
pub(super) struct Confined {
    pub(super) krate: &'static str,
    pub(super) to: &'static [&'static str],
}

/// Modules of ours that some files do not know.
pub(super) struct Modules {
    pub(super) files: &'static [&'static str],
    pub(super) never: &'static [&'static str],
}

/// Files that import these crates and no others.
pub(super) struct Only {
    pub(super) files: &'static [&'static str],
    pub(super) crates: &'static [&'static str],
}

const HTTP: &[&str] = &[
    "sticky-user/src/proxy",
    "sticky-user/src/admin",
    "sticky-user/src/socket",
    "sticky-user/src/health",
    "sticky-user/src/docker",
    "tests",
];

/// Upgrading one of these crates is a change to one module.
pub(super) const CONFINED: &[Confined] = &[
    Confined {
        krate: "aya",
        to: &[
            "sticky-user/src/datapath",
            "sticky-user/src/telemetry",
            "sticky-common/src/types",
            "tests",
        ],
    },
    Confined { krate: "aya_log", to: &["sticky-user/src/datapath", "sticky-user/src/telemetry"] },
    Confined { krate: "bollard", to: &["sticky-user/src/swarm", "sticky-user/src/docker"] },
    Confined { krate: "netlink_packet_netfilter", to: &["sticky-user/src/relay"] },
    Confined { krate: "aya_obj", to: &["sticky-user/src/datapath"] },
    Confined { krate: "hyper", to: HTTP },
    Confined { krate: "hyper_util", to: HTTP },
];

/// Who does not know whom. `run.rs` ties everything together, so it alone is in no list.
pub(super) const MODULES: &[Modules] = &[
    Modules {
        files: &["sticky-user/src/model"],
        never: &[
            "admin",
            "cli",
            "clients",
            "config",
            "control",
            "datapath",
            "file_provider",
            "health",
            "labels",
            "metrics",
            "proxy",
            "run",
            "socket",
            "state",
            "status",
            "swarm",
            "telemetry",
            "where_",
        ],
    },
    Modules {
        files: &["sticky-user/src/proxy"],
        never: &[
            "swarm",
            "control",
            "datapath",
            "file_provider",
            "health",
            "labels",
            "run",
            "cli",
            "admin",
        ],
    },
    Modules {
        files: &[
            "sticky-user/src/swarm",
            "sticky-user/src/file_provider",
            "sticky-user/src/labels",
        ],
        never: &["control", "datapath", "proxy", "run", "cli", "admin"],
    },
    Modules {
        files: &["sticky-user/src/health"],
        never: &["swarm", "control", "datapath", "proxy", "run", "cli", "admin"],
    },
    Modules {
        files: &["sticky-user/src/control"],
        never: &["swarm", "datapath", "file_provider", "health", "proxy", "run", "cli", "admin"],
    },
    Modules {
        files: &["sticky-user/src/relay"],
        never: &["swarm", "datapath", "file_provider", "health", "labels", "run", "cli", "admin"],
    },
    Modules {
        files: &["sticky-user/src/datapath"],
        never: &["swarm", "file_provider", "health", "labels", "proxy", "run", "cli", "admin"],
    },
];

/// What is plain data stays plain data.
pub(super) const ONLY: &[Only] = &[
    Only {
        files: &["sticky-user/src/model"],
        crates: &["std", "core", "crate", "self", "super", "serde", "ipnet", "sticky_common"],
    },
    Only { files: &["sticky-common/src"], crates: &["core", "crate", "self", "super", "aya"] },
];

/// Where `unsafe` has a reason: packet memory, marking map types as plain data, and what the
/// data path asks of the kernel.
pub(super) const UNSAFE_IN: &[&str] =
    &["sticky-ebpf", "sticky-common/src/types", "sticky-user/src/datapath"];

/// Words that no file has, and why.
pub(super) fn anywhere() -> [(String, &'static str); 1] {
    // Put together here, or this file would break the rule.
    [(["/work", "/"].concat(), "a path of one machine")]
}

/// Whether the file `name` belongs to one of `places`.
pub(super) fn is_in(name: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        name.strip_prefix(place)
            .is_some_and(|rest| rest == ".rs" || rest.starts_with('/') || rest.is_empty())
    })
}

/// Whether the whole file is test code, which may import what it likes.
pub(super) fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_module_with_its_children() {
        let places = &["sticky-user/src/swarm"];
        assert!(is_in("sticky-user/src/swarm.rs", places));
        assert!(is_in("sticky-user/src/swarm/tasks.rs", places));
        assert!(!is_in("sticky-user/src/swarm_view.rs", places));
    }
}
