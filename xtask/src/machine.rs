//! What the machine is, for tables of measured figures.

/// The processor's name where the system tells it, else its architecture.
pub fn cpu() -> String {
    info("model name").unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

/// The processor's name with what tells apart processors of the same name, the number of threads it runs at once, and
/// which of the vector instructions it has that an f32 network may use.
pub fn described() -> String {
    let number = |field| info(field).map(|value| format!(", {field} {value}")).unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{}{}{}, {threads} threads, {}",
        cpu(),
        number("cpu family"),
        number("model"),
        instructions().join(" ")
    )
}

/// The first value of this field that the system tells of its processors.
fn info(field: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim_end() == field).then(|| value.trim().to_string())
    })
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<&'static str> {
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Vec<&'static str> {
    vec![std::env::consts::ARCH]
}
