//! Container logs: what a program writes is kept line by line with its time, bounded in size, and can be
//! read back, followed, and cut as `kubectl logs` asks. The form on disk is that of container runtimes:
//! `<RFC 3339 time> <stdout|stderr> <F|P> <text>`, P for a piece of a line that was cut for its length.

mod reader;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{broadcast, watch};

use super::terminal::Terminal;
pub(crate) use reader::open;

/// A file is at most this long; then it is set aside and a new one begun. Two files are kept.
const FILE_LIMIT: u64 = 4 << 20;
/// Longer lines are cut into pieces.
const LINE_LIMIT: usize = 16 << 10;

/// The log of one run of one container.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: Arc<PathBuf>,
    state: Arc<watch::Sender<State>>,
    file: Arc<tokio::sync::Mutex<Option<(File, u64)>>>,
    writers: Arc<Mutex<usize>>,
    /// What comes, as it comes, for those who are attached; absent once nothing more will come.
    live: Arc<Mutex<Option<broadcast::Sender<Piece>>>>,
}

/// Some bytes of a program's output.
pub(crate) type Piece = (Stream, Arc<[u8]>);

/// How many pieces an attached client may be behind before it misses some: the container never waits for it.
const BEHIND: usize = 256;

/// What followers wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    /// Bytes written so far, over all files.
    written: u64,
    /// Where the current file begins in that count.
    file_start: u64,
    /// Nothing more will come.
    closed: bool,
}

/// Which of a program's files a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Log {
    /// An empty log at a path.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
            state: Arc::new(watch::channel(State::default()).0),
            file: Arc::default(),
            writers: Arc::default(),
            live: Arc::new(Mutex::new(Some(broadcast::channel(BEHIND).0))),
        }
    }

    /// The output from now on, in pieces as the program writes them; absent when it has ended.
    pub(crate) fn listen(&self) -> Option<broadcast::Receiver<Piece>> {
        self.live.lock().as_ref().map(broadcast::Sender::subscribe)
    }

    /// Copies a program's output into the log until the program closes it. Runs in the background.
    pub(crate) fn copy_from(&self, pipe: OwnedFd, stream: Stream) -> io::Result<()> {
        self.copy_in_background(pipe::Receiver::from_owned_fd(pipe)?, stream);
        Ok(())
    }

    /// Copies what a program writes to its terminal into the log. Runs in the background.
    pub(crate) fn copy_terminal(&self, terminal: Terminal) {
        self.copy_in_background(terminal, Stream::Out);
    }

    fn copy_in_background(&self, from: impl AsyncRead + Send + Unpin + 'static, stream: Stream) {
        *self.writers.lock() += 1;
        let log = self.clone();
        tokio::spawn(async move {
            if let Err(error) = log.copy(from, stream).await {
                tracing::warn!(path = %log.path.display(), %error, "a container's output cannot be read");
            }
            let mut writers = log.writers.lock();
            *writers -= 1;
            if *writers == 0 {
                log.state.send_modify(|state| state.closed = true);
                *log.live.lock() = None;
            }
        });
    }

    async fn copy(&self, mut from: impl AsyncRead + Unpin, stream: Stream) -> io::Result<()> {
        let mut lines = Lines::new(stream);
        let mut buffer = vec![0; 8 << 10];
        loop {
            let length = from.read(&mut buffer).await?;
            let now = jiff::Timestamp::now();
            if length == 0 {
                lines.finish(now);
            } else {
                lines.push(&buffer[..length], now);
                let live = self.live.lock();
                if let Some(live) = live.as_ref().filter(|live| live.receiver_count() > 0) {
                    let _ = live.send((stream, Arc::from(&buffer[..length])));
                }
            }
            if !lines.ready.is_empty() {
                // A full disk costs lines, never the container, whose pipe must not fill up.
                if let Err(error) = self.append(&lines.ready).await {
                    tracing::debug!(%error, "lost log lines");
                }
                lines.ready.clear();
            }
            if length == 0 {
                return Ok(());
            }
        }
    }

    async fn append(&self, text: &[u8]) -> io::Result<()> {
        let mut slot = self.file.lock().await;
        let full = slot.as_ref().is_some_and(|(_, size)| *size >= FILE_LIMIT);
        if full {
            *slot = None;
            tokio::fs::rename(self.path.as_ref(), older(&self.path)).await?;
        }
        let (file, size) = match slot.as_mut() {
            Some(open) => open,
            None => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(self.path.as_ref())
                    .await?;
                slot.insert((file, 0))
            }
        };
        file.write_all(text).await?;
        file.flush().await?;
        *size += text.len() as u64;
        self.state.send_modify(|state| {
            if full {
                state.file_start = state.written;
            }
            state.written += text.len() as u64;
        });
        Ok(())
    }

    /// The last lines as plain text, for a termination message.
    pub(crate) fn tail(&self, most_lines: usize, most_bytes: usize) -> String {
        let text = std::fs::read(self.path.as_ref()).unwrap_or_default();
        let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
        let start = lines.len().saturating_sub(most_lines);
        let mut out = String::new();
        for line in &lines[start..] {
            if let Some(record) = reader::Record::parse(line) {
                out.push_str(&String::from_utf8_lossy(record.text));
                out.push('\n');
            }
        }
        let mut cut = out.len().saturating_sub(most_bytes);
        while !out.is_char_boundary(cut) {
            cut += 1;
        }
        out.split_off(cut)
    }

    /// Removes the files.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(self.path.as_ref());
        let _ = std::fs::remove_file(older(&self.path));
    }
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Turns bytes as they come into finished log lines.
#[derive(Debug)]
struct Lines {
    stream: Stream,
    partial: Vec<u8>,
    /// Whether earlier pieces of the current line were cut off for its length.
    cut: bool,
    ready: Vec<u8>,
}

impl Lines {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
            cut: false,
            ready: Vec::new(),
        }
    }

    fn push(&mut self, mut bytes: &[u8], now: jiff::Timestamp) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.partial.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.cut_long(now);
            self.emit(now, 'F');
            self.cut = false;
        }
        self.partial.extend_from_slice(bytes);
        self.cut_long(now);
    }

    fn cut_long(&mut self, now: jiff::Timestamp) {
        while self.partial.len() > LINE_LIMIT {
            let rest = self.partial.split_off(LINE_LIMIT);
            self.emit(now, 'P');
            self.partial = rest;
            self.cut = true;
        }
    }

    fn finish(&mut self, now: jiff::Timestamp) {
        if !self.partial.is_empty() || self.cut {
            self.emit(now, 'F');
        }
    }

    fn emit(&mut self, now: jiff::Timestamp, tag: char) {
        let stream = match self.stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        self.ready
            .extend_from_slice(format!("{now:.9} {stream} {tag} ").as_bytes());
        self.ready.append(&mut self.partial);
        self.ready.push(b'\n');
    }
}

#[cfg(test)]
mod tests;
