//! From successes and failures to a state.

use crate::model::{Backend, HealthConfig, State};

/// What checks say of a backend whose task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `Starting`, `Up` or `Down`.
    pub(super) state: State,
    pub(super) reason: Option<String>,
}

impl Verdict {
    pub(super) fn starting() -> Self {
        Self { state: State::Starting, reason: Some("has not answered yet".to_owned()) }
    }

    /// What an earlier run of sticky knew.
    pub(super) fn known(backend: &Backend) -> Self {
        match backend.state {
            State::Starting => Self::starting(),
            State::Down => Self { state: State::Down, reason: backend.reason.clone() },
            State::Up | State::Draining(_) => Self { state: State::Up, reason: None },
        }
    }
}

/// Counts what is needed for the next change.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) verdict: Verdict,
    /// Successes of one that is down, failures of one that is up, in a row.
    in_a_row: u32,
}

impl Judge {
    pub(super) fn new(verdict: Verdict) -> Self {
        Self { verdict, in_a_row: 0 }
    }

    /// Takes the outcome of a check; whether the verdict, or the reason for it, is another now.
    pub(super) fn see(&mut self, outcome: Result<(), String>, config: &HealthConfig) -> bool {
        let (state, reason) = match (self.verdict.state, outcome) {
            // A first success is enough.
            (State::Starting, Ok(())) => (State::Up, None),
            (State::Starting, Err(error)) => {
                (State::Starting, Some(format!("has not answered yet: {error}")))
            }
            (State::Down, Ok(())) => {
                self.in_a_row += 1;
                if self.in_a_row < config.rise {
                    return false;
                }
                (State::Up, None)
            }
            (State::Down, Err(error)) => {
                self.in_a_row = 0;
                (State::Down, Some(error))
            }
            (_, Ok(())) => {
                self.in_a_row = 0;
                return false;
            }
            (_, Err(error)) => {
                self.in_a_row += 1;
                if self.in_a_row < config.fall {
                    return false;
                }
                (State::Down, Some(error))
            }
        };
        let verdict = Verdict { state, reason };
        if verdict.state != self.verdict.state {
            self.in_a_row = 0;
        }
        let changed = verdict != self.verdict;
        self.verdict = verdict;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(from: State, outcomes: &[bool]) -> Vec<State> {
        let config = HealthConfig { rise: 2, fall: 3, ..HealthConfig::default() };
        let mut judge = Judge::new(Verdict { state: from, reason: None });
        let mut see = |ok: &bool| {
            judge.see(if *ok { Ok(()) } else { Err("refused".to_owned()) }, &config);
            judge.verdict.state
        };
        outcomes.iter().map(&mut see).collect()
    }

    #[test]
    fn a_starting_one_is_up_at_its_first_success() {
        use State::{Starting, Up};
        assert_eq!(states(Starting, &[false, false, true, false]), [Starting, Starting, Up, Up]);
    }

    #[test]
    fn rise_and_fall_count_in_a_row() {
        use State::{Down, Up};
        assert_eq!(
            states(Up, &[false, false, true, false, false, false]),
            [Up, Up, Up, Up, Up, Down]
        );
        assert_eq!(states(Down, &[true, false, true, true, false]), [Down, Down, Down, Up, Up]);
    }

    #[test]
    fn only_a_change_is_told() {
        let config = HealthConfig::default();
        let mut judge = Judge::new(Verdict::starting());
        let refused = || Err("refused".to_owned());
        assert!(judge.see(refused(), &config));
        assert!(!judge.see(refused(), &config));
        assert!(judge.see(Ok(()), &config));
        assert!(!judge.see(Ok(()), &config));
    }
}
