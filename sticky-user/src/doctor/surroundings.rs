//! What else is on this host: Docker, listeners, forwarding and filters.

use std::fs;
use std::process::Command;

use serde::Deserialize;
use tokio::runtime::Runtime;

use super::{Check, Patient};
use crate::config::{Interfaces, ProviderKind};
use crate::docker::client::Docker;
use crate::permissions;

pub fn checks(patient: &Patient<'_>, runtime: &Runtime) -> Vec<Check> {
    let mut checks = ports(patient);
    if !matches!(patient.config.provider, ProviderKind::File(_)) {
        checks.push(runtime.block_on(docker(patient)));
    }
    if patient.config.interfaces != Interfaces::None {
        checks.push(forwarding());
        checks.push(bridges());
        checks.push(raw_rules());
        checks.extend(firewall(patient));
    }
    checks
}

/// Those that `sticky run` would listen on; a running one has them.
fn ports(patient: &Patient<'_>) -> Vec<Check> {
    let config = patient.config;
    let mut checks = Vec::new();
    for (flag, addr) in [("--http", config.http), ("--admin", config.admin)] {
        let Some(addr) = addr else { continue };
        let name = format!("port {flag}");
        checks.push(match permissions::may_listen(flag, addr, patient.running.is_some()) {
            Ok(()) => Check::ok(name, addr.to_string()),
            Err(failure) => {
                Check::fail(name, failure.to_string(), "sticky run would refuse to start")
            }
        });
    }
    if let Some(status) = &patient.running {
        let errors: Vec<_> = status
            .services
            .iter()
            .flat_map(|service| service.errors.iter().map(move |error| (service, error)))
            .filter(|(_, error)| error.label == "publish")
            .map(|(service, error)| {
                let name = format!("frontend of {}", service.name);
                Check::warn(name, error.message.clone(), error.hint.clone())
            })
            .collect();
        let frontends: usize = status.services.iter().map(|service| service.frontends.len()).sum();
        match errors.is_empty() {
            true => {
                checks.push(Check::ok("frontends", format!("{frontends}, none in another's way")))
            }
            false => checks.extend(errors),
        }
    }
    checks
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    server_version: Option<String>,
    swarm: Option<Swarm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Swarm {
    #[serde(default)]
    local_node_state: String,
    #[serde(default)]
    control_available: bool,
}

async fn docker(patient: &Patient<'_>) -> Check {
    let asked = async {
        let docker = Docker::connect(patient.config.docker_host.as_deref()).await?;
        docker.get::<Info>("/info", &[]).await.map(|info| (docker.host(), info))
    };
    match asked.await {
        Err(e) => Check::fail("Docker", e.to_string(), "start it, or name it with --docker-host"),
        Ok((host, info)) => {
            let found = format!("{} on {host}", info.server_version.unwrap_or_default());
            let swarm = patient.config.provider == ProviderKind::Swarm;
            match info.swarm {
                Some(s) if s.local_node_state == "active" && s.control_available => {
                    Check::ok("Docker", format!("{found}, a Swarm manager"))
                }
                Some(s) if swarm && s.local_node_state == "active" => Check::fail(
                    "Docker",
                    format!("{found} is a Swarm worker, and only managers know the services"),
                    "run sticky on a manager",
                ),
                _ if swarm => Check::fail(
                    "Docker",
                    format!("{found} is in no Swarm"),
                    "`docker swarm init`, or another --provider",
                ),
                _ => Check::ok("Docker", found),
            }
        }
    }
}

fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn forwarding() -> Check {
    match sysctl("net.ipv4.ip_forward").as_deref() {
        Some("0") => Check::warn(
            "forwarding",
            "net.ipv4.ip_forward is 0: what sticky hands to containers needs it as any router does",
            "`sysctl net.ipv4.ip_forward=1`, as Docker does",
        ),
        _ => Check::ok("forwarding", "on"),
    }
}

fn bridges() -> Check {
    match sysctl("net.bridge.bridge-nf-call-iptables").as_deref() {
        Some("1") => Check::ok(
            "br_netfilter",
            "bridged packets pass iptables; sticky takes its own at the bridge's ports, before that",
        ),
        Some(_) => Check::ok("br_netfilter", "bridged packets do not pass iptables"),
        None => Check::ok("br_netfilter", "not loaded"),
    }
}

/// Docker's protection of containers against direct access (since Engine 28).
fn raw_rules() -> Check {
    let saved = Command::new("iptables-save").args(["-t", "raw"]).output();
    let drops = saved.ok().filter(|output| output.status.success()).map(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter(|line| line.starts_with("-A PREROUTING") && line.ends_with("-j DROP"))
            .count()
    });
    match drops {
        None => Check::ok("raw rules", "no iptables here"),
        Some(0) => Check::ok("raw rules", "none drops packets to containers"),
        Some(some) => Check::ok(
            "raw rules",
            format!(
                "{some} drop packets sent to containers directly; what sticky delivers comes before them"
            ),
        ),
    }
}

fn firewall(patient: &Patient<'_>) -> Vec<Check> {
    let Some(status) = &patient.running else {
        return vec![Check::ok(
            "firewall",
            "rules are compared with the frontends while sticky runs",
        )];
    };
    if status.firewall.is_empty() {
        return vec![Check::ok("firewall", "no rule of INPUT or DOCKER-USER is for a frontend")];
    }
    let told = status.firewall.iter().map(|rule| {
        Check::warn(
            format!("firewall {}", rule.chain),
            format!(
                "not applied at layer 4 to {} of {}: {}",
                rule.frontend, rule.service, rule.rule
            ),
            format!("label the service {}", rule.instead),
        )
    });
    told.collect()
}
