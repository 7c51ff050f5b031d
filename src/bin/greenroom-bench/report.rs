//! Figures, their baselines and ratios, as a Markdown table and as JSON.

use std::fmt::Write as _;

use serde_json::json;

use crate::{Failure, Name};

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The unit of the figures.
    pub unit: &'static str,
    /// One figure for each run.
    pub runs: Vec<f64>,
    /// What it is compared with, measured between the runs.
    pub baseline: Option<(&'static str, Vec<f64>)>,
}

impl Row {
    /// A row without a baseline.
    pub fn new(what: impl Into<String>, unit: &'static str, runs: Vec<f64>) -> Self {
        Self { what: what.into(), unit, runs, baseline: None }
    }

    /// Adds the baseline.
    pub fn against(mut self, name: &'static str, runs: Vec<f64>) -> Self {
        self.baseline = Some((name, runs));
        self
    }
}

/// All rows, and what could not be measured.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(String, Row)>,
    failures: Vec<String>,
}

impl Report {
    /// Takes the result of one measurement.
    pub fn add(&mut self, name: Name, rows: Result<Vec<Row>, Failure>) {
        let name = format!("{name:?}").to_lowercase();
        match rows {
            Ok(rows) => self.rows.extend(rows.into_iter().map(|row| (name.clone(), row))),
            Err(error) => self.failures.push(format!("{name}: {error}")),
        }
    }

    /// True when something could not be measured.
    pub fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// The table.
    pub fn markdown(&self) -> String {
        let mut out =
            "| what | figure (min / med / max) | baseline (min / med / max) | ratio |\n|---|---|---|---|\n".to_owned();
        for (_, row) in &self.rows {
            let (baseline, ratio) = row.baseline.as_ref().map_or_else(Default::default, |(name, runs)| {
                let ratio = median(&row.runs) / median(runs);
                (format!("{name}: {}", three(runs)), format!("{ratio:.2}"))
            });
            let _ = writeln!(out, "| {} | {} {} | {baseline} | {ratio} |", row.what, three(&row.runs), row.unit);
        }
        for failure in &self.failures {
            let _ = writeln!(out, "\nNot measured: {failure}");
        }
        out
    }

    /// Every run of every row.
    pub fn json(&self) -> String {
        let rows = self.rows.iter().map(|(name, row)| {
            let baseline = row.baseline.as_ref().map(|(name, runs)| json!({"what": name, "runs": runs}));
            json!({"name": name, "what": row.what, "unit": row.unit, "runs": row.runs, "baseline": baseline})
        });
        let rows: Vec<_> = rows.collect();
        format!("{:#}\n", json!({"rows": rows, "failures": self.failures}))
    }
}

fn three(runs: &[f64]) -> String {
    let (min, max) = (percentile(runs, 0.0), percentile(runs, 1.0));
    format!("{} / {} / {}", short(min), short(median(runs)), short(max))
}

/// About three digits, and no more.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value at this share of the sorted values, 0 to 1; not a number when there are none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_its_ratio() {
        let mut report = Report::default();
        let row = Row::new("sends", "/s", vec![30_000.0, 10_000.0, 20_000.0]).against("echo", vec![40_000.0]);
        report.add(Name::Sends, Ok(vec![row]));
        report.add(Name::Cold, Err("no server".into()));
        let text = report.markdown();
        let line = "| sends | 10.0 k / 20.0 k / 30.0 k /s | echo: 40.0 k / 40.0 k / 40.0 k | 0.50 |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("Not measured: cold: no server") && report.failed());
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&values, 0.0), median(&values), percentile(&values, 0.99)), (1.0, 51.0, 99.0));
        assert!(median(&[]).is_nan());
    }
}
