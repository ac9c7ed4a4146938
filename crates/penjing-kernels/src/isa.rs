//! Which instruction set runs an operation.

/// Proof that this CPU can run an instruction set: it cannot be made for one that is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isa(Level);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with dot products of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2, FMA and dot products of bytes.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 F, VL, DQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with dot products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// Every level this build knows, the slowest first.
const LEVELS: &[Level] = &[
    Level::Scalar,
    #[cfg(target_arch = "aarch64")]
    Level::Neon,
    #[cfg(target_arch = "aarch64")]
    Level::NeonDot,
    #[cfg(target_arch = "x86_64")]
    Level::Avx2,
    #[cfg(target_arch = "x86_64")]
    Level::AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512Vnni,
];

impl Isa {
    /// The fastest this CPU can run. Without feature `std` only what the build's target features promise.
    pub fn detect() -> Isa {
        Isa::available().last().unwrap_or(Isa(Level::Scalar))
    }

    /// Plain Rust, the reference of all others.
    pub const fn scalar() -> Isa {
        Isa(Level::Scalar)
    }

    /// All that this CPU can run, `scalar` first, the fastest last.
    pub fn available() -> impl Iterator<Item = Isa> {
        LEVELS.iter().copied().filter(|&level| supported(level)).map(Isa)
    }

    /// The one with this name, or `None` if it is unknown or this CPU lacks it.
    pub fn named(name: &str) -> Option<Isa> {
        Isa::available().find(|isa| isa.name() == name)
    }

    /// `scalar`, `neon`, `neondot`, `avx2`, `avxvnni`, `avx512` or `avx512vnni`. Those with dot products of bytes differ from
    /// those without in [`int8`](crate::int8) only.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Level::NeonDot => "neondot",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512vnni",
        }
    }

    pub(crate) const fn level(self) -> Level {
        self.0
    }
}

/// Whether the CPU has every one of the features: asked at run time under `std`, else known from the build.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! has {
    ($($feature:tt),+) => {{
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        { true $(&& std::is_x86_feature_detected!($feature))+ }
        #[cfg(all(feature = "std", target_arch = "aarch64"))]
        { true $(&& std::arch::is_aarch64_feature_detected!($feature))+ }
        #[cfg(not(feature = "std"))]
        { true $(&& cfg!(target_feature = $feature))+ }
    }};
}

fn supported(level: Level) -> bool {
    match level {
        Level::Scalar => true,
        // Part of the architecture; only targets that compute floating point in software leave it alone.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => cfg!(target_feature = "neon"),
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot => supported(Level::Neon) && has!("dotprod"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => has!("avx2", "fma"),
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => supported(Level::Avx2) && has!("avxvnni"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => has!("avx2", "fma", "avx512f", "avx512vl", "avx512dq", "avx512bw"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => supported(Level::Avx512) && has!("avx512vnni"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::available().next(), Some(Isa::scalar()));
        assert_eq!(Isa::named("abacus"), None);
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn neon_is_always_there() {
        assert!(Isa::named("neon").is_some() && Isa::detect().name().starts_with("neon"));
    }
}
