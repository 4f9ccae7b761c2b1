//! `cargo xtask bench`: what it costs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser;
use lb_tests::bench::{self, Comparison, Effort, Part, Report};

/// Measures what the load balancer costs. Needs root; touches no interface of the host.
#[derive(Parser)]
struct Arguments {
    /// What to measure, such as `--only program`; may be given several times [default: everything].
    #[arg(long = "only", value_name = "PART")]
    parts: Vec<Part>,
    /// Measure shorter: whether it works, and roughly how fast.
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Compare with an earlier run, whose JSON is in this file, by the ratios of both: exit with 1
    /// if something has become worse.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// By how much a ratio may be worse than the earlier one.
    #[arg(long, value_name = "PERCENT", default_value_t = 15.0, value_parser = percent)]
    #[arg(requires = "against")]
    tolerance: f64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // A bad file is to be known before minutes are spent on measuring.
    let earlier = match &arguments.against {
        Some(path) => Some((path, Report::read(path)?)),
        None => None,
    };
    let effort = if arguments.quick {
        Effort::Quick
    } else {
        Effort::Full
    };
    let report = bench::run(&arguments.parts, effort)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    let Some((path, earlier)) = earlier else {
        return Ok(ExitCode::SUCCESS);
    };
    let comparison = Comparison::new(&earlier, &report, arguments.tolerance);
    // Standard output is for the JSON then.
    eprintln!("Against {}\n{comparison}", path.display());
    if comparison.is_empty() {
        bail!("{} has no figure that could be compared", path.display());
    }
    let regressions = comparison.regressions();
    if regressions.is_empty() {
        eprintln!("nothing is worse by more than {} %", arguments.tolerance);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "worse by more than {} %: {}",
        arguments.tolerance,
        regressions.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

fn percent(text: &str) -> anyhow::Result<f64> {
    let percent: f64 = text
        .trim_end_matches('%')
        .trim()
        .parse()
        .context("not a number")?;
    if !percent.is_finite() || percent < 0.0 {
        bail!("neither negative nor infinite, please");
    }
    Ok(percent)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_tolerance_is_a_percentage() {
        assert_eq!(percent("100 %").unwrap(), 100.0);
        assert_eq!(percent("7.5").unwrap(), 7.5);
        for wrong in ["", "-1", "inf", "NaN", "much"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
