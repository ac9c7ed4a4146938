//! The networks of a search in a picture.

use std::fmt::Write as _;

use super::{Numbers, Report, Shown};

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 34.0;
const GAP: f64 = 76.0;
const INK: &str = "#334";

/// What stands along an axis.
struct Axis<'a> {
    title: &'a str,
    of: &'a dyn Fn(&Shown) -> f64,
    allowed: Option<f64>,
}

impl Report {
    /// An SVG picture: accuracy over the size of the file, and over the latency, with the networks that no other one beats joined.
    pub fn picture(&self) -> String {
        let height = TOP + HEIGHT + 76.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{height}\" viewBox=\"0 0 {w} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"{INK}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            w = 2.0 * (LEFT + WIDTH) + GAP - LEFT + 20.0,
        );
        let axes = [
            Axis {
                title: "file, kB",
                of: &|shown| shown.needs.size as f64 / 1e3,
                allowed: self.budget.size.map(|bytes| bytes as f64 / 1e3),
            },
            Axis {
                title: "a photo, ms",
                of: &|shown| shown.needs.latency_ms,
                allowed: self.budget.latency_ms,
            },
        ];
        for (at, axis) in axes.iter().enumerate() {
            self.panel(&mut svg, LEFT + at as f64 * (WIDTH + GAP), axis);
        }
        let mut x = LEFT;
        for (numbers, name) in KINDS {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{name}</text>",
                colour(numbers),
                x + 10.0,
                height - 10.0,
                y = height - 14.0,
            );
            x += 130.0;
        }
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\">◆ before  ◎ taken  ┆ budget; joined: nothing better is smaller or faster</text>\n</svg>",
            height - 10.0
        );
        svg
    }

    fn panel(&self, svg: &mut String, left: f64, axis: &Axis) {
        let shown: Vec<&Shown> = self.tried.iter().map(|tried| &tried.shown).chain([&self.before]).collect();
        let xs = shown.iter().map(|shown| (axis.of)(shown)).chain(axis.allowed);
        let (low, high) = xs.fold((f64::INFINITY, 0f64), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = ((low / 1.15).ln(), (high * 1.15).ln());
        let worst = shown.iter().map(|shown| shown.top1).fold(1.0, f64::min);
        let floor = ((20.0 * worst).floor() / 20.0 - 0.05).max(0.0);
        let place_x = |x: f64| left + WIDTH * (x.ln() - low) / (high - low);
        let place_y = |y: f64| TOP + HEIGHT * (1.0 - (y - floor) / (1.0 - floor).max(1e-9));
        let place = |shown: &Shown| [place_x((axis.of)(shown)), place_y(shown.top1)];
        let bottom = TOP + HEIGHT;
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#99a\"/>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"{left}\" y=\"{}\">top-1 on {} {} photos, %</text>",
            left + WIDTH / 2.0,
            bottom + 36.0,
            axis.title,
            TOP - 10.0,
            self.photos,
            self.part,
        );
        for step in 0..=4 {
            let y = floor + (1.0 - floor) * f64::from(step) / 4.0;
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
                left - 6.0,
                place_y(y) + 4.0,
                100.0 * y
            );
            let x = (low + (high - low) * (0.06 + 0.22 * f64::from(step))).exp();
            let digits = if x < 10.0 { 1 } else { 0 };
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x:.digits$}</text>",
                place_x(x),
                bottom + 18.0
            );
        }
        if let Some(allowed) = axis.allowed {
            let x = place_x(allowed);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{INK}\" stroke-dasharray=\"4 4\"/>"
            );
        }
        let mut line: Vec<[f64; 2]> = Vec::new();
        let made = self.tried.iter().filter(|tried| tried.is_made());
        let mut by_cost: Vec<&Shown> = made.map(|tried| &tried.shown).chain([&self.before]).collect();
        by_cost.sort_by(|a, b| (axis.of)(a).total_cmp(&(axis.of)(b)).then(b.top1.total_cmp(&a.top1)));
        let mut best = f64::NEG_INFINITY;
        for shown in by_cost {
            if shown.top1 > best {
                best = shown.top1;
                line.push(place(shown));
            }
        }
        let points: Vec<String> = line.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#99a\"/>", points.join(" "));
        let [x, y] = place(&self.before);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"14\">◆</text>",
            y + 5.0
        );
        for (at, tried) in self.tried.iter().enumerate() {
            let [x, y] = place(&tried.shown);
            let colour = colour(tried.form.numbers);
            let faint = if tried.rounds < super::ROUNDS.len() { 0.4 } else { 0.95 };
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\" fill-opacity=\"{faint}\"/>"
            );
            if self.taken == Some(at) {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"9\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
                );
            }
        }
    }
}

const KINDS: [(Numbers, &str); 3] =
    [(Numbers::Floats, "floats"), (Numbers::Integers, "8 bits"), (Numbers::FourBits, "4-bit weights")];

fn colour(numbers: Numbers) -> &'static str {
    match numbers {
        Numbers::Floats => "#3b6ea5",
        Numbers::Integers => "#2e8b57",
        Numbers::FourBits => "#c2703d",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Budget, Form, Needs, Tried};
    use super::*;

    #[test]
    fn what_was_never_made_is_not_joined() {
        let shown = |top1: f64, size: u64| {
            let latency_ms = size as f64 / 1e3;
            Shown { top1, nll: 0.1, needs: Needs { size, latency_ms, ram: 1 } }
        };
        let tried = |rounds: usize, top1: f64, size: u64| {
            let form = Form { start: 0, px: 32, numbers: Numbers::FourBits, stay: None, macs: 1 };
            let shown = shown(top1, size);
            Tried { form, arch: "a".into(), rounds, epochs: 1.0, shown, front: false, over: Vec::new() }
        };
        let report = Report {
            budget: Budget::default(),
            before: shown(0.95, 9000),
            tried: vec![tried(3, 0.9, 5000), tried(2, 0.8, 6000), tried(1, 0.99, 4000)],
            beyond: Vec::new(),
            taken: Some(0),
            missed: Vec::new(),
            photos: 100,
            part: "validation",
            seconds: 1.0,
            skipped: Vec::new(),
        };
        let svg = report.picture();
        let lines: Vec<&str> = svg.lines().filter(|line| line.starts_with("<polyline")).collect();
        let joined = |line: &&str| line.split('"').nth(1).unwrap().split(' ').count();
        // Of those that were made the smaller one and the model before, over the size and over the latency.
        assert_eq!(lines.iter().map(joined).collect::<Vec<usize>>(), [2, 2], "{svg}");
    }
}
