//! Development tasks: `cargo xtask ci|tidy|test|e2e|soak|fuzz|instructions|bench|dist|bless|codegen`. CI calls only `ci`.

mod bench;
mod ci;
mod codegen;
mod dist;
mod fuzz;
mod instructions;
mod tidy;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let task = std::env::args().nth(1).unwrap_or_default();
    match task.as_str() {
        "ci" => ci::everything(),
        "tidy" => tidy::run(),
        "test" => ci::unit_tests(),
        "e2e" => ci::end_to_end(),
        "soak" => ci::soak(),
        "fuzz" => fuzz(),
        "bench" => bench::run(std::env::args().skip(2)),
        "dist" => dist::run().map(drop),
        "bless" => ci::bless(),
        "instructions" => instructions::run(std::env::args().skip(2)),
        "codegen" => codegen::run(std::path::Path::new(".")),
        "" | "help" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no task {other:?}\n{HELP}"),
    }
}

/// `fuzz [--seconds N] [TARGET…]`.
fn fuzz() -> Result<()> {
    let mut seconds = 60;
    let mut only = Vec::new();
    let mut arguments = std::env::args().skip(2);
    while let Some(argument) = arguments.next() {
        if argument == "--seconds" {
            let given = arguments.next().unwrap_or_default();
            seconds = given
                .parse()
                .map_err(|_| anyhow::anyhow!("--seconds {given:?} is not a number"))?;
        } else {
            only.push(argument);
        }
    }
    fuzz::run(seconds, &only)
}

const HELP: &str = "\
cargo xtask <task>

  ci       everything CI checks: fmt, tidy, clippy, tests, docs, fuzz, end-to-end
  tidy     arrows between crates, first lines, file sizes
  test     unit and integration tests, without end-to-end
  e2e      builds the release binary and runs the walk-throughs against it
  soak     certificates of minutes under load for a quarter of an hour, roots rotated, the CA away
  fuzz     runs the fuzz targets on their corpus: fuzz [--seconds 60] [TARGET...]
  instructions
           counts instructions and allocations of the data plane's hot paths (needs valgrind); with `bless` the
           counts become the bounds
  bench    bench data-plane: measures the data plane beside Envoy, nginx and HAProxy (HARNESS: their benchmark)
           bench control-plane [--services N --endpoints M --proxies P …]: measures the control plane
  dist     builds the program as it is packaged, optimized with a profile of its own hot paths (needs llvm-profdata)
  bless    rewrites expected outputs of tests
  codegen  regenerates crates/proto/src/gen from the .proto files
";
