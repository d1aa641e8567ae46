//! Labels as a user writes them: `name=value` lines. What is not taken is reported, and reading is a function.

use std::collections::BTreeMap;

use sticky::labels::{Instance, read};

/// Reads `data` as the labels of one service.
pub fn labels(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let labels: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let reading = read(&labels, &Instance::default());
    assert!(reading.config.is_some() || !reading.errors.is_empty(), "refused without a word");
    for error in &reading.errors {
        assert!(!error.message.is_empty() && !error.hint.is_empty(), "{error:?}");
    }
    assert_eq!(reading, read(&labels, &Instance::default()));
}
