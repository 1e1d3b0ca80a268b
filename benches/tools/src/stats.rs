//! Medians and percentiles of samples.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Latencies of one run, in the order they were taken.
#[derive(Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The usual figures in microseconds. Without samples there are no figures, because a zero would look fast.
    pub fn summary(&self) -> Map<String, Value> {
        let mut sorted: Vec<f64> = self.0.iter().map(|d| d.as_secs_f64() * 1e6).collect();
        sorted.sort_by(f64::total_cmp);
        let mut figures = Map::new();
        if sorted.is_empty() {
            return figures;
        }
        for (name, fraction) in [
            ("p50_us", 0.50),
            ("p95_us", 0.95),
            ("p99_us", 0.99),
            ("max_us", 1.0),
        ] {
            figures.insert(
                name.to_owned(),
                json!(round2(percentile(&sorted, fraction))),
            );
        }
        figures
    }
}

/// The value below which `fraction` of the sorted samples lie (nearest rank).
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let rank = (sorted.len() as f64 * fraction).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The middle sample, or the mean of the two in the middle; `None` for no samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Two decimals: the noise of a shared machine is larger than that.
pub fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::{median, percentile};

    #[test]
    fn median_of_an_even_count_is_the_mean_of_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn percentiles_are_samples_that_were_taken() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&sorted, 0.5), 2.0);
        assert_eq!(percentile(&sorted, 0.95), 4.0);
        assert_eq!(percentile(&sorted, 1.0), 4.0);
    }
}
