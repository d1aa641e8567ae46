//! A data path in a namespace, with plans made by hand.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use aya::maps::Map;
use aya::programs::{Program, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use sticky::control::desired::identity;
use sticky::control::plan::{
    self, Build, DesiredBackend, DesiredService, FrontendKey, Loaded, Plan, Rule, Wanted,
};
use sticky::control::{DataPath as _, Reach, reconcile};
use sticky::datapath::{self, DataPath, OBJECT, Settings, XdpMode};
use sticky::model::{Frontend, IpPrefix, Proto};
use sticky_common::ABI_VERSION;
use sticky_common::hash::{HashKey, Keyed};
use sticky_common::maglev;
use sticky_common::types::Backend;
use sticky_tests::names::{BPF_DIR, unique};
use sticky_tests::netns::Netns;
use tokio::runtime::Runtime;

pub const KEY: HashKey = HashKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };
pub const UP: u32 = Backend::ALIVE | Backend::KEEPS;
pub const TABLE_SIZE: u32 = 16_381;

/// A running data path; detached with the value.
pub struct Rig {
    pub path: DataPath,
    pub pin_dir: PathBuf,
    loaded: Loaded,
    runtime: Runtime,
}

/// A backend of a test: address, flags, weight.
#[derive(Clone, Copy)]
pub struct Spec(pub IpAddr, pub u32, pub u32);

/// What holds for the clients of a test.
pub struct Rules {
    pub ttl: u32,
    pub prefix: IpPrefix,
    pub interval: u32,
    pub verdicts: Vec<Rule>,
}

impl Default for Rules {
    fn default() -> Self {
        let prefix = IpPrefix { v4: 32, v6: 64 };
        Self { ttl: 60, prefix, interval: 0, verdicts: Vec::new() }
    }
}

impl Rig {
    /// Attaches to interfaces of a namespace.
    pub fn start(node: &Netns, interfaces: &[&str], mode: XdpMode) -> anyhow::Result<Self> {
        Self::adopt(node, interfaces, mode, PathBuf::from(BPF_DIR).join(unique()))
    }

    /// The same over the pins of an earlier one.
    pub fn adopt(
        node: &Netns,
        interfaces: &[&str],
        mode: XdpMode,
        pin_dir: PathBuf,
    ) -> anyhow::Result<Self> {
        let settings = Settings {
            pin_dir: pin_dir.clone(),
            interfaces: interfaces.iter().map(|i| (*i).to_owned()).collect(),
            mode,
            table_size: TABLE_SIZE,
            max_clients: 10_000,
            hash_key: KEY,
            log: false,
        };
        node.enter(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let mut path = datapath::start(&settings, runtime.handle()).context("start")?;
            let loaded = path.executor.loaded().context("adopt")?;
            Ok(Self { path, pin_dir, loaded, runtime })
        })?
    }

    /// Makes one service `s` with a TCP frontend say what is given.
    pub fn serve(
        &mut self,
        node: &Netns,
        vip: Ipv4Addr,
        port: u16,
        target: u16,
        backends: &[Spec],
    ) -> anyhow::Result<Plan> {
        let frontend = Frontend { addr: vip.into(), port, proto: Proto::Tcp };
        self.serve_as(node, &[(frontend, target)], Rules::default(), backends)
    }

    /// Makes one service `s` with any frontends and rules say what is given.
    pub fn serve_as(
        &mut self,
        node: &Netns,
        frontends: &[(Frontend, u16)],
        rules: Rules,
        backends: &[Spec],
    ) -> anyhow::Result<Plan> {
        let addrs: Vec<_> = backends.iter().map(|b| b.0).collect();
        let reach = self.reach(node, &addrs)?;
        let Rules { ttl, prefix, interval, verdicts } = rules;
        let wanted = Arc::new(DesiredService {
            identity: identity("s"),
            id: "s".into(),
            ttl,
            prefix,
            interval,
            rules: verdicts,
            backends: backends.iter().map(|b| desired(b, &reach)).collect::<anyhow::Result<_>>()?,
            frontends: frontends
                .iter()
                .map(|(f, target)| (FrontendKey::of(f), target.to_be_bytes()))
                .collect(),
        });
        let build = Build {
            table_size: TABLE_SIZE,
            now: reconcile::now(),
            rekeyed: self.path.executor.rekeyed(),
        };
        let (plan, after) = plan::diff(&self.loaded, Wanted::All(&[wanted]), build)?;
        self.path.executor.apply(&plan, &after)?;
        self.loaded = after;
        Ok(plan)
    }

    /// Looks at the interfaces, and where these addresses are.
    pub fn reach(
        &mut self,
        node: &Netns,
        addrs: &[IpAddr],
    ) -> anyhow::Result<HashMap<IpAddr, Reach>> {
        let executor = &mut self.path.executor;
        Ok(node.enter(|| executor.look().and_then(|_| executor.reach(addrs)))??)
    }
}

fn desired(spec: &Spec, reach: &HashMap<IpAddr, Reach>) -> anyhow::Result<DesiredBackend> {
    let (ifindex, peer) = match reach.get(&spec.0) {
        Some(Reach::Device(ifindex)) => (*ifindex, false),
        Some(Reach::Peer(ifindex)) => (*ifindex, true),
        _ => anyhow::bail!("no way to {}: {reach:?}", spec.0),
    };
    let id = spec.0.to_string();
    let identity = identity(&id);
    let member = maglev::identity(KEY, id.as_bytes());
    let mut backend = DesiredBackend {
        identity,
        id,
        member,
        flags: spec.1,
        weight: spec.2,
        ..DesiredBackend::default()
    };
    backend.reached(spec.0, ifindex, peer);
    Ok(backend)
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = &self.runtime;
        if let Err(e) = datapath::detach(&self.pin_dir) {
            eprintln!("cannot detach: {e}");
        }
    }
}

/// The XDP program over a rig's maps, to be run on frames without an interface.
pub struct Runner {
    ebpf: Ebpf,
    /// Its name.
    xdp: &'static str,
}

/// What the program did to a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// `XDP_PASS` and so on.
    pub verdict: u32,
    /// Without the metadata in front.
    pub frame: Vec<u8>,
    /// The metadata that it left.
    pub handover: Vec<u8>,
}

impl Runner {
    /// Loads the program for native mode beside the attached one.
    pub fn new(rig: &Rig) -> anyhow::Result<Self> {
        Self::of(rig, "sticky_xdp")
    }

    /// The one of this name.
    pub fn of(rig: &Rig, program: &'static str) -> anyhow::Result<Self> {
        let maps = rig.pin_dir.join(format!("v{ABI_VERSION}")).join("maps");
        let mut loader = EbpfLoader::new();
        loader.override_global("TABLE_SIZE", &TABLE_SIZE, true).override_global(
            "AYA_LOG_LEVEL",
            &0u8,
            false,
        );
        let hash = KEY.keyed().words();
        for (name, word) in Keyed::GLOBALS.into_iter().zip(&hash) {
            loader.override_global(name, word, true);
        }
        for pin in std::fs::read_dir(&maps)? {
            let pin = pin?;
            let name = pin.file_name().into_string().map_err(|n| anyhow::anyhow!("pin {n:?}"))?;
            let name: &'static str = name.split('-').next().unwrap_or_default().to_owned().leak();
            loader.map_pin_path(name, pin.path());
        }
        let mut ebpf = loader.load(OBJECT)?;
        let xdp: &mut Xdp = ebpf.program_mut(program).context(program)?.try_into()?;
        xdp.load()?;
        Ok(Self { ebpf, xdp: program })
    }

    /// One of the programs; only that for XDP is loaded.
    pub fn program(&mut self, name: &str) -> &mut Program {
        self.ebpf.program_mut(name).expect("the object is built with this program")
    }

    /// One of the maps.
    pub fn map(&mut self, name: &str) -> &mut Map {
        self.ebpf.map_mut(name).expect("the object is built with this map")
    }

    /// Runs it once on a frame that came in by an interface of this namespace, which then goes on as the program says.
    pub fn run_live(&self, frame: &[u8], ifindex: u32) -> anyhow::Result<()> {
        let xdp: &Xdp = self.ebpf.program(self.xdp).context(self.xdp)?.try_into()?;
        let context: Vec<u8> = [0, frame.len() as u32, 0, ifindex, 0, 0]
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect();
        xdp.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }

    /// Runs it once.
    pub fn run(&self, frame: &[u8]) -> anyhow::Result<Ran> {
        let xdp: &Xdp = self.ebpf.program(self.xdp).context(self.xdp)?.try_into()?;
        let mut out = vec![0; frame.len() + 64];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let mut context = Vec::new();
        for word in [0, frame.len() as u32, 0, 0, 0, 0] {
            context.extend(word.to_ne_bytes());
        }
        let mut context_out = [0; 24];
        let result = xdp.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::new()
        })?;
        let data = u32::from_ne_bytes(context_out[..4].try_into()?) as usize;
        out.truncate(result.data_size_out as usize);
        let frame = out.split_off(data);
        Ok(Ran { verdict: result.return_value, frame, handover: out })
    }
}
