//! Just enough of Rust's grammar to see what a file imports.

use std::slice::Iter;

/// A source file with comments and literals blanked, and without its test module.
pub(super) struct Source {
    code: String,
    /// Where the test module begins, in bytes of `code`.
    tests: usize,
}

/// The first two names of a path: `crate::swarm::Task` is `crate`, `swarm`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathUse {
    pub(super) line: usize,
    pub(super) first: String,
    /// Empty for a path of one name.
    pub(super) second: String,
    pub(super) in_use: bool,
}

impl PathUse {
    /// Whether the second name is a module of ours.
    pub(super) fn is_ours(&self) -> bool {
        ["crate", "sticky"].contains(&self.first.as_str())
    }
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let code = blank(text);
        let tests = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
        Self { code, tests }
    }

    /// Lines with this text, tests included.
    pub(super) fn lines_with<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = (usize, &'a str)> {
        self.code
            .lines()
            .enumerate()
            .filter(move |(_, l)| l.contains(text))
            .map(move |(n, _)| (n + 1, text))
    }

    /// Lines with this word, tests included.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        tokens(&self.code).filter(move |(_, token)| *token == word).map(|(at, _)| self.line(at))
    }

    /// The paths of each `use`, and those of two names or more elsewhere. A group `a::{b, c::d}`
    /// counts as `a::b` and `a::c`.
    pub(super) fn paths(&self) -> Vec<PathUse> {
        let tokens: Vec<_> = tokens(&self.code[..self.tests]).collect();
        let (mut paths, mut i) = (Vec::new(), 0);
        while let Some(&(at, token)) = tokens.get(i) {
            let next = |n: usize| tokens.get(i + n).map_or("", |t| t.1);
            if token == "use" {
                let end = tokens[i..].iter().position(|t| t.1 == ";");
                let end = end.map_or(tokens.len(), |n| i + n);
                self.members(&mut tokens[i + 1..end].iter(), &[], &mut paths);
                i = end;
            } else if is_name(token) && next(1) == "::" && (i == 0 || tokens[i - 1].1 != "::") {
                paths.push(self.path(&[(at, token), (at, next(2))], false));
                i += 2;
            } else {
                i += 1;
            }
        }
        paths
    }

    /// Reads the members of a group, up to its end, each below the names in `above`.
    fn members<'a>(
        &self,
        tokens: &mut Iter<'_, Token<'a>>,
        above: &[Token<'a>],
        paths: &mut Vec<PathUse>,
    ) {
        let mut names = above.to_vec();
        loop {
            let token = tokens.next().copied();
            match token.map_or("}", |t| t.1) {
                "{" => {
                    self.members(tokens, &names, paths);
                    // Its members are reported, so the group itself is not.
                    names.truncate(0);
                }
                end @ ("," | "}") => {
                    if names.len() > above.len() {
                        paths.push(self.path(&names, true));
                    }
                    names = above.to_vec();
                    if end == "}" {
                        return;
                    }
                }
                "as" => _ = tokens.next(),
                name => names.extend(token.filter(|_| name != "::")),
            }
        }
    }

    fn path(&self, names: &[Token<'_>], in_use: bool) -> PathUse {
        let name = |n: usize| names.get(n).map_or(String::new(), |t| t.1.to_owned());
        let at = names.last().map_or(0, |t| t.0);
        PathUse { line: self.line(at), first: name(0), second: name(1), in_use }
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

type Token<'a> = (usize, &'a str);

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, and single other characters, each with its place.
fn tokens(code: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].find(|c: char| !c.is_whitespace())?;
        let rest = &code[at..];
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match name {
            0 if rest.starts_with("::") => 2,
            0 => rest.chars().next().map_or(1, char::len_utf8),
            _ => name,
        };
        let token = (at, &rest[..length]);
        at += length;
        Some(token)
    })
}

/// The text with every comment and literal replaced by blanks; lines stay where they are.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (length, hidden) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), true),
            '/' if rest.starts_with("/*") => {
                (rest.find("*/").map_or(rest.len(), |end| end + 2), true)
            }
            '"' => (string(rest), true),
            'r' if !out.ends_with(|p: char| p.is_alphanumeric() || p == '_') => {
                match raw_string(rest) {
                    Some(length) => (length, true),
                    None => (1, false),
                }
            }
            '\'' => match character(rest) {
                Some(length) => (length, true),
                None => (1, false),
            },
            _ => (c.len_utf8(), false),
        };
        let (piece, tail) = rest.split_at(length);
        if hidden {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(piece);
        }
        rest = tail;
    }
    out
}

/// Length of the string literal at the beginning of `text`.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string at the beginning of `text`, if there is one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].find(|c| c != '#')?;
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len()))
}

/// Length of the character literal at the beginning of `text`; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, c) = chars.next()?;
    if c == '\\' {
        chars.next();
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        Source::new(text)
            .paths()
            .iter()
            .map(|p| format!("{} {}::{}", p.line, p.first, p.second))
            .collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        let text = "use crate::{a, b::{c, d}, e as f};";
        assert_eq!(paths(text), ["1 crate::a", "1 crate::b", "1 crate::b", "1 crate::e"]);
        assert_eq!(paths("use {\naya::Ebpf,\nserde as s};"), ["2 aya::Ebpf", "3 serde::"]);
        assert_eq!(paths("use ::anyhow;\ncrate::x::y();"), ["1 anyhow::", "2 crate::x"]);
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert!(paths("// a::b\n/* a::b */ \"a::b \\\" a::b\" r#\"a::\"b\"# ").is_empty());
        assert_eq!(paths("let c = '\"'; a::b('\\''); fn f<'a>() {}"), ["1 a::b"]);
    }

    #[test]
    fn test_modules_import_what_they_like() {
        assert!(paths("#[cfg(test)]\nmod tests {\n use x::y;\n}").is_empty());
    }
}
