//! The documentation's `curl` command, and what it shows.

use crate::command::both;
use crate::netns::Netns;

/// Runs `curl -vs OPTIONS -H "Host: demo.local" http://127.0.0.1/ping` in a namespace and returns all that it prints.
pub fn ping(netns: &Netns, options: &[&str]) -> anyhow::Result<String> {
    get(netns, "demo.local", "/ping", options)
}

/// Like [`ping`], for any host and path.
pub fn get(netns: &Netns, host: &str, path: &str, options: &[&str]) -> anyhow::Result<String> {
    let mut curl = netns.command("curl");
    curl.args(["-vs", "--max-time", "10"]).args(options);
    curl.args(["-H", &format!("Host: {host}"), &format!("http://127.0.0.1{path}")]);
    both(&mut curl)
}

/// A header of the answer in what `curl -v` printed.
pub fn header<'a>(printed: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = printed.lines().filter_map(|line| line.strip_prefix("< ")?.split_once(':'));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// What `curl -vs` printed without its remarks about the connection.
pub fn essence(printed: &str) -> String {
    let noise = |line: &&str| !line.starts_with(['*', '}', '{']) || line.starts_with("{\"");
    printed.lines().filter(noise).map(|line| format!("{line}\n")).collect()
}
