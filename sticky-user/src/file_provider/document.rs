//! A file of services, with the place of everything in it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::service::{self, Read};
use crate::labels::Instance;
use crate::model::{LabelError, Service};
use crate::provider::contest;

/// What is wrong, and where: line and column count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub line: usize,
    pub column: usize,
    /// The service it is in.
    pub service: Option<String>,
    pub error: LabelError,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if let Some(service) = &self.service {
            write!(f, "service {service}: ")?;
        }
        let LabelError { label, value, message, hint } = &self.error;
        if !label.is_empty() {
            write!(f, "{label} ")?;
        }
        if !value.is_empty() {
            write!(f, "`{value}` ")?;
        }
        write!(f, "{message}")?;
        if !hint.is_empty() {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// Every mistake in a file of services, in the order of the file.
#[must_use]
pub fn check(text: &str, instance: &Instance) -> Vec<Mistake> {
    let mut mistakes = match parse(text, instance) {
        Err(mistakes) => mistakes,
        Ok(reads) => {
            let (services, places) = settle(reads, &mut HashMap::new());
            let with_places = services.into_iter().zip(places);
            with_places
                .flat_map(|(service, places)| {
                    let Service { name, errors, .. } = Arc::unwrap_or_clone(service);
                    errors.into_iter().map(move |error| (name.clone(), places.of(&error), error))
                })
                .map(|(name, offset, error)| mistake(text, offset, Some(name), error))
                .collect()
        }
    };
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    mistakes
}

/// The services of a file; one with a mistake keeps its last right form in `good`, or is left out (it is there with its
/// errors, and nothing leads to it).
///
/// # Errors
/// The file as a whole cannot be understood.
pub(super) fn read(
    text: &str,
    instance: &Instance,
    good: &mut HashMap<String, Service>,
) -> Result<Vec<Arc<Service>>, Vec<Mistake>> {
    let mut reads = parse(text, instance)?;
    reads.retain(|read| read.ours);
    let services = settle(reads, good).0;
    let names: HashSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
    good.retain(|name, _| names.contains(name.as_str()));
    Ok(services)
}

fn parse(text: &str, instance: &Instance) -> Result<Vec<Read>, Vec<Mistake>> {
    let whole = |span: Range<usize>, message: String, hint: &str| {
        let error = LabelError {
            label: String::new(),
            value: String::new(),
            message,
            hint: hint.to_owned(),
        };
        mistake(text, span.start, None, error)
    };
    if text.trim().is_empty() {
        // More often a file that is being written than the wish for no service.
        return Err(vec![whole(
            0..0,
            "the file is empty".to_owned(),
            "write a [[service]], or a comment for none",
        )]);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mistakes = errors
            .iter()
            .map(|error| whole(error.span().unwrap_or(0..0), error.message().to_owned(), ""));
        return Err(mistakes.collect());
    }
    let mut mistakes = Vec::new();
    let mut reads = Vec::new();
    for (key, value) in document.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("service", DeValue::Array(services)) => {
                reads.extend(
                    services
                        .iter()
                        .enumerate()
                        .map(|(i, table)| service::read(i + 1, table, instance)),
                );
            }
            ("service", _) => mistakes.push(whole(
                key.span(),
                "`service` is not a list of tables".to_owned(),
                "write [[service]] with two brackets",
            )),
            (other, _) => {
                mistakes.push(whole(
                    key.span(),
                    format!("`{other}` is not known here"),
                    "a file of services has only [[service]]",
                ));
            }
        }
    }
    if mistakes.is_empty() { Ok(reads) } else { Err(mistakes) }
}

/// Names are given once, wrong services keep their last right form, and ports go to the first that wants them.
fn settle(
    reads: Vec<Read>,
    good: &mut HashMap<String, Service>,
) -> (Vec<Arc<Service>>, Vec<service::Places>) {
    let mut names = HashSet::new();
    let (mut services, mut places) = (Vec::new(), Vec::new());
    for mut read in reads {
        if !names.insert(read.service.name.clone()) {
            read.twice();
        }
        let name = read.service.name.clone();
        if read.usable {
            good.insert(name, read.service.clone());
        } else if let Some(last) = good.get(&name) {
            read.service = Service { errors: read.service.errors, ..last.clone() };
        }
        services.push(Arc::new(read.service));
        places.push(read.places);
    }
    contest(&mut services, &HashMap::new());
    (services, places)
}

fn mistake(text: &str, offset: usize, service: Option<String>, error: LabelError) -> Mistake {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Mistake {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        service,
        error,
    }
}

/// The start of something in the file.
pub(super) fn start<T>(spanned: &Spanned<T>) -> usize {
    spanned.span().start
}
