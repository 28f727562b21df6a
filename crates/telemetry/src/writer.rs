//! Writing log lines without ever holding up the data plane: a bounded queue, and a thread behind it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Batches that may wait; each holds at most a few tens of kilobytes.
const QUEUE: usize = 128;

/// A handle to the writing thread. Cheap to clone; the thread ends with the last handle.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(mut out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, batches) = sync_channel::<Vec<u8>>(QUEUE);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                for batch in batches {
                    // A reader that went away must not end the proxy: what it does not take is lost.
                    let _ = out.write_all(&batch).and_then(|()| out.flush());
                }
            })?;
        Ok(Self {
            queue,
            dropped: Arc::default(),
        })
    }

    /// Hands over a batch of `lines` lines. When the queue is full the batch is dropped and counted.
    pub fn write(&self, batch: Vec<u8>, lines: u64) {
        if self.queue.try_send(batch).is_err() {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Announces each write, and waits to be let go.
    struct Stuck(Sender<()>, Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_not_time() {
        let ((begun, seen), (release, wait)) = (channel(), channel());
        let writer = LogWriter::start(Stuck(begun, wait)).unwrap();
        writer.write(b"first\n".to_vec(), 1);
        seen.recv().unwrap();
        for _ in 0..QUEUE + 3 {
            writer.write(b"x\n".to_vec(), 2);
        }
        assert_eq!(writer.dropped(), 6);
        drop(release);
    }
}
