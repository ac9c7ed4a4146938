//! `cargo xtask spills`: whether the innermost loops of the kernels keep their sums in registers.
//!
//! A compiler that runs out of registers, or does not know an index when it compiles, keeps sums in memory: all results
//! stay right, and everything takes twice as long. No test of results notices that; the assembly shows it.

use anyhow::{Context, Result, bail};

use crate::process;

/// The functions whose loops are looked at.
const TILES: &[&str] = &["one_product_tile", "gradient_tile", "depthwise_line", "depthwise_weight_gradient"];
/// Loops with fewer multiply-adds are left alone.
const FEW: usize = 4;

pub fn run() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: only the assembly of x86-64 is understood here");
        return Ok(());
    }
    let folder = process::root().join("target").join("spills");
    let file = folder.join("kernels.s");
    let mut build = process::cargo([
        "rustc",
        "--package",
        "penjing-kernels",
        "--lib",
        "--release",
        "--quiet",
        "--locked",
    ]);
    build.arg("--target-dir").arg(&folder).arg("--").arg("-Ccodegen-units=1");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    process::run(build.arg(format!("--emit=asm={}", file.display())))?;
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    println!("{} loops of tiles keep their sums in registers", look(&text)?);
    Ok(())
}

/// Counts the loops of the tiles in an assembly file; fails for those that do not keep their sums in registers.
fn look(text: &str) -> Result<usize> {
    let (mut loops, mut wrong) = (0, Vec::new());
    for &tile in TILES {
        let before = loops;
        for (name, lines) in functions(text).filter(|(name, _)| name.contains(tile)) {
            for inner in innermost_loops(&lines) {
                let count = |what: fn(&str) -> bool| inner.iter().filter(|line| what(line)).count();
                let (fmas, spills) = (count(|line| line.starts_with("vfmadd")), count(touches_stack));
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

/// What lies between a label and a jump back to it, where nothing between them is such a loop itself.
fn innermost_loops<'a, 'b>(lines: &'b [&'a str]) -> Vec<&'b [&'a str]> {
    let mut labels = std::collections::HashMap::new();
    let mut loops: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some((label, _)) = line.split_once(':') {
            labels.insert(label, at);
        } else if line.starts_with('j')
            && let Some(&start) = line.split_whitespace().nth(1).and_then(|label| labels.get(label))
            && !loops.iter().any(|inner| inner.start > start)
        {
            loops.push(start..at);
        }
    }
    loops.into_iter().map(|range| &lines[range]).collect()
}

/// Whether a vector goes to the stack or comes from it.
fn touches_stack(line: &str) -> bool {
    line.contains("(%rsp") && ["%xmm", "%ymm", "%zmm"].iter().any(|register| line.contains(register))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tile whose loop has these lines, within a loop that restores from the stack.
    fn assembly(tile: &str, lines: &str) -> String {
        format!(
            "\t.type\t_{tile}17h0,@function\n_{tile}17h0:\n\tpushq\t%rbx\n.LBB0_1:\n\tvmovaps\t64(%rsp), %ymm9\n.LBB0_2:\n{lines}\
             \tjne\t.LBB0_2\n\tdecq\t%rax\n\tjne\t.LBB0_1\n\tretq\n\t.cfi_endproc\n"
        )
    }

    #[test]
    fn a_sum_in_memory_is_found_inside_the_loop_only() {
        let clean = "\tvbroadcastss\t(%rsi), %ymm1\n".to_owned()
            + &"\tvfmadd231ps\t%ymm0, %ymm1, %ymm2\n".repeat(FEW);
        let (last, others) = TILES.split_last().unwrap();
        let others: String = others.iter().map(|tile| assembly(tile, &clean)).collect();
        assert_eq!(look(&(others.clone() + &assembly(last, &clean))).unwrap(), TILES.len());
        let spilled = assembly(last, &(clean + "\tvmovaps\t%ymm2, 32(%rsp)\n"));
        let error = look(&(others.clone() + &spilled)).unwrap_err().to_string();
        assert!(error.contains("4 multiply-adds and 1 vectors"), "{error}");
        assert!(look(&others).unwrap_err().to_string().contains("no loop found"));
    }
}
