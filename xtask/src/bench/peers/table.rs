//! The Markdown of `cargo xtask bench peers`.

use std::fmt::Write as _;

use anyhow::Result;

/// What stands in the table, from left to right.
pub struct Columns<'a> {
    /// The first is ours.
    pub engines: Vec<&'a str>,
    /// Whom the outputs are compared with.
    pub reference: usize,
    /// Ours in floats beside others in 8 bits: no peer.
    pub floats: Option<usize>,
}

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
    pub fn new(network: &str, threads: usize, checks: &[Result<Option<f32>>]) -> Row {
        let cells = checks.iter().map(|check| match check {
            Ok(_) => Cell::Times(Vec::new()),
            Err(error) => Cell::Failed(format!("{error:#}")),
        });
        let differences = checks.iter().map(|check| check.as_ref().ok().copied().flatten());
        Row {
            network: network.to_string(),
            threads,
            cells: cells.collect(),
            differences: differences.collect(),
        }
    }

    /// As a line of the table.
    pub fn line(&self, columns: &Columns) -> String {
        let mut cells: Vec<String> = self.cells.iter().map(Cell::text).collect();
        cells.push(self.by_best_peer(columns));
        cells.extend(
            columns
                .floats
                .map(|at| self.by(&self.cells[at]).map_or("–".into(), |ratio| format!("{ratio:.2}"))),
        );
        format!("| {} | {} | {} |", self.network, self.threads, cells.join(" | "))
    }

    /// Our time by that of the peer with the least median, and the peer.
    fn by_best_peer(&self, columns: &Columns) -> String {
        let peers = self.cells.iter().zip(&columns.engines).enumerate().skip(1);
        let peers = peers.filter(|(at, _)| Some(*at) != columns.floats);
        let peers = peers.filter_map(|(_, (cell, name))| Some((cell, median(cell.times()?), name)));
        let best = peers.min_by(|a, b| a.1.total_cmp(&b.1));
        let ratio = best.and_then(|(cell, _, name)| Some((self.by(cell)?, name)));
        ratio.map_or("–".into(), |(ratio, name)| format!("{ratio:.2} ({name})"))
    }

    /// Our time by another: the median of the rounds' ratios.
    fn by(&self, other: &Cell) -> Option<f64> {
        let rounds = self.cells.first()?.times()?.iter().zip(other.times()?);
        Some(median(&rounds.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>()))
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
pub fn markdown(columns: &Columns, rows: &[Row]) -> String {
    let (engines, reference) = (&columns.engines, columns.reference);
    let mut text = "Milliseconds: median of the rounds' medians (least–greatest).\n\n".to_string();
    let by_floats =
        columns.floats.map(|at| format!(" {} ÷ {} |", engines[0], engines[at])).unwrap_or_default();
    let head =
        format!("| network | threads | {} | {} ÷ best peer |{by_floats}", engines.join(" | "), engines[0]);
    let _ = writeln!(text, "{head}\n|{}", "---|".repeat(head.matches(" |").count()));
    for row in rows {
        let _ = writeln!(text, "{}", row.line(columns));
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
        let checks = [Ok(Some(1e-6)), Ok(Some(0.0)), Ok(Some(2e-6)), Err(anyhow!("no module of that name"))];
        let mut rows = vec![Row::new("net", 1, &checks), Row::new("net", 2, &checks)];
        let times = [vec![3.0, 2.0, 4.0], vec![5.0, 5.0, 5.0], vec![4.0, 4.0, 4.5]];
        for row in &mut rows {
            for (cell, times) in row.cells.iter_mut().zip(times.clone()) {
                *cell = Cell::Times(times);
            }
        }
        rows[1].cells[2] = Cell::Failed("killed".into());
        let engines = vec!["ours", "reference", "quick", "absent"];
        let text = markdown(&Columns { engines, reference: 1, floats: None }, &rows);
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
        let checks = [Err(anyhow!("crashed")), Ok(Some(0.0))];
        let columns = Columns { engines: vec!["ours", "reference"], reference: 1, floats: None };
        assert!(Row::new("net", 1, &checks).line(&columns).ends_with("| – |"));
    }

    #[test]
    fn our_own_floats_are_no_peer() {
        let checks = [Ok(Some(0.1)), Ok(Some(0.0)), Ok(None), Ok(Some(0.2))];
        let mut row = Row::new("net", 1, &checks);
        for (cell, time) in row.cells.iter_mut().zip([3.0, 5.0, 4.0, 2.0]) {
            *cell = Cell::Times(vec![time]);
        }
        let engines = vec!["ours", "reference", "other weights", "ours in floats"];
        let text = markdown(&Columns { engines, reference: 1, floats: Some(3) }, &[row]);
        for line in [
            "| network | threads | ours | reference | other weights | ours in floats | ours ÷ best peer | ours ÷ ours in floats |",
            "|---|---|---|---|---|---|---|---|",
            "| net | 1 | 3.00 (3.00–3.00) | 5.00 (5.00–5.00) | 4.00 (4.00–4.00) | 2.00 (2.00–2.00) | 0.75 (other weights) | 1.50 |",
            "| net | 1e-1 | – | 2e-1 |",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\n{text}");
        }
    }
}
