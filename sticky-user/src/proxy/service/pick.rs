//! Which backend a new client gets.

use super::{Backend, Service};
use crate::model::{DrainMode, State};
use crate::proxy::random::Random;

impl Service {
    /// Whether there is a backend for a new client besides those that this request failed at.
    pub(in crate::proxy) fn takes_new(&self, failed: &[u64]) -> bool {
        self.takers.iter().any(|(_, at)| self.is_open(*at, failed))
    }

    /// Whether another backend than this one would do for its clients.
    pub(in crate::proxy) fn has_other(&self, than: usize, failed: &[u64], now_ms: u64) -> bool {
        let mut others = self.takers.iter().filter(|(_, at)| *at != than);
        others.any(|(_, at)| self.is_open(*at, failed) && !self.ejected(*at, now_ms))
    }

    fn is_open(&self, at: usize, failed: &[u64]) -> bool {
        self.backends.get(at).is_some_and(|backend| !failed.contains(&backend.pool))
    }

    /// Of two backends drawn by weight, the one with fewer requests in progress; `None` if all are full.
    pub(in crate::proxy) fn better_of_two(
        &self,
        random: &Random,
        failed: &[u64],
        now_ms: u64,
    ) -> Option<usize> {
        self.better_of(random, now_ms, |at| self.is_open(at, failed) && !self.full(at))
    }

    /// The same for a client that has just lost its backend: where an update is under way, one that will not be replaced
    /// next, so that the client moves once and not with every step.
    pub(in crate::proxy) fn lasting(
        &self,
        random: &Random,
        failed: &[u64],
        now_ms: u64,
    ) -> Option<usize> {
        let stays = |at: usize| self.backends.get(at).is_some_and(|backend| !backend.outgoing);
        let open = |at: usize| {
            stays(at) && self.is_open(at, failed) && !self.full(at) && !self.ejected(at, now_ms)
        };
        self.better_of(random, now_ms, open).or_else(|| self.better_of_two(random, failed, now_ms))
    }

    /// Whether the clients of a backend that an update ends had better stay with it for the moment that its successor
    /// takes to answer: whoever else takes clients will be replaced next, and they would move twice.
    pub(in crate::proxy) fn awaits_successor(&self, at: usize) -> bool {
        let ending = |backend: &Backend| {
            backend.outgoing && backend.state == State::Draining(DrainMode::Connections)
        };
        let lasts = |backend: &Backend| !backend.outgoing;
        self.backends.get(at).is_some_and(ending)
            && self
                .backends
                .iter()
                .any(|backend| lasts(backend) && backend.state == State::Starting)
            && !self.backends.iter().any(|backend| lasts(backend) && backend.state.takes_new())
    }

    fn better_of(
        &self,
        random: &Random,
        now_ms: u64,
        open: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if let &[(_, only)] = self.takers.as_slice() {
            return Some(only).filter(|at| open(*at));
        }
        let fit = |at: usize| open(at) && !self.ejected(at, now_ms);
        let warm = |at: usize| fit(at) && self.warm(at, random, now_ms);
        let first = self
            .draw(random, None, warm)
            .or_else(|| self.draw(random, None, fit))
            // Ejection and warming up never leave nobody.
            .or_else(|| self.draw(random, None, &open))?;
        let Some(second) = self.draw(random, Some(first), warm) else { return Some(first) };
        Some(if self.load(second) < self.load(first) { second } else { first })
    }

    /// One by weight among those that fit.
    fn draw(
        &self,
        random: &Random,
        other_than: Option<usize>,
        fit: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let fits = |at: usize| Some(at) != other_than && fit(at);
        let total = self.takers.last()?.0;
        // Nearly always the first draw fits.
        for _ in 0..2 {
            let at = self.at_weight(random.below(total))?;
            if fits(at) {
                return Some(at);
            }
        }
        let mut before = 0;
        let fitting: Vec<(u32, usize)> = self
            .takers
            .iter()
            .filter_map(|&(sum, at)| {
                let weight = sum - before;
                before = sum;
                fits(at).then_some((weight, at))
            })
            .collect();
        let mut rest = random.below(fitting.iter().map(|(weight, _)| weight).sum());
        for (weight, at) in fitting {
            if rest < weight {
                return Some(at);
            }
            rest -= weight;
        }
        None
    }

    fn at_weight(&self, draw: u32) -> Option<usize> {
        let at = self.takers.partition_point(|(sum, _)| *sum <= draw);
        self.takers.get(at).map(|(_, at)| *at)
    }

    /// The same backend for the same hash while the same ones fit: for who belongs to one that is out for a moment.
    pub(in crate::proxy) fn stand_in(
        &self,
        hash: u64,
        failed: &[u64],
        now_ms: u64,
    ) -> Option<usize> {
        let fit: Vec<usize> = self
            .takers
            .iter()
            .map(|(_, at)| *at)
            .filter(|at| self.is_open(*at, failed) && !self.ejected(*at, now_ms) && !self.full(*at))
            .collect();
        let count = u32::try_from(fit.len()).ok()?;
        fit.get(sticky_common::hash::slot(hash, count) as usize).copied()
    }

    /// Owner of a value among the backends that take new clients, and the value's hash.
    pub(in crate::proxy) fn owner(&self, value: &[u8]) -> Option<(u64, usize)> {
        let (hash, at) = self.owners.as_ref()?.owner(value);
        Some((hash, at?))
    }
}
