//! The table on the terminal, and the same as JSON.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::case::Results;

/// Prints the results and writes them to `l4.json`.
pub fn write(results: &Results, out: &Path) -> anyhow::Result<()> {
    let floor = results.cases.first().map_or(f64::NAN, |(_, times)| median(times));
    println!("{:<34} {:>8} {:>7} {:>16}", "ns per packet", "median", "ratio", "spread");
    let mut cases = Vec::new();
    for (name, times) in &results.cases {
        let middle = median(times);
        let (low, high) = spread(times);
        println!("{name:<34} {middle:>8.0} {:>7.2} {low:>8.0}-{high:<7.0}", middle / floor);
        cases.push(json!({ "case": name, "ns": middle, "ratio": middle / floor, "low": low, "high": high }));
    }
    println!();
    let mut verified = serde_json::Map::new();
    for (name, instructions) in &results.verified {
        println!("{name:<34} {instructions:>8} instructions walked by the verifier");
        verified.insert((*name).to_owned(), json!(instructions));
    }
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let file = out.join("l4.json");
    let text = serde_json::to_string_pretty(&json!({ "cases": cases, "verified": verified }))?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The quarter and the three quarters.
fn spread(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |part: usize| sorted.get(sorted.len() * part / 4).copied().unwrap_or(f64::NAN);
    (at(1), at(3).max(at(1)))
}
