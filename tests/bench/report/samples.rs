//! Many measurements of one thing.

/// One measurement of each round, and what they say together.
pub struct Samples {
    pub median: f64,
    /// The lower and the upper quartile: the spread.
    pub low: f64,
    pub high: f64,
    /// In the order of the rounds.
    pub all: Vec<f64>,
}

impl Samples {
    pub fn new(all: Vec<f64>) -> Self {
        Self {
            median: quantile(&all, 0.5),
            low: quantile(&all, 0.25),
            high: quantile(&all, 0.75),
            all,
        }
    }

    /// The median of the ratios to `base`, round by round.
    pub fn ratio(&self, base: &Self) -> f64 {
        let ratios: Vec<f64> = self.all.iter().zip(&base.all).map(|(a, b)| a / b).collect();
        quantile(&ratios, 0.5)
    }
}

/// The value that `part` of all are not above (nearest rank); NaN if there is none.
pub fn quantile(all: &[f64], part: f64) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
