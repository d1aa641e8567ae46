//! The program that runs another one many times.

use std::path::Path;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};

const RUNS: usize = 7;

/// Programs that measure, loaded.
pub struct Wrapper {
    ebpf: Ebpf,
}

impl Wrapper {
    pub fn load(object: &Path) -> anyhow::Result<Self> {
        let mut ebpf =
            Ebpf::load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
        for name in ["bench", "base_tx", "base_ipip", "base_pass"] {
            let xdp: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            xdp.load()?;
        }
        Ok(Self { ebpf })
    }

    /// A floor: `base_tx`, `base_ipip` or `base_pass`.
    pub fn base(&self, name: &str) -> anyhow::Result<ProgramFd> {
        let xdp: &Xdp = self.ebpf.program(name).context("no such floor")?.try_into()?;
        Ok(xdp.fd()?.try_clone()?)
    }

    /// Nanoseconds per run of `target`, which must always say `verdict`. `vary` is the offset of the word of the source
    /// address that changes, and which of its bits do.
    pub fn measure(
        &mut self,
        target: &ProgramFd,
        frame: &[u8],
        vary: [u32; 2],
        verdict: u32,
        runs: u32,
    ) -> anyhow::Result<f64> {
        let mut targets = ProgramArray::try_from(self.ebpf.map_mut("TARGET").context("TARGET")?)?;
        targets.set(0, target, 0).context("cannot be called by the program that measures")?;
        let mut restored: Array<_, [u32; 20]> =
            Array::try_from(self.ebpf.map_mut("FRAME").context("FRAME")?)?;
        restored.set(0, as_restored(frame, vary)?, 0)?;
        self.reset()?;
        let xdp: &Xdp = self.ebpf.program("bench").context("bench")?.try_into()?;
        let mut out = vec![0; frame.len() + 64];
        let ran = xdp.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: runs,
            ..TestRunOptions::new()
        })?;
        self.check(verdict, u64::from(runs))?;
        // The kernel gives the mean of one run and drops what is behind the point, half a nanosecond in the mean.
        Ok(ran.duration.as_nanos() as f64 + 0.5)
    }

    fn reset(&mut self) -> anyhow::Result<()> {
        let mut verdicts: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map_mut("VERDICTS").context("VERDICTS")?)?;
        // The runs go on, so that whoever varies comes to all clients.
        for index in 0..RUNS as u32 {
            let cpus = verdicts.get(&index, 0)?.len();
            verdicts.set(index, PerCpuValues::try_from(vec![0; cpus])?, 0)?;
        }
        Ok(())
    }

    /// A run with another verdict was measured on another way through the program.
    fn check(&self, verdict: u32, runs: u64) -> anyhow::Result<()> {
        let verdicts: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map("VERDICTS").context("VERDICTS")?)?;
        let count = |index| verdicts.get(&index, 0).map(|v| v.iter().sum::<u64>());
        let counts = (0..RUNS as u32).map(count).collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(
            counts.get(verdict as usize) == Some(&runs),
            "not every one of {runs} runs had verdict {verdict}: {counts:?}"
        );
        Ok(())
    }
}

/// What is restored for each run, as the program that measures has it: the first bytes in three words, half a word and
/// words again; the length; where the source address is, what it is, and which of its bits vary.
fn as_restored(frame: &[u8], [source, vary]: [u32; 2]) -> anyhow::Result<[u32; 20]> {
    let word = |at: usize| -> anyhow::Result<[u8; 4]> {
        let bytes = frame.get(at..at + 4).context("the frame is too short to be restored")?;
        Ok(bytes.try_into()?)
    };
    let mut restored = [0; 20];
    for (index, to) in restored.iter_mut().take(16).enumerate() {
        let at = index * 4 - if index > 3 { 2 } else { 0 };
        *to = u32::from_ne_bytes(word(at)?);
    }
    let base = u32::from_be_bytes(word(source as usize)?);
    restored[16..].copy_from_slice(&[frame.len() as u32, source, base, vary]);
    Ok(restored)
}
