//! `penjing compress --budget`.

use std::{fmt::Write as _, path::PathBuf};

use penjing::{
    Error,
    compress::budget::{self, Budget, Clock, Found, Here, Needs, Options, Report, Tried},
    data::{Dataset, Part, displayed},
    model::{self, Output},
    train::checkpoint,
};

use super::{Args, states::States};
use crate::{
    commands::{Outcome, require_apart, say_skipped, units},
    console::{Console, bytes},
};

/// What may be taken at most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    size: Option<u64>,
    latency: Option<Latency>,
    ram: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Latency {
    Milliseconds(f64),
    /// Of that before.
    Share(f64),
}

/// Limits such as `size=1MB,latency=10ms,ram=256KB`.
///
/// # Errors
/// What was expected, in words.
pub fn parse(text: &str) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            format!(
                "`{part}` is no limit; expected size=1MB, latency=10ms or ram=256KB, with commas between them"
            )
        })?;
        let twice = match name.trim() {
            "size" => limits.size.replace(units::bytes(value)?).is_some(),
            "ram" => limits.ram.replace(units::bytes(value)?).is_some(),
            "latency" => limits.latency.replace(latency(value)?).is_some(),
            other => return Err(format!("`{other}` is no limit; expected size, latency or ram")),
        };
        if twice {
            return Err(format!("{} is given twice", name.trim()));
        }
    }
    Ok(limits)
}

fn latency(text: &str) -> Result<Latency, String> {
    let Some(share) = text.trim().strip_suffix('x') else {
        return units::milliseconds(text).map(Latency::Milliseconds);
    };
    match share.parse() {
        Ok(share) if (0.01..=1.0).contains(&share) => Ok(Latency::Share(share)),
        _ => Err("expected a share of the time before from 0.01x to 1x".into()),
    }
}

#[derive(serde::Serialize)]
struct Compressed<'a> {
    #[serde(serialize_with = "displayed")]
    file: &'a std::path::Path,
    written: bool,
    /// Whose latency it is.
    clock: String,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(args: &Args, limits: Limits, console: &Console) -> anyhow::Result<Outcome> {
    let states = States::beside(&args.output);
    states.spare_others(&[budget::state_path(&states.search)], args.force)?;
    let read = std::iter::once(&args.model).chain(&args.or).map(|path| (path, "a model to begin with"));
    let read = read.chain(args.cost.iter().map(|path| (path, "what the latency is told by")));
    for (path, what) in read {
        for written in std::iter::once(&args.output).chain(&args.picture) {
            require_apart(written, Some(path), what)?;
        }
    }
    if let Some(picture) = &args.picture {
        require_apart(picture, Some(&args.output), "the model that is to be written")?;
    }
    let output = Output::new(&args.output, args.force)?;
    let picture = args.picture.as_ref().map(|path| Output::new(path, args.force)).transpose()?;
    let threads = args.threads.start()?;
    let costs = args.elsewhere.costs(args.cost.as_deref())?;
    let clock: &dyn Clock = match &costs {
        Some(costs) => costs,
        None => &Here,
    };
    let mut starts = Vec::new();
    for path in std::iter::once(&args.model).chain(&args.or) {
        let start = model::load(path)?;
        // Which of them it is.
        model::in_floats(&start).map_err(|error| Error::model(path, error.to_string()))?;
        starts.push(start);
    }
    let data = Dataset::open(&args.data, args.group_by.as_ref())?;
    for notice in &data.notices {
        console.say(&notice.to_string());
    }
    if args.group_by.is_some() && data.part(Part::Val).next().is_some() {
        console.say("--group-by changes nothing here: a part of the photos is for validation");
    }
    let (latency_ms, latency_share) = match limits.latency {
        None => (None, None),
        Some(Latency::Milliseconds(ms)) => (Some(ms), None),
        Some(Latency::Share(share)) => (None, Some(share)),
    };
    let options = Options {
        budget: Budget { size: limits.size, latency_ms, ram: limits.ram },
        latency_share,
        max_drop: args.max_drop / 100.0,
        time: args.time,
        photos: args.photos.into(),
        seed: args.seed,
        folder: Some(states.search.clone()),
        force: args.force,
    };
    let found = budget::search(&starts, &data, &options, clock, &threads, console);
    if matches!(found, Err(Error::Interrupted)) && budget::state_path(&states.search).is_file() {
        console.say(&format!(
            "{}: what the search has found; the same command goes on from there",
            states.search.display()
        ));
    }
    let (small, report) = found?;
    say_skipped(&report.skipped, console);
    if let Some(small) = &small {
        output.save(small)?;
    }
    // The state stays where a disk is too full for the picture alone.
    if let Some(picture) = picture {
        picture.write(report.picture().as_bytes())?;
    }
    if small.is_some() {
        states.remove_others()?;
        budget::remove(&states.search)?;
        checkpoint::remove(&states.learning)?;
    }
    let file = args.output.as_path();
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = match args.or.is_empty() {
        true => Vec::new(),
        false => std::iter::once(&args.model).chain(&args.or).map(name).collect(),
    };
    let written = small.is_some();
    let compressed = Compressed { file, written, clock: clock.name(), report: &report };
    console.result(&compressed, || describe(&report, &clock.name(), &names))?;
    if written {
        return Ok(Outcome::Done);
    }
    console.error(&format!("{}: not written: {}", file.display(), report.missed.join("; ")));
    if report.tried.is_empty() {
        // There is nothing to go on from, and the next search is most likely for another budget.
        budget::remove(&states.search)?;
    } else if states.search.is_dir() {
        let picture =
            args.picture.as_ref().map(|path| format!(" and --force, since {} is there now,", path.display()));
        console.say(&format!(
            "{}: what the search has found; with another --max-drop{} it need not search again, with another --budget or --time it \
             must, which takes --force or another output",
            states.search.display(),
            picture.unwrap_or_default()
        ));
    }
    Ok(Outcome::SomeFailed)
}

/// The report as a table; `starts` names the models where there are several.
fn describe(report: &Report, clock: &str, starts: &[String]) -> String {
    let mut text = format!(
        "  {:28} {:>5} {:18} {:>7} {:>9} {:>9} {:>9} {:>8} {:>7}\n",
        "network", "px", "numbers", "M MACs", "file", "memory", "latency", "top-1", "epochs"
    );
    let needs = |Needs { size, latency_ms, ram }: &Needs| {
        format!("{:>9} {:>9} {:>6.2} ms", bytes(*size), bytes(*ram), latency_ms)
    };
    let before = &report.before;
    let _ = writeln!(
        text,
        "  {:28} {:>5} {:18} {:>7} {} {:>6.2} %",
        "before",
        "",
        "floats",
        "",
        needs(&before.needs),
        100.0 * before.top1
    );
    for (at, Tried { form, arch, rounds, epochs, shown, front, over }) in report.tried.iter().enumerate() {
        let mark = match (report.taken == Some(at), front) {
            (true, _) => '→',
            (false, true) => '·',
            (false, false) => ' ',
        };
        let _ = writeln!(
            text,
            "{mark} {:28} {:>5} {:18} {:>7.1} {} {:>6.2} % {epochs:>7.2}{}{}",
            starts.get(form.start).unwrap_or(arch),
            form.px,
            form.numbers.name(),
            form.macs as f64 / 1e6,
            needs(&shown.needs),
            100.0 * shown.top1,
            if *rounds == 1 { "  (in floats)" } else { "" },
            if over.is_empty() { String::new() } else { format!("  (not taken: {})", over.join("; ")) },
        );
    }
    let _ = writeln!(
        text,
        "\n→ taken, · no other is as good and smaller or faster; on {} {} photos; latency of {clock}; {:.0} s",
        report.photos, report.part, report.seconds
    );
    if !report.beyond.is_empty() {
        let _ = writeln!(text, "\ncannot keep to the budget, the nearest of each kind:");
        for Found { form, needs: takes } in &report.beyond {
            let _ = writeln!(
                text,
                "  {:28} {:>5} {:18} {:>7.1} {}",
                starts.get(form.start).map_or("", String::as_str),
                form.px,
                form.numbers.name(),
                form.macs as f64 / 1e6,
                needs(takes)
            );
        }
    }
    match report.part {
        "validation" => {}
        "training" => {
            text += "the photos that judged are those that the networks learnt from; a val folder would tell more\n"
        }
        _ => {
            text += "the photos that judged are those that the model before learnt from, most likely; a val folder would tell more\n"
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let all = parse("size=1MB,latency=10ms, ram=256KB").unwrap();
        let expected =
            Limits { size: Some(1_000_000), latency: Some(Latency::Milliseconds(10.0)), ram: Some(256_000) };
        assert_eq!(all, expected);
        assert_eq!(parse("latency=0.5x").unwrap().latency, Some(Latency::Share(0.5)));
        assert_eq!(parse("latency=0.2s").unwrap().latency, Some(Latency::Milliseconds(200.0)));
        for (text, why) in [
            ("", "`` is no limit"),
            ("fast", "`fast` is no limit"),
            ("speed=1", "`speed` is no limit"),
            ("size=1", "write 1MB"),
            ("size=1MB,size=2MB", "size is given twice"),
            ("latency=10", "write 10ms"),
            ("latency=2x", "from 0.01x to 1x"),
            ("latency=10min", "no unit of time"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
