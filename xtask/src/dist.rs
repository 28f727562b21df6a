//! Builds the program as it is packaged: optimized with a profile of the hot paths, which the same sources give in a run
//! of their own right before. Nothing of a profile is kept in the tree: it would be that of other sources.
//!
//! ```text
//! instrumented build -> hot paths, a small control plane -> llvm-profdata -> build with the profile
//! ```
//! Plain `cargo build` stays what it is: this needs the `llvm-profdata` of the compiler's LLVM beside it.

use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Hot paths of `lateen-instructions`, each with how often it is run.
const DATA_PLANE: [(&str, &str); 9] = [
    ("request", "20000"),
    ("request-h2", "20000"),
    ("request-balanced", "8000"),
    ("features", "3000"),
    ("copy", "4000"),
    ("route", "50000"),
    ("policy", "50000"),
    ("encode", "10000"),
    ("decode", "10000"),
];

/// What the control plane is made to do.
const CONTROL_PLANE: &str =
    "run --services 300 --endpoints 5 --routes 100 --proxies 40 --uses 20 --changes 20";

/// Packages whose features are resolved together, so that both builds have the same names for the same code.
const PACKAGES: [&str; 3] = ["lateen-cli", "lateen-instructions", "lateen-benches"];

/// Builds the program; says where it is.
///
/// # Errors
/// A tool is missing, or a build or the run for the profile fails.
pub fn run() -> Result<PathBuf> {
    let compiler = Compiler::found()?;
    let target = crate::ci::target_directory()?;
    let work = target.join("profile");
    let raw = work.join("raw");
    if raw.exists() {
        std::fs::remove_dir_all(&raw)?;
    }
    std::fs::create_dir_all(&raw)?;
    println!("── dist: build that notes what is run");
    let noting = format!("-Cprofile-generate={}", raw.display());
    let programs = ["lateen-instructions", "bench-control-plane"];
    // Linking all of it as one would only take longer: what is noted is noted before.
    let folder = compiler.build(&target.join("dist-noting"), &noting, &programs, Some("off"))?;
    println!("── dist: run");
    observe(&folder, &work)?;
    let profile = merged(&compiler, &raw, &work)?;
    println!("── dist: build with the profile");
    let using = format!("-Cprofile-use={}", profile.display());
    let folder = compiler.build(&target.join("dist-profiled"), &using, &["lateen"], None)?;
    let program = folder.join("lateen");
    println!("── dist: {}", program.display());
    Ok(program)
}

/// The compiler, and what belongs to it.
struct Compiler {
    /// The machine that is built for.
    host: String,
    profdata: PathBuf,
}

impl Compiler {
    fn found() -> Result<Self> {
        let said = output(Command::new("rustc").arg("-vV"))?;
        let field = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.map(|text| text.trim().to_owned())
                .with_context(|| format!("rustc -vV says no {name:?}"))
        };
        let host = field("host:")?;
        let version = field("LLVM version:")?;
        let major = version.split('.').next().unwrap_or_default().to_owned();
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let own = Path::new(sysroot.trim()).join(format!("lib/rustlib/{host}/bin/llvm-profdata"));
        let of_system = PathBuf::from(format!("llvm-profdata-{major}"));
        for profdata in [own, of_system, PathBuf::from("llvm-profdata")] {
            let asked = Command::new(&profdata).arg("--version").output();
            let text = asked.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
            if text.is_ok_and(|text| text.contains(&format!("version {major}."))) {
                return Ok(Self { host, profdata });
            }
        }
        bail!(
            "dist needs llvm-profdata of LLVM {major}: `rustup component add llvm-tools`, or Debian's llvm-{major}; \
             without a profile: cargo build --profile dist --package lateen-cli"
        )
    }

    /// Builds these programs with `flag`; says in which folder they are.
    fn build(
        &self,
        target: &Path,
        flag: &str,
        programs: &[&str],
        lto: Option<&str>,
    ) -> Result<PathBuf> {
        let mut cargo = Command::new(env!("CARGO"));
        // With a target that is named, build scripts and macros are built without the flag.
        cargo.args(["build", "--profile", "dist", "--target", &self.host]);
        for package in PACKAGES {
            cargo.args(["--package", package]);
        }
        for program in programs {
            cargo.args(["--bin", program]);
        }
        cargo.env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", flag);
        if let Some(lto) = lto {
            cargo.env("CARGO_PROFILE_DIST_LTO", lto);
        }
        let done = cargo.status().context("cannot start cargo")?;
        ensure!(done.success(), "{} cannot be built", programs.join(", "));
        Ok(target.join(&self.host).join("dist"))
    }
}

/// Runs the paths whose profile is wanted.
fn observe(folder: &Path, work: &Path) -> Result<()> {
    let instructions = folder.join("lateen-instructions");
    for (case, times) in DATA_PLANE {
        run_quietly(Command::new(&instructions).args([case, times]))
            .with_context(|| format!("the hot path {case}"))?;
    }
    let benches = folder.join("bench-control-plane");
    let mut control = Command::new(benches);
    control.args(CONTROL_PLANE.split(' ')).current_dir(work);
    run_quietly(&mut control).context("the control plane")
}

fn merged(compiler: &Compiler, raw: &Path, work: &Path) -> Result<PathBuf> {
    let profile = work.join("lateen.profdata");
    let mut merge = Command::new(&compiler.profdata);
    merge.arg("merge").arg("-o").arg(&profile).arg(raw);
    run_quietly(&mut merge).context("llvm-profdata")?;
    Ok(profile)
}

fn run_quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(
        done.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
