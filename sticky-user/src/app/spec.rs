//! The specification of a service, of which labels and replicas are changed and the rest is kept as the bytes that came:
//! what this program does not know of must not be lost.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

const LABELS: &str = "Labels";
const MODE: &str = "Mode";

/// A service as `GET /services/NAME` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) version: Version,
    pub(super) spec: Spec,
}

/// Names the state that a change is made to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) index: u64,
}

/// The parts of a specification, each as it came.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Spec(BTreeMap<String, Box<RawValue>>);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Mode {
    pub(super) replicated: Option<Replicated>,
    pub(super) global: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Replicated {
    pub(super) replicas: Option<u64>,
}

/// What to change; what is not named stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Labels with their new values, `None`: taken away.
    pub labels: Vec<(&'static str, Option<String>)>,
    pub replicas: Option<u64>,
}

/// What an edit did.
#[derive(Debug)]
pub(super) struct Edited {
    pub(super) labels: Vec<(String, Option<String>)>,
    pub(super) replicas: Option<u64>,
    /// All labels that there are now.
    pub(super) after: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) enum Mistake {
    /// It has no replicas to set.
    Global,
    Unreadable(serde_json::Error),
}

impl From<serde_json::Error> for Mistake {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl Spec {
    pub(super) fn labels(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let labels: Option<_> = self.part(LABELS)?;
        Ok(labels.unwrap_or_default())
    }

    pub(super) fn edit(&mut self, change: &Change) -> Result<Edited, Mistake> {
        let mut labels = self.labels()?;
        let mut edited = Vec::new();
        for (label, value) in &change.labels {
            let before = match value {
                Some(value) => labels.insert((*label).to_owned(), value.clone()),
                None => labels.remove(*label),
            };
            if before != *value {
                edited.push(((*label).to_owned(), value.clone()));
            }
        }
        if !edited.is_empty() {
            self.0.insert(LABELS.to_owned(), to_raw_value(&labels)?);
        }
        let mode: Mode = self.part(MODE)?.unwrap_or_default();
        let is = mode.replicated.map(|replicated| replicated.replicas.unwrap_or(1));
        let replicas = match (change.replicas, is) {
            (Some(_), None) => return Err(Mistake::Global),
            (wanted, is) => wanted.filter(|wanted| Some(*wanted) != is),
        };
        if let Some(replicas) = replicas {
            let mode = serde_json::json!({ "Replicated": { "Replicas": replicas } });
            self.0.insert(MODE.to_owned(), to_raw_value(&mode)?);
        }
        Ok(Edited { labels: edited, replicas, after: labels })
    }

    pub(super) fn to_json(&self) -> String {
        let parts = self.0.iter().map(|(name, value)| format!("\"{name}\":{}", value.get()));
        format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
    }

    fn part<T: for<'de> Deserialize<'de>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, serde_json::Error> {
        match self.0.get(name) {
            Some(value) => serde_json::from_str(value.get()),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an engine might send it that is newer than this program, numbers at the edge of their types.
    const ODD: &str = r#"{"ID":"x","Version":{"Index":18446744073709551615},"Spec":{"Name":"demo","Labels":{"z":"1","a":"<&>"},
        "Mode":{"Replicated":{"Replicas":3,"NotYetInvented":true}},"Invented": {"Later" :[1.50, 1e3, 18446744073709551615]},
        "TaskTemplate":{"ContainerSpec":{"Image":"x@sha256:1","Ulimits":null,"Env":["A=é\u0001"]},"ForceUpdate":0}}}"#;

    #[test]
    fn what_is_not_changed_goes_back_byte_for_byte() {
        let mut service: Inspected = serde_json::from_str(ODD).unwrap();
        let change = Change {
            labels: vec![("com.docker.lb.ip_hash", Some("true".to_owned())), ("z", None)],
            replicas: None,
        };
        let edited = service.spec.edit(&change).unwrap();
        assert_eq!(edited.labels.len(), 2);
        let sent = service.spec.to_json();
        for part in [
            r#""Mode":{"Replicated":{"Replicas":3,"NotYetInvented":true}}"#,
            r#""Invented":{"Later" :[1.50, 1e3, 18446744073709551615]}"#,
            r#""TaskTemplate":{"ContainerSpec":{"Image":"x@sha256:1","Ulimits":null,"Env":["A=é\u0001"]},"ForceUpdate":0}"#,
            r#""Labels":{"a":"<&>","com.docker.lb.ip_hash":"true"}"#,
            r#""Name":"demo""#,
        ] {
            assert!(sent.contains(part), "{part} is not in {sent}");
        }
        let before: serde_json::Value = serde_json::from_str(ODD).unwrap();
        let mut after: serde_json::Value = serde_json::from_str(&sent).unwrap();
        after["Labels"] = before["Spec"]["Labels"].clone();
        assert_eq!(after, before["Spec"]);
    }

    #[test]
    fn what_is_so_already_is_no_change() {
        let mut service: Inspected = serde_json::from_str(ODD).unwrap();
        let change = Change {
            labels: vec![("z", Some("1".to_owned())), ("com.docker.lb.ip_hash", None)],
            replicas: Some(3),
        };
        let edited = service.spec.edit(&change).unwrap();
        assert!(edited.labels.is_empty() && edited.replicas.is_none(), "{edited:?}");
    }

    #[test]
    fn only_what_has_replicas_gets_another_number() {
        let change = Change { labels: Vec::new(), replicas: Some(7) };
        let spec =
            |mode: &str| -> Spec { serde_json::from_str(&format!("{{\"Mode\":{mode}}}")).unwrap() };
        let mut replicated = spec(r#"{"Replicated":{"Replicas":3}}"#);
        assert_eq!(replicated.edit(&change).unwrap().replicas, Some(7));
        assert_eq!(replicated.to_json(), r#"{"Mode":{"Replicated":{"Replicas":7}}}"#);
        for mode in [r#"{"Global":{}}"#, r#"{"ReplicatedJob":{"MaxConcurrent":1}}"#] {
            assert!(matches!(spec(mode).edit(&change), Err(Mistake::Global)), "{mode}");
        }
    }
}
