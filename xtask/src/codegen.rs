//! `cargo xtask codegen`: regenerates `crates/proto/src/gen` from `crates/proto/proto`. The generated
//! files are committed, so that a build needs no generator; no `protoc` is needed either.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Generates Rust for every `.proto` file of the project whose root is `root`.
pub fn run(root: &Path) -> Result<()> {
    let source = root.join("crates/proto/proto");
    let target = root.join("crates/proto/src/gen");
    let mut files = Vec::new();
    collect(&source, &mut files)?;
    files.sort();
    std::fs::create_dir_all(&target)?;
    let descriptors = protox::compile(&files, [&source]).context("compiling .proto files")?;
    tonic_prost_build::configure()
        .out_dir(&target)
        // Maps in a fixed order: equal values must have equal bytes, as versions are hashes of them.
        .btree_map(".")
        // Bytes of resources are shared between streams instead of copied.
        .bytes(".envoy.service.discovery.v3.Any")
        .compile_fds(descriptors)
        .context("generating Rust")?;
    println!("generated {} files from {}", files.len(), source.display());
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
