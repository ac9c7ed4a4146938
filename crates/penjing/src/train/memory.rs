//! How much memory training may take.

/// Bytes when the system does not tell.
const UNKNOWN: u64 = 2 << 30;

/// Three quarters of the memory that the system can spare, within the limit of the control group; 2 GiB where it does
/// not tell.
pub fn available() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let spare = read("/proc/meminfo").and_then(|text| spare(&text));
    let number = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    // What the group holds of files is given back when it is needed.
    let files = read("/sys/fs/cgroup/memory.stat").and_then(|text| inactive_files(&text)).unwrap_or(0);
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|most| (most + files).saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    let bytes = match (spare, group) {
        (Some(spare), Some(group)) => spare.min(group),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => return UNKNOWN,
    };
    bytes / 4 * 3
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn spare(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `inactive_file` of a control group's `memory.stat`, in bytes.
fn inactive_files(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_by_its_line() {
        let text = "MemTotal:       16318412 kB\nMemFree:         1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(spare(text), Some(8 << 20));
        assert_eq!(spare("MemAvailable: much\n"), None);
        assert_eq!(inactive_files("anon 5\ninactive_file 77\nactive_file 6\n"), Some(77));
        assert!(available() > 0);
    }
}
