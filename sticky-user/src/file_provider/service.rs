//! One `[[service]]`. Every mistake in it is found, not only the first.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::document::start;
use super::reader::{Reader, text};
use crate::labels::{self, Instance};
use crate::model::{LabelError, Service, ServiceConfig};

/// A service as it is written, and where.
pub(super) struct Read {
    /// Its place among the services of the file, from 1.
    number: usize,
    pub(super) service: Service,
    pub(super) places: Places,
    /// Whether it can be served; else it is empty but for its errors.
    pub(super) usable: bool,
    /// Whether it is for this instance at all.
    pub(super) ours: bool,
}

impl Read {
    /// Its name belongs to an earlier one: it is left out under a name of its own.
    pub(super) fn twice(&mut self) {
        let name = std::mem::take(&mut self.service.name);
        let own_name = format!("{name} (number {})", self.number);
        let mut errors = std::mem::take(&mut self.service.errors);
        errors.push(LabelError {
            label: "name".to_owned(),
            value: name,
            message: "is the name of an earlier service".to_owned(),
            hint: "give each service its own name".to_owned(),
        });
        self.service = left_out(own_name, errors);
        self.usable = false;
    }
}

/// Where each part of a service is in the file.
pub(super) struct Places {
    pub(super) service: usize,
    pub(super) parts: Vec<(String, String, usize)>,
}

impl Places {
    /// The place of what an error is about: the very value, or else its key, or else the service.
    pub(super) fn of(&self, error: &LabelError) -> usize {
        let key = |exact: bool| {
            let mut parts = self.parts.iter();
            parts.find(|(label, value, _)| {
                *label == error.label && (!exact || *value == error.value)
            })
        };
        key(true).or_else(|| key(false)).map_or(self.service, |(_, _, offset)| *offset)
    }
}

pub(super) fn read(number: usize, table: &Spanned<DeValue<'_>>, instance: &Instance) -> Read {
    let mut reader = Reader {
        places: Places { service: start(table), parts: Vec::new() },
        errors: Vec::new(),
        name: None,
        publish: Vec::new(),
        backends: Vec::new(),
        labels: BTreeMap::new(),
    };
    match table.get_ref() {
        DeValue::Table(table) => reader.table(table),
        other => reader.wrong(
            "service",
            start(table),
            &text(other),
            "is not a table",
            "write [[service]]",
        ),
    }
    reader.finish(number, instance)
}

impl Reader {
    fn finish(mut self, number: usize, instance: &Instance) -> Read {
        if self.name.is_none() && !self.errors.iter().any(|error| error.label == "name") {
            self.wrong("name", self.places.service, "", "is missing", "write `name = \"demo\"`");
        }
        let name = self.name.unwrap_or_else(|| format!("number {number}"));
        let ours = instance.serves(&self.labels);
        let labels::Reading { config, errors } = labels::read(&self.labels, instance);
        let config = config.filter(|_| self.errors.is_empty());
        self.errors.extend(errors);
        let Some(config) = config else {
            let service = left_out(name, self.errors);
            return Read { number, service, places: self.places, usable: false, ours };
        };
        if !config.ip_hash && !self.publish.is_empty() {
            self.errors.push(LabelError {
                label: "publish".to_owned(),
                value: String::new(),
                message: "has no effect without ip_hash".to_owned(),
                hint: "set com.docker.lb.ip_hash=true".to_owned(),
            });
            self.publish.clear();
        }
        self.publish.extend(&config.listen);
        for backend in &mut self.backends {
            backend.name = if backend.id == backend.name {
                backend.id.clone()
            } else {
                format!("{name}.{}", backend.name)
            };
            if let (Some(addr), Some(port)) = (&mut backend.addr, config.port) {
                addr.set_port(port);
            }
        }
        let service = Service {
            id: name.clone(),
            name,
            config,
            publish: self.publish,
            backends: self.backends,
            errors: self.errors,
        };
        Read { number, service, places: self.places, usable: true, ours }
    }
}

/// A service with nothing in it but its errors.
fn left_out(name: String, errors: Vec<LabelError>) -> Service {
    let (config, publish, backends) = (ServiceConfig::default(), Vec::new(), Vec::new());
    Service { id: name.clone(), name, config, publish, backends, errors }
}
