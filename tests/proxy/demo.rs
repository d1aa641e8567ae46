//! The demo application in a process of its own: to be killed as processes are, and to hold many connections.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use sticky::model::{self, State};
use sticky_tests::demo::demo_binary;
use sticky_tests::process::Process;

use crate::backend::Backend;
use crate::proxy::task;

pub struct Demo {
    pub process: Process,
    pub addr: SocketAddr,
}

impl Demo {
    pub fn start() -> Self {
        let mut command = Command::new(demo_binary().unwrap());
        command.env("LISTEN", "127.0.0.1:0").env("INSTANCE", "demo");
        let mut process = Process::spawn("sticky-demo", &command).unwrap();
        let line =
            process.wait_line(Duration::from_secs(10), 0, |line| line.contains("listens on"));
        let addr = line.unwrap().text.rsplit(' ').next().unwrap().parse().unwrap();
        Self { process, addr }
    }

    /// As a backend; what does not matter is as `other` has it.
    pub fn task(&self, other: &Backend) -> model::Backend {
        model::Backend {
            id: "id-demo".to_owned(),
            name: "demo".to_owned(),
            addr: Some(self.addr),
            ..task(other, State::Up)
        }
    }
}
