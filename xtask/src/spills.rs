//! `cargo xtask spills`: whether the innermost loops of the kernels keep their sums in registers.
//!
//! A compiler that runs out of registers, or does not know an index when it compiles, keeps sums in memory: all results
//! stay right, and everything takes twice as long. No test of results notices that; the assembly shows it.

use anyhow::{Context, Result, bail};

use crate::process;

/// The functions whose loops are looked at.
const TILES: &[&str] = &[
    "one_product_tile",
    "gradient_tile",
    "sparse_tile",
    "depthwise_line",
    "depthwise_weight_gradient",
    "int8_product_tile",
];
/// Loops with fewer multiply-adds are left alone.
const FEW: usize = 4;

/// How an assembly language writes what is looked for.
struct Language {
    multiply_add: &'static [&'static str],
    /// The label a line may jump to.
    jump: fn(&str) -> Option<&str>,
    /// Whether a vector goes to the stack or comes from it.
    touches_stack: fn(&str) -> bool,
}

const X86_64: Language = Language {
    multiply_add: &["vfmadd", "vpdpbusd", "{vex}\tvpdpbusd", "vpmaddwd"],
    jump: |line| line.starts_with('j').then(|| line.split_whitespace().nth(1)).flatten(),
    touches_stack: |line| {
        line.contains("(%rsp") && ["%xmm", "%ymm", "%zmm"].iter().any(|register| line.contains(register))
    },
};

const AARCH64: Language = Language {
    multiply_add: &["fmla", "sdot", "sadalp"],
    jump: |line| {
        ["b", "cb", "tb"]
            .iter()
            .any(|b| line.starts_with(b))
            .then(|| line.split_whitespace().last())
            .flatten()
    },
    touches_stack: |line| {
        line.contains("[sp")
            && line.split_whitespace().nth(1).is_some_and(|register| register.starts_with('q'))
    },
};

/// Looks at the code for this machine.
pub fn run() -> Result<()> {
    match std::env::consts::ARCH {
        "x86_64" => check(&X86_64, &[]),
        "aarch64" => check(&AARCH64, &[]),
        other => {
            println!("skipped: the assembly of {other} is not understood here");
            Ok(())
        }
    }
}

/// Looks at the code for an aarch64 target.
pub fn run_for_aarch64(target: &str) -> Result<()> {
    check(&AARCH64, &["--target", target])
}

fn check(language: &Language, target: &[&str]) -> Result<()> {
    let folder = process::root().join("target").join("spills");
    // Cargo writes it only when something has changed: no target may find another's.
    let file = folder.join(format!("{}.s", target.last().unwrap_or(&"host")));
    let mut build = process::cargo([
        "rustc",
        "--package",
        "penjing-kernels",
        "--lib",
        "--release",
        "--quiet",
        "--locked",
    ]);
    build.args(target).arg("--target-dir").arg(&folder).arg("--").arg("-Ccodegen-units=1");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    process::run(build.arg(format!("--emit=asm={}", file.display())))?;
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    println!("{} loops of tiles keep their sums in registers", look(language, &text)?);
    Ok(())
}

/// Counts the loops of the tiles in an assembly file; fails for those that do not keep their sums in registers.
fn look(language: &Language, text: &str) -> Result<usize> {
    let (mut loops, mut wrong) = (0, Vec::new());
    for &tile in TILES {
        let before = loops;
        for (name, lines) in functions(text).filter(|(name, _)| name.contains(tile)) {
            for inner in innermost_loops(language, &lines) {
                let fmas = inner
                    .iter()
                    .filter(|line| {
                        language.multiply_add.iter().any(|multiply_add| line.starts_with(multiply_add))
                    })
                    .count();
                let spills = inner.iter().filter(|line| (language.touches_stack)(line)).count();
                loops += usize::from(fmas >= FEW);
                if fmas >= FEW && spills > 0 {
                    wrong.push(format!(
                        "{name}: {fmas} multiply-adds and {spills} vectors to or from the stack"
                    ));
                }
            }
        }
        if loops == before {
            wrong.push(format!("{tile}: no loop found"));
        }
    }
    if wrong.is_empty() { Ok(loops) } else { bail!("sums are kept in memory:\n{}", wrong.join("\n")) }
}

/// Name and lines of each function, without indentation.
fn functions(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    text.split(",@function\n").skip(1).map(|part| {
        let mut lines = part.lines().map(str::trim_start);
        let name = lines.next().unwrap_or_default().trim_end_matches(':');
        (name, lines.take_while(|line| !line.starts_with(".cfi_endproc")).collect())
    })
}

/// What lies between a label and a jump back to it, where nothing between them is such a loop itself. What returns on the
/// way is no loop: the label is the function's end, which stands before what jumps there.
fn innermost_loops<'a, 'b>(language: &Language, lines: &'b [&'a str]) -> Vec<&'b [&'a str]> {
    let mut labels = std::collections::HashMap::new();
    let mut loops: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some((label, _)) = line.split_once(':') {
            labels.insert(label, at);
        } else if let Some(&start) = (language.jump)(line).and_then(|label| labels.get(label))
            && !loops.iter().any(|inner| inner.start > start)
            && !lines[start..at].iter().any(|line| line.starts_with("ret"))
        {
            loops.push(start..at);
        }
    }
    loops.into_iter().map(|range| &lines[range]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What surrounds the lines of a loop, and lines to put there: of the loop at its best, and a sum that goes to memory.
    struct Example {
        language: Language,
        around: [&'static str; 2],
        best: String,
        spill: &'static str,
    }

    fn examples() -> [Example; 2] {
        // The outer loop restores from the stack.
        [
            Example {
                language: X86_64,
                around: [
                    "\tpushq\t%rbx\n.LBB0_1:\n\tvmovaps\t64(%rsp), %ymm9\n.LBB0_2:\n",
                    "\tjne\t.LBB0_2\n\tdecq\t%rax\n\tjne\t.LBB0_1\n\tretq\n",
                ],
                best: "\tvbroadcastss\t(%rsi), %ymm1\n".to_owned()
                    + &"\tvfmadd231ps\t%ymm0, %ymm1, %ymm2\n".repeat(FEW),
                spill: "\tvmovaps\t%ymm2, 32(%rsp)\n",
            },
            Example {
                language: AARCH64,
                around: [
                    "\tstp\td9, d8, [sp, #-64]!\n.LBB0_1:\n\tldr\tq9, [sp, #16]\n.LBB0_2:\n",
                    "\tb.ne\t.LBB0_2\n\tcbnz\tx0, .LBB0_1\n\tret\n",
                ],
                best: "\tld1r\t{ v1.4s }, [x5], x1\n\tldr\tx8, [sp, #8]\n".to_owned()
                    + &"\tfmla\tv2.4s, v0.4s, v1.4s\n".repeat(FEW),
                spill: "\tstr\tq2, [sp, #32]\n",
            },
        ]
    }

    #[test]
    fn the_end_of_a_function_is_no_loop() {
        let lines = [
            ".LBB0_9:",
            "popq\t%rbp",
            "retq",
            ".LBB0_1:",
            "vfmadd231ps\t%ymm0, %ymm1, %ymm2",
            "jmp\t.LBB0_9",
        ];
        assert!(innermost_loops(&X86_64, &lines).is_empty());
        assert_eq!(innermost_loops(&X86_64, &[&lines[3..5], &["jne\t.LBB0_1"]].concat()).len(), 1);
    }

    #[test]
    fn a_sum_in_memory_is_found_inside_the_loop_only() {
        for Example { language, around: [before, after], best, spill } in examples() {
            let function = |tile: &str, lines: &str| {
                format!(
                    "\t.type\t_{tile}17h0,@function\n_{tile}17h0:\n{before}{lines}{after}\t.cfi_endproc\n"
                )
            };
            let (last, others) = TILES.split_last().unwrap();
            let others: String = others.iter().map(|tile| function(tile, &best)).collect();
            assert_eq!(look(&language, &(others.clone() + &function(last, &best))).unwrap(), TILES.len());
            let spilled = function(last, &(best + spill));
            let error = look(&language, &(others.clone() + &spilled)).unwrap_err().to_string();
            assert!(error.contains("4 multiply-adds and 1 vectors"), "{error}");
            assert!(look(&language, &others).unwrap_err().to_string().contains("no loop found"));
        }
    }
}
