//! Development tasks: `cargo xtask ci|tidy|test|e2e|bless|codegen`. CI calls only `ci`.

mod ci;
mod codegen;
mod tidy;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let task = std::env::args().nth(1).unwrap_or_default();
    match task.as_str() {
        "ci" => ci::everything(),
        "tidy" => tidy::run(),
        "test" => ci::unit_tests(),
        "e2e" => ci::end_to_end(),
        "bless" => ci::bless(),
        "codegen" => codegen::run(std::path::Path::new(".")),
        "" | "help" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no task {other:?}\n{HELP}"),
    }
}

const HELP: &str = "\
cargo xtask <task>

  ci       everything CI checks: fmt, tidy, clippy, tests, docs, end-to-end
  tidy     arrows between crates, first lines, file sizes
  test     unit and integration tests, without end-to-end
  e2e      builds the release binary and runs the walk-throughs against it
  bless    rewrites expected outputs of tests
  codegen  regenerates crates/proto/src/gen from the .proto files
";
