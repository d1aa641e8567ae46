//! `--config FILE`: TOML with the names of the flags as keys. Every mistake is reported with its place.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::settings::{KEYS, Settings};
use super::{Config, Invalid};

/// A mistake in a file: `sticky.toml:3:1: unknown key …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    pub path: PathBuf,
    /// Line and column, both from 1.
    pub place: Option<(usize, usize)>,
    pub problem: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// A file of settings.
#[derive(Debug, Default)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    settings: Settings,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Every mistake in it, or the one reason why it cannot be read.
    pub fn read(path: &Path) -> Result<Self, Vec<FileError>> {
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        match fs::read_to_string(path) {
            Ok(text) => file.text = text,
            Err(e) => {
                return Err(vec![file.error(None, format!("cannot be read: {e}; check the path"))]);
            }
        }
        match parse(&file.text) {
            Ok(settings) => file.settings = settings,
            Err(errors) => {
                return Err(errors.into_iter().map(|(at, e)| file.error(Some(at), e)).collect());
            }
        }
        Ok(file)
    }

    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.clone()
    }

    /// The mistake at the place of its key, if this file makes it.
    #[must_use]
    pub fn blame(&self, invalid: &Invalid) -> Option<FileError> {
        let table = DeTable::parse(&self.text).ok()?.into_inner();
        let key = table.keys().find(|key| key.get_ref().replace('_', "-") == invalid.key)?;
        let own = Config::new(self.settings()).err()?;
        own.contains(invalid).then(|| self.error(Some(key.span().start), invalid.to_string()))
    }

    fn error(&self, offset: Option<usize>, problem: String) -> FileError {
        FileError {
            path: self.path.clone(),
            place: offset.map(|offset| place(&self.text, offset)),
            problem,
        }
    }
}

/// The settings, or each mistake with its offset in the text.
pub(super) fn parse(text: &str) -> Result<Settings, Vec<(usize, String)>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<_> =
        errors.into_iter().map(|e| (start(e.span()), e.message().to_owned())).collect();
    let whole = table.span();
    let mut settings = Settings::default();
    // One key at a time, so that one mistake does not hide the next.
    for (key, value) in table.into_inner() {
        let at = key.span();
        if !KEYS.contains(&key.get_ref().replace('_', "-").as_str()) {
            errors.push((at.start, unknown(key.get_ref())));
            continue;
        }
        let name = key.get_ref().clone();
        let single = Spanned::new(whole.clone(), DeTable::from_iter([(key, value)]));
        match Settings::deserialize(Deserializer::from(single)) {
            Ok(one) => settings = settings.or(one),
            Err(e) => errors.push((
                e.span().map_or(at.start, |span| span.start),
                format!("{name}: {}", e.message()),
            )),
        }
    }
    errors.sort();
    if errors.is_empty() { Ok(settings) } else { Err(errors) }
}

fn start(span: Option<std::ops::Range<usize>>) -> usize {
    span.map_or(0, |span| span.start)
}

fn unknown(key: &str) -> String {
    let nearest = KEYS.iter().min_by_key(|known| strsim::damerau_levenshtein(key, known));
    match nearest.filter(|known| strsim::damerau_levenshtein(key, known) <= 3) {
        Some(known) => format!("unknown key `{key}`; did you mean `{known}`?"),
        None => {
            format!("unknown key `{key}`; keys are the flags of `sticky run` without their dashes")
        }
    }
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}
