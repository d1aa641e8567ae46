//! What the lab prints: commands as one would type them, their output, and each check with its result.

use std::io::IsTerminal;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";

/// The printed report, and how many of its checks failed.
#[derive(Debug)]
pub(super) struct Report {
    colour: bool,
    held: usize,
    failed: Vec<String>,
}

impl Report {
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, held: 0, failed: Vec::new() }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Begins a part of the walk-through.
    pub(super) fn title(&self, text: &str) {
        println!("\n{}", self.paint(BOLD, &format!("== {text}")));
    }

    /// Says what is going on.
    pub(super) fn note(&self, text: &str) {
        println!("{}", self.paint(DIM, &format!("   {text}")));
    }

    /// A command, before it is run.
    pub(super) fn command(&self, text: &str) {
        println!("{}", self.paint(BOLD, &format!("$ {text}")));
    }

    /// What a command printed.
    pub(super) fn output(&self, text: &str) {
        text.lines().for_each(|line| println!("  {line}"));
    }

    /// Lines of a log, under a heading.
    pub(super) fn lines<'a>(&self, heading: &str, lines: impl IntoIterator<Item = &'a String>) {
        self.note(&format!("{heading}:"));
        lines.into_iter().for_each(|line| println!("  {}", self.paint(DIM, line)));
    }

    /// A claim, and whether it held.
    pub(super) fn check(&mut self, held: bool, claim: &str) {
        if held {
            self.held += 1;
            println!("{} {claim}", self.paint(GREEN, "✓"));
        } else {
            self.failed.push(claim.to_owned());
            println!("{} {claim}", self.paint(RED, "✗"));
        }
    }

    /// Whether no check has failed.
    pub(super) fn all_held(&self) -> bool {
        self.failed.is_empty()
    }

    /// The result so far.
    pub(super) fn summary(&self) {
        self.title("Result");
        if self.all_held() {
            println!("{}", self.paint(GREEN, &format!("✓ all {} checks held", self.held)));
        } else {
            let all = self.held + self.failed.len();
            println!(
                "{}",
                self.paint(RED, &format!("✗ {} of {all} checks did not hold:", self.failed.len()))
            );
            self.failed.iter().for_each(|claim| println!("  {claim}"));
        }
    }
}
