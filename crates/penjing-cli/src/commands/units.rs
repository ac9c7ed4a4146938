//! Quantities as people write them: `10m`, `500MB`.

use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A time such as `90s`, `10m`, `1.5h` or `1h30m`: a second to 30 days.
///
/// # Errors
/// What was expected, in words.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (mut rest, mut seconds) = (text.trim(), 0.0);
    if rest.is_empty() {
        return Err("expected a time such as 90s, 10m or 1h30m".into());
    }
    // Units get smaller, and each comes once: `10m10m` is a slip of the hand.
    let mut larger = f64::INFINITY;
    while !rest.is_empty() {
        let (number, unit);
        (number, unit, rest) = quantity(rest).ok_or("expected a time such as 90s, 10m or 1h30m")?;
        let scale = match unit {
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("{number} of what? write {number}s, {number}m or {number}h")),
            _ => return Err(format!("`{unit}` is no unit of time; expected s, m or h, as in 1h30m")),
        };
        if scale >= larger {
            return Err("expected hours, minutes and seconds in this order, as in 1h30m".into());
        }
        larger = scale;
        seconds += number * scale;
    }
    if !(1.0..=LONGEST.as_secs_f64()).contains(&seconds) {
        return Err("expected one second to 30 days (720h)".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A number of bytes such as `500MB`, `2GB` or `1.5GiB`: a kilobyte and more.
///
/// # Errors
/// What was expected, in words.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit, rest) =
        quantity(text.trim()).ok_or("expected an amount of memory such as 500MB or 2GB")?;
    let scale = match (unit.to_ascii_lowercase().as_str(), rest) {
        ("b", "") => 1.0,
        ("kb", "") => 1e3,
        ("mb", "") => 1e6,
        ("gb", "") => 1e9,
        ("kib", "") => 1024.0,
        ("mib", "") => 1024.0 * 1024.0,
        ("gib", "") => 1024.0 * 1024.0 * 1024.0,
        ("", "") => return Err(format!("{number} of what? write {number}MB or {number}GB")),
        _ => return Err(format!("`{unit}{rest}` is no unit of memory; expected MB or GB, as in 500MB")),
    };
    let count = number * scale;
    if !(1e3..=1e15).contains(&count) {
        return Err("expected 1kB to 1000000GB".into());
    }
    Ok(count as u64)
}

/// A short time such as `10ms`, `500us` or `0.2s`, in milliseconds.
///
/// # Errors
/// What was expected, in words.
pub fn milliseconds(text: &str) -> Result<f64, String> {
    const EXPECTED: &str = "expected a time such as 10ms or 0.2s";
    let (number, unit, rest) = quantity(text.trim()).ok_or(EXPECTED)?;
    let scale = match (unit, rest) {
        ("us" | "µs", "") => 1e-3,
        ("ms", "") => 1.0,
        ("s", "") => 1e3,
        ("", "") => return Err(format!("{number} of what? write {number}ms or {number}s")),
        _ => return Err(format!("`{unit}{rest}` is no unit of time; {EXPECTED}")),
    };
    let time = number * scale;
    if !(1e-3..=1e6).contains(&time) {
        return Err("expected 1us to 1000s".into());
    }
    Ok(time)
}

/// A share, 0 to 1.
///
/// # Errors
/// What was expected, in words.
pub fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "expected 0 to 1".into())
}

/// The number at the beginning, the letters after it, and what follows.
fn quantity(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("10m", 600.0),
            ("10 min", 600.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("1h 5s", 3605.0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for (text, word) in [
            ("", "such as"),
            ("10", "10m"),
            ("10x", "`x`"),
            ("m", "such as"),
            ("-5m", "such as"),
            ("1.2.3m", "such as"),
            ("30m1h", "in this order"),
            ("10m10m", "in this order"),
            ("0s", "one second"),
            ("0.5s", "one second"),
            ("99999999h", "30 days"),
            ("10m!", "such as"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn amounts_of_memory_have_a_unit() {
        for (text, count) in [
            ("500MB", 500_000_000),
            ("2 gb", 2_000_000_000),
            ("1.5GiB", 3 << 29),
            ("64kb", 64_000),
            ("1000B", 1000),
        ] {
            assert_eq!(bytes(text), Ok(count), "{text}");
        }
        for (text, word) in [
            ("", "such as"),
            ("500", "500MB"),
            ("500M", "`M`"),
            ("0MB", "1kB"),
            ("9999999999GB", "1000000GB"),
            ("2GB2", "`GB2`"),
        ] {
            let error = bytes(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(share("0.5"), Ok(0.5));
        assert!(["", "-0.1", "1.1", "NaN", "half"].iter().all(|text| share(text).is_err()));
    }
}
