//! What was measured on: the header of every report.

use procfs::prelude::*;
use procfs::{CpuInfo, LoadAverage, Meminfo};
use serde_json::{Value, json};

/// The machine, as far as it matters for speed.
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_gb: u64,
    kernel: String,
    /// Tasks that wanted a CPU in the minute before the run.
    load: f32,
}

impl Machine {
    pub fn here() -> anyhow::Result<Self> {
        let cpus = CpuInfo::current()?;
        Ok(Self {
            cpu: cpus.model_name(0).unwrap_or("unknown").to_owned(),
            cores: cpus.num_cores(),
            memory_gb: Meminfo::current()?.mem_total >> 30,
            kernel: procfs::sys::kernel::Version::current()
                .map(|version| format!("{}.{}.{}", version.major, version.minor, version.patch))?,
            load: LoadAverage::current()?.one,
        })
    }

    pub fn line(&self) -> String {
        let Self { cpu, cores, memory_gb, kernel, load } = self;
        format!(
            "{cores} cores of {cpu}, {memory_gb} GB, Linux {kernel}, load {load:.1} before the run"
        )
    }

    pub fn json(&self) -> Value {
        let Self { cpu, cores, memory_gb, kernel, load } = self;
        json!({ "cpu": cpu, "cores": cores, "memory_gb": memory_gb, "linux": kernel, "load": load })
    }
}
