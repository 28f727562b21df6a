//! Where limits are written: a YAML file, or a folder of them such as a ConfigMap makes. Read again when it changes; what
//! is wrong leaves the limits that are in force.

use crate::engine::Engine;
use crate::limits::{Broken, read_texts};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest file that is read, in bytes.
const LARGEST: u64 = 4 << 20;
/// Most files.
const MOST_FILES: usize = 1000;

/// Limits cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// A file or folder cannot be read.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// A file is too long, or there are too many.
    #[error("{0}")]
    TooMuch(String),
    /// A file makes no sense.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// The files' names and texts, in their order.
type Texts = Vec<(String, String)>;

/// A place where limits are written.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// What was read last, whether it was good or not; absent: nothing could be.
    last: Option<Texts>,
}

impl Folder {
    /// A file, or a folder whose files that end in `.yaml` or `.yml` are read.
    pub fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// Reads the place, and puts its limits into force when they are others than before. True: they are.
    ///
    /// # Errors
    /// They cannot be read; those in force stay. Said once for each change.
    pub fn refresh(&mut self, engine: &Engine) -> Result<bool, Unread> {
        let texts = read(&self.path).inspect_err(|_| failed(engine))?;
        if self.last.as_ref() == Some(&texts) {
            return Ok(false);
        }
        let limits = read_texts(&texts, engine.stats());
        self.last = Some(texts);
        let limits = limits.inspect_err(|_| failed(engine))?;
        engine.stats().config_loads.fetch_add(1, Ordering::Relaxed);
        engine.set(limits);
        Ok(true)
    }

    /// Looks again every `interval`, for ever.
    pub async fn follow(mut self, engine: &Engine, interval: Duration) {
        let mut said = String::new();
        loop {
            tokio::time::sleep(interval).await;
            match self.refresh(engine) {
                Ok(changed) => {
                    if changed {
                        tracing::info!("limits read from {}", self.path.display());
                        said.clear();
                    }
                }
                Err(unread) => {
                    let words = unread.to_string();
                    if words != said {
                        tracing::error!("{words}; the limits from before stay in force");
                        said = words;
                    }
                }
            }
        }
    }
}

fn failed(engine: &Engine) {
    engine.stats().config_errors.fetch_add(1, Ordering::Relaxed);
}

fn read(path: &Path) -> Result<Texts, Unread> {
    let io = |path: &Path| {
        let shown = path.display().to_string();
        move |error| Unread::Io(shown, error)
    };
    if !path.is_dir() {
        return Ok(vec![text(path)?]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io(path))? {
        let file = entry.map_err(io(path))?.path();
        let is_yaml = file.extension().is_some_and(|e| e == "yaml" || e == "yml");
        // Names with a dot in front are the folders behind a ConfigMap's links.
        let is_hidden = file
            .file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !is_hidden && file.is_file() {
            files.push(file);
        }
    }
    if files.len() > MOST_FILES {
        let message = format!(
            "{}: more than {MOST_FILES} files: merge them",
            path.display()
        );
        return Err(Unread::TooMuch(message));
    }
    files.sort();
    files.iter().map(|file| text(file)).collect()
}

fn text(path: &Path) -> Result<(String, String), Unread> {
    let shown = path.display().to_string();
    let io = |error| Unread::Io(shown.clone(), error);
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > LARGEST {
        let message = format!("{shown}: {length} bytes are more than {LARGEST}: split it");
        return Err(Unread::TooMuch(message));
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    Ok((shown, text))
}
