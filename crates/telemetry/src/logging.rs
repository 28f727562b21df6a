//! The process's own log: one line per event on standard error, with a level that can change while it runs.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// Changes the level of a running process.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// The level cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum LogLevelError {
    /// The text is neither a level nor a list of `target=level`.
    #[error("log level {0:?} is not known: use error, warn, info, debug or trace")]
    Unknown(String),
    /// The process has another log already.
    #[error("the process's log is already set up")]
    Taken,
}

/// Starts the process's log at `level` (`info`, or a list such as `info,hyper=debug`).
///
/// # Errors
/// The level is not known, or the process has a log already.
pub fn start(level: &str) -> Result<LogLevel, LogLevelError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_writer(std::io::stderr).with_ansi(false))
        .try_init()
        .map_err(|_| LogLevelError::Taken)?;
    Ok(LogLevel(handle))
}

fn parse(level: &str) -> Result<EnvFilter, LogLevelError> {
    EnvFilter::try_new(level).map_err(|_| LogLevelError::Unknown(level.to_owned()))
}

impl LogLevel {
    /// Sets the level, in the form that [`start`] takes.
    ///
    /// # Errors
    /// The level is not known.
    pub fn set(&self, level: &str) -> Result<(), LogLevelError> {
        self.0
            .reload(parse(level)?)
            .map_err(|_| LogLevelError::Taken)
    }

    /// The level in force.
    pub fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}
