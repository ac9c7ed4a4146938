//! The Markdown of `cargo xtask bench peers`.

use std::fmt::Write as _;

use anyhow::Result;

/// A network on some threads.
pub struct Row {
    network: String,
    threads: usize,
    /// One an engine; the first is ours.
    pub cells: Vec<Cell>,
    /// How far each engine's outputs are from the reference's; `None` where it has none.
    differences: Vec<Option<f32>>,
}

pub enum Cell {
    /// Milliseconds of each round.
    Times(Vec<f64>),
    /// Why there are none.
    Failed(String),
}

impl Row {
    /// Without figures yet. Engines that failed the check will have none.
    pub fn new(network: &str, threads: usize, checks: &[Result<f32>]) -> Row {
        let cells = checks.iter().map(|check| match check {
            Ok(_) => Cell::Times(Vec::new()),
            Err(error) => Cell::Failed(format!("{error:#}")),
        });
        let differences = checks.iter().map(|check| check.as_ref().ok().copied());
        Row {
            network: network.to_string(),
            threads,
            cells: cells.collect(),
            differences: differences.collect(),
        }
    }

    /// As a line of the table of these engines.
    pub fn line(&self, engines: &[&str]) -> String {
        let cells: Vec<String> = self.cells.iter().map(Cell::text).collect();
        format!("| {} | {} | {} | {} |", self.network, self.threads, cells.join(" | "), self.ratio(engines))
    }

    /// Our time by that of the peer with the least median: the median of the rounds' ratios, and the peer.
    fn ratio(&self, engines: &[&str]) -> String {
        let Some((Cell::Times(ours), peers)) = self.cells.split_first() else { return "–".into() };
        let peers = peers.iter().zip(&engines[1..]).filter_map(|(cell, name)| Some((cell.times()?, name)));
        let best = peers.min_by(|a, b| median(a.0).total_cmp(&median(b.0)));
        best.map_or("–".into(), |(best, name)| {
            let ratios: Vec<f64> = ours.iter().zip(best).map(|(ours, theirs)| ours / theirs).collect();
            format!("{:.2} ({name})", median(&ratios))
        })
    }
}

impl Cell {
    fn times(&self) -> Option<&Vec<f64>> {
        match self {
            Cell::Times(times) => Some(times),
            Cell::Failed(_) => None,
        }
    }

    /// Median (least–greatest).
    fn text(&self) -> String {
        self.times().map_or("–".into(), |times| {
            let (least, greatest) =
                times.iter().fold((f64::INFINITY, 0.0f64), |(a, b), &t| (a.min(t), b.max(t)));
            format!("{:.2} ({least:.2}–{greatest:.2})", median(times))
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// The table of times, that of the outputs' differences, and the reasons of what is missing.
pub fn markdown(engines: &[&str], reference: usize, rows: &[Row]) -> String {
    let mut text = "Milliseconds: median of the rounds' medians (least–greatest).\n\n".to_string();
    let _ = writeln!(text, "| network | threads | {} | {} ÷ best peer |", engines.join(" | "), engines[0]);
    let _ = writeln!(text, "|---|---|{}---|", "---|".repeat(engines.len()));
    for row in rows {
        let _ = writeln!(text, "{}", row.line(engines));
    }
    let others = |row: &Row, cell: fn(&Option<f32>) -> String| {
        let cells = row.differences.iter().enumerate().filter(|(at, _)| *at != reference);
        cells.map(|(_, difference)| cell(difference)).collect::<Vec<_>>().join(" | ")
    };
    let names = engines.iter().enumerate().filter(|(at, _)| *at != reference).map(|(_, name)| *name);
    let _ = writeln!(
        text,
        "\nLargest difference of the outputs from {}'s on the same input, as a share of the largest output.\n\n\
         | network | {} |\n|---|{}",
        engines[reference],
        names.collect::<Vec<_>>().join(" | "),
        "---|".repeat(engines.len() - 1)
    );
    let mut networks: Vec<&Row> = rows.iter().collect();
    networks.dedup_by(|a, b| a.network == b.network);
    for row in networks {
        let cells = others(row, |difference| difference.map_or("–".into(), |share| format!("{share:.0e}")));
        let _ = writeln!(text, "| {} | {cells} |", row.network);
    }
    let mut reasons = Vec::new();
    for row in rows {
        for (name, cell) in engines.iter().zip(&row.cells) {
            if let Cell::Failed(reason) = cell {
                let line = format!("- {name}, {}: {reason}", row.network);
                if !reasons.contains(&line) {
                    reasons.push(line);
                }
            }
        }
    }
    if !reasons.is_empty() {
        let _ = writeln!(text, "\nWhat is missing:\n\n{}", reasons.join("\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_best_peer_counts_and_a_failure_takes_its_own_figures_only() {
        let checks = [Ok(1e-6), Ok(0.0), Ok(2e-6), Err(anyhow!("no module of that name"))];
        let mut rows = vec![Row::new("net", 1, &checks), Row::new("net", 2, &checks)];
        let times = [vec![3.0, 2.0, 4.0], vec![5.0, 5.0, 5.0], vec![4.0, 4.0, 4.5]];
        for row in &mut rows {
            for (cell, times) in row.cells.iter_mut().zip(times.clone()) {
                *cell = Cell::Times(times);
            }
        }
        rows[1].cells[2] = Cell::Failed("killed".into());
        let text = markdown(&["ours", "reference", "quick", "absent"], 1, &rows);
        let expected = [
            "| network | threads | ours | reference | quick | absent | ours ÷ best peer |",
            "| net | 1 | 3.00 (2.00–4.00) | 5.00 (5.00–5.00) | 4.00 (4.00–4.50) | – | 0.75 (quick) |",
            "| net | 2 | 3.00 (2.00–4.00) | 5.00 (5.00–5.00) | – | – | 0.60 (reference) |",
            "| network | ours | quick | absent |",
            "| net | 1e-6 | 2e-6 | – |",
            "- absent, net: no module of that name",
            "- quick, net: killed",
        ];
        for line in expected {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\n{text}");
        }
    }

    #[test]
    fn without_our_own_figures_there_is_no_ratio() {
        let checks = [Err(anyhow!("crashed")), Ok(0.0)];
        assert!(Row::new("net", 1, &checks).line(&["ours", "reference"]).ends_with("| – |"));
    }
}
