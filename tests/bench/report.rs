//! What every benchmark leaves: tables on the terminal, the same as JSON, and a plot of each table as SVG.

mod plot;
mod samples;

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

pub use self::samples::{Samples, quantile};
use crate::machine::Machine;

/// What one benchmark found.
pub struct Report {
    /// `l4`, for the names of the files.
    pub name: &'static str,
    /// Versions and conditions, a line each.
    pub notes: Vec<String>,
    pub tables: Vec<Table>,
}

/// Things that are compared.
pub struct Table {
    /// For the names of the files, unique in its report.
    pub name: String,
    pub title: String,
    pub unit: &'static str,
    /// The row that ratios are to, by its index.
    pub base: Option<usize>,
    pub rows: Vec<Row>,
}

/// One of them.
pub struct Row {
    pub name: String,
    /// One for each round; the rounds of a table's rows are the same ones.
    pub samples: Samples,
    /// The base as it was measured beside this one, where once a round is too seldom.
    pub beside: Option<Samples>,
}

impl Row {
    pub fn new(name: impl Into<String>, samples: Vec<f64>) -> Self {
        Self { name: name.into(), samples: Samples::new(samples), beside: None }
    }
}

impl Table {
    /// The ratio of a row to the base: the median of the rounds' ratios, since what slows one down slows both.
    fn ratio(&self, row: &Row) -> Option<f64> {
        let base = self.rows.get(self.base?)?;
        Some(row.samples.ratio(row.beside.as_ref().unwrap_or(&base.samples)))
    }

    fn print(&self) {
        println!("\n{}", self.title);
        let ratio = if self.base.is_some() { "ratio" } else { "" };
        println!("{:<44} {:>10} {ratio:>7} {:>22}", self.unit, "median", "spread");
        for row in &self.rows {
            let Samples { median, low, high, .. } = row.samples;
            let ratio = self.ratio(row).map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let spread = format!("{}-{}", short(low), short(high));
            println!("{:<44} {:>10} {ratio:>7} {spread:>22}", row.name, short(median));
        }
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let Samples { median, low, high, all } = &row.samples;
            json!({
                "case": row.name, "median": median, "low": low, "high": high,
                "ratio": self.ratio(row), "rounds": all,
                "base_beside": row.beside.as_ref().map(|base| &base.all),
            })
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({ "name": self.name, "title": self.title, "unit": self.unit, "rows": rows })
    }
}

impl Report {
    /// Prints the tables, and writes `NAME.json` and a `NAME-TABLE.svg` for each of them.
    pub fn publish(&self, out: &Path, quick: bool) -> anyhow::Result<()> {
        let machine = Machine::here()?;
        let mut notes = self.notes.clone();
        if quick {
            notes.push("short rounds, too few to compare times".to_owned());
        }
        println!("\n{}: {}", self.name, machine.line());
        notes.iter().for_each(|note| println!("  {note}"));
        self.tables.iter().for_each(Table::print);

        fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        let tables: Vec<Value> = self.tables.iter().map(Table::json).collect();
        let all = json!({
            "benchmark": self.name, "quick": quick, "machine": machine.json(), "notes": notes, "tables": tables,
        });
        let file = out.join(format!("{}.json", self.name));
        fs::write(&file, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        for table in &self.tables {
            let file = out.join(format!("{}-{}.svg", self.name, table.name));
            plot::draw(table, &machine.line(), &file)
                .with_context(|| format!("cannot draw {}", file.display()))?;
        }
        println!("\nalso in {}", out.display());
        Ok(())
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
