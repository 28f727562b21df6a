//! Every bound on what an HTTP peer may send, in one place.

use std::time::Duration;

/// Bounds on HTTP peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a message's head (Envoy: 60 KiB); more is answered 431.
    pub head_bytes: u32,
    /// Most headers of a message (Envoy: 100); more is answered 431.
    pub headers: usize,
    /// Bound on receiving a head once its first byte has come.
    pub head_time: Duration,
    /// How long a connection without requests is kept (Envoy: one hour).
    pub idle_time: Duration,
    /// HTTP/2 streams that a client may have open at once.
    pub streams: u32,
    /// HTTP/2 flow-control window of a stream, in bytes.
    pub stream_window: u32,
    /// HTTP/2 flow-control window of a connection, in bytes: larger than a stream's, or one slow stream stops all.
    pub connection_window: u32,
    /// HTTP/2 frame size, in bytes.
    pub frame: u32,
    /// Bytes that wait for an HTTP/2 stream's window before its body is no longer read.
    pub send_buffer: usize,
    /// Most bytes read ahead from an HTTP/1 connection.
    pub read_ahead: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            headers: 100,
            head_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(3600),
            streams: 1024,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            frame: 64 * 1024,
            send_buffer: 256 * 1024,
            read_ahead: 128 * 1024,
        }
    }
}
