//! Reading a log back: from the right place, in the asked form, and on as it grows.

use std::io;
use std::path::Path;

use lateen_apiserver::pods::{LogOptions, Reader};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{Log, State, older};

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    time: &'a str,
    /// Whether more of the same line follows.
    partial: bool,
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let _stream = parts.next()?;
        let partial = parts.next()? == b"P";
        Some(Self {
            time,
            partial,
            text: parts.next()?,
        })
    }

    fn render(&self, timestamps: bool, out: &mut Vec<u8>) {
        if timestamps {
            out.extend_from_slice(self.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(self.text);
        if !self.partial {
            out.push(b'\n');
        }
    }
}

/// Opens a log as plain text.
pub(crate) fn open(log: Log, options: LogOptions) -> Reader {
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        // An error here is a reader that went away or a log that was removed: the stream just ends.
        let _ = copy(log, options, near).await;
    });
    Box::new(far)
}

async fn copy(log: Log, options: LogOptions, mut out: tokio::io::DuplexStream) -> io::Result<()> {
    let mut left = options.limit_bytes.unwrap_or(u64::MAX);
    let mut follower = log.state.subscribe();
    let mut rendered = Vec::new();
    let mut seen = {
        // Files change places only under this lock.
        let _files = log.file.lock().await;
        let state = *follower.borrow_and_update();
        select(&whole(&log, state).await, &options, &mut rendered);
        state
    };
    send(&mut out, &rendered, &mut left).await?;
    while options.follow && left > 0 && !seen.closed {
        let gone = tokio::select! {
            changed = follower.changed() => changed.is_err(),
            // Nothing is ever written back, so this resolves when the reader has gone.
            _ = closed(&mut out) => true,
        };
        if gone {
            break;
        }
        rendered.clear();
        let (now, text) = {
            let _files = log.file.lock().await;
            let now = *follower.borrow_and_update();
            (now, since(&log, seen, now).await?)
        };
        for line in text.split_inclusive(|b| *b == b'\n') {
            if let Some(record) = Record::parse(line) {
                record.render(options.timestamps, &mut rendered);
            }
        }
        send(&mut out, &rendered, &mut left).await?;
        seen = now;
    }
    Ok(())
}

async fn closed(out: &mut tokio::io::DuplexStream) {
    let mut byte = [0u8; 1];
    let _ = out.read(&mut byte).await;
}

async fn send(out: &mut tokio::io::DuplexStream, bytes: &[u8], left: &mut u64) -> io::Result<()> {
    let most = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    *left -= most as u64;
    out.write_all(&bytes[..most]).await
}

/// Both files' text up to a state.
async fn whole(log: &Log, state: State) -> Vec<u8> {
    let mut text = if state.file_start > 0 {
        tokio::fs::read(older(&log.path)).await.unwrap_or_default()
    } else {
        Vec::new()
    };
    let mut current = tokio::fs::read(log.path.as_ref()).await.unwrap_or_default();
    current.truncate(usize::try_from(state.written - state.file_start).unwrap_or(usize::MAX));
    text.append(&mut current);
    text
}

/// What was written between two states.
async fn since(log: &Log, from: State, to: State) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut start = from.written - to.file_start.min(from.written);
    if to.file_start > from.written {
        // The current file is new: the end of the older one comes first. A reader more than one file
        // behind loses what lies between.
        start = 0;
        if from.file_start < to.file_start {
            let offset = from.written - from.file_start;
            text.append(&mut read_from(&older(&log.path), offset).await?);
        }
    }
    let mut current = read_from(&log.path, start).await?;
    current.truncate(usize::try_from(to.written - to.file_start - start).unwrap_or(usize::MAX));
    text.append(&mut current);
    Ok(text)
}

async fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(io::SeekFrom::Start(offset)).await?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).await?;
    Ok(text)
}

/// The part of a log that was asked for, in the asked form.
pub(super) fn select(text: &[u8], options: &LogOptions, out: &mut Vec<u8>) {
    let earliest = options.since_seconds.map(|seconds| {
        let ago = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX / 4));
        let from = jiff::Timestamp::now()
            .checked_sub(ago)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{from:.9}")
    });
    let records: Vec<Record<'_>> = text
        .split_inclusive(|b| *b == b'\n')
        .filter_map(Record::parse)
        // Times in this form sort as text.
        .filter(|record| earliest.as_deref().is_none_or(|from| record.time >= from))
        .collect();
    let mut start = 0;
    if let Some(most) = options.tail_lines {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let ends: Vec<usize> = records
            .iter()
            .enumerate()
            .filter(|(_, record)| !record.partial)
            .map(|(at, _)| at)
            .collect();
        start = match most {
            0 => records.len(),
            most if ends.len() <= most => 0,
            most => ends[ends.len() - most - 1] + 1,
        };
    }
    for record in &records[start..] {
        record.render(options.timestamps, out);
    }
}
