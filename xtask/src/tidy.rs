//! `cargo xtask tidy`: who may import what, checked rather than hoped for.

mod rules;
mod source;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::progress::say;
use crate::workspace::root;
use source::Source;

/// One broken rule, printed as `file:line: rule`.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// Checks every source file of the workspace.
pub(crate) fn run() -> Result<()> {
    let mut files = Vec::new();
    collect(root(), &mut files)?;
    files.sort();
    let mut violations = Vec::new();
    for name in &files {
        let text = fs::read_to_string(root().join(name))
            .with_context(|| format!("{name} cannot be read"))?;
        violations.extend(check(name, &text));
    }
    for violation in &violations {
        println!("{violation}");
    }
    if !violations.is_empty() {
        bail!("tidy: {} broken rules in {} files, listed above", violations.len(), files.len());
    }
    say(&format!("tidy: {} files keep the rules", files.len()));
    Ok(())
}

/// Source files below `dir`, as paths from the workspace's directory. Build output and what
/// begins with a dot, git's files above all, is not ours to check.
fn collect(dir: &Path, files: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be read", dir.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if [".rs", ".toml", ".md"].iter().any(|end| name.ends_with(end)) {
            let inside = path.strip_prefix(root()).context("a file outside of the workspace")?;
            files.push(inside.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// The rules that `text`, the file `name`, breaks.
fn check(name: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report =
        |line: usize, rule: String| found.push(Violation { file: name.to_owned(), line, rule });
    for (word, rule) in rules::anywhere() {
        for (number, _) in text.lines().enumerate().filter(|(_, line)| line.contains(&word)) {
            report(number + 1, rule.to_owned());
        }
    }
    if name.ends_with("Cargo.toml") {
        for (number, _) in
            text.lines().enumerate().filter(|(_, line)| line.starts_with("sticky-ebpf"))
        {
            report(number + 1, "nobody depends on sticky-ebpf: its object is embedded".to_owned());
        }
    }
    if name.ends_with(".rs") {
        let lines = text.lines().count();
        if lines > rules::MAX_LINES {
            report(lines, format!("a file has at most {} lines: split it", rules::MAX_LINES));
        }
        let source = Source::new(text);
        for (line, attribute) in source.lines_with("#[allow(").chain(source.lines_with("#![allow("))
        {
            report(line, format!("{attribute}: use #[expect(.., reason = \"..\")]"));
        }
        if !rules::is_in(name, rules::UNSAFE_IN) {
            source
                .words("unsafe")
                .for_each(|line| report(line, "unsafe is not for this file".to_owned()));
        }
        if !rules::is_test(name) {
            imports(name, &source, &mut report);
        }
    }
    found.sort_by_key(|violation| violation.line);
    found.dedup();
    found
}

fn imports(name: &str, source: &Source, report: &mut impl FnMut(usize, String)) {
    for path in source.paths() {
        for rule in rules::CONFINED.iter().filter(|rule| rule.krate == path.first) {
            if !rules::is_in(name, rule.to) {
                report(path.line, format!("{} belongs to {}", rule.krate, rule.to.join(", ")));
            }
        }
        for rule in rules::MODULES.iter().filter(|rule| rules::is_in(name, rule.files)) {
            if path.is_ours() && rule.never.contains(&path.second.as_str()) {
                report(path.line, format!("{} does not know {}", rule.files[0], path.second));
            }
        }
        for rule in rules::ONLY.iter().filter(|rule| rules::is_in(name, rule.files)) {
            if path.in_use && !rule.crates.contains(&path.first.as_str()) {
                report(
                    path.line,
                    format!("{} imports only {}", rule.files[0], rule.crates.join(", ")),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(name: &str, text: &str) -> Vec<String> {
        check(name, text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_tree_is_tidy() {
        run().expect("every rule is kept");
    }

    #[test]
    fn the_proxy_does_not_know_the_swarm() {
        let found = rules_of(
            "sticky-user/src/proxy/route.rs",
            "//! Doc.\nuse crate::{model, swarm::Task};\n",
        );
        assert_eq!(
            found,
            ["sticky-user/src/proxy/route.rs:2: sticky-user/src/proxy does not know swarm"]
        );
    }

    #[test]
    fn a_crate_stays_where_it_belongs() {
        assert_eq!(rules_of("sticky-user/src/control.rs", "use aya::Ebpf;").len(), 1);
        assert!(rules_of("sticky-user/src/datapath/load.rs", "use aya::Ebpf;").is_empty());
        assert!(
            rules_of("sticky-user/src/control.rs", "// aya::Ebpf\nlet x = \"aya::Ebpf\";")
                .is_empty()
        );
    }

    #[test]
    fn the_model_is_plain_data() {
        assert_eq!(
            rules_of("sticky-user/src/model.rs", "use std::fmt;\nuse anyhow::Result;").len(),
            1
        );
        let tests =
            "use ipnet::IpNet;\n#[cfg(test)]\nmod tests {\n    use proptest::prelude::*;\n}";
        assert!(rules_of("sticky-user/src/model.rs", tests).is_empty());
    }

    #[test]
    fn unsafe_and_allow_are_found_with_their_line() {
        let text = format!(
            "fn f() {{\n    {} {{}}\n}}\n{}dead_code)]\nfn g() {{}}\n",
            "unsafe", "#[allow("
        );
        let lines: Vec<usize> =
            check("sticky-user/src/run.rs", &text).iter().map(|v| v.line).collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn a_file_may_not_grow_for_ever() {
        let text = "\n".repeat(rules::MAX_LINES + 1);
        assert_eq!(rules_of("xtask/src/long.rs", &text).len(), 1);
    }

    #[test]
    fn nobody_links_the_kernel_half() {
        assert_eq!(
            rules_of("tests/Cargo.toml", "[dependencies]\nsticky-ebpf.workspace = true").len(),
            1
        );
    }
}
