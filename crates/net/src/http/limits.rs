//! Every bound on what an HTTP peer may do, in one place, with the value that Envoy has for the same.
//!
//! Bounds that are sizes hold per message, stream or connection as they say; bounds per second hold per connection.
//! There is none on the requests of a connection, nor on a request's body that pauses: streams may last. While the
//! process is short of memory ([`crate::memory::pressure`]) nobody is waited for as long ([`Limits::hurried`]).
//!
//! Bounds that are no setting stand where they hold: on a line of a head that is put together from parts (256 KiB), a
//! chunk's extensions (1 KiB), empty lines before a request (2) and interim responses in a row (64) in `framing`; on
//! bytes that are held back behind an upgrade (64 KiB) in `guard`; on trailers of HTTP/1 (16 KiB, 100 fields), on a
//! target (65,534 bytes) and on a body that is read only for what follows it (64 KiB) in `h1`; on the rest of a body
//! that nobody waits for (16 KiB a stream) in `flow`. In the proxy: bytes of a request kept for another try (64 KiB) in `upstream::replay`, connections
//! of its own servers (64 each, 10 s idle) in `admin`, time for a TLS handshake in `tls`, descriptors and memory in
//! `overload`, series of metrics in `lateen_telemetry::metrics`.

use std::time::Duration;

/// Bounds on HTTP peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a message's head (Envoy: 60 KiB); more is answered 431. HTTP/2: the decoded size, with 32 bytes
    /// for each field, every crumb of a cookie counted (RFC 9113 §6.5.2).
    pub head_bytes: u32,
    /// Most headers of a message, every crumb of a cookie counted (Envoy: 100); more is answered 431.
    pub headers: usize,
    /// Bound on receiving a head once its first byte has come (Envoy: none; Apache: 60 s).
    pub head_time: Duration,
    /// How long a connection without requests is kept (Envoy: one hour).
    pub idle_time: Duration,
    /// How long a peer may take no byte while we have some for it (Envoy: 5 minutes, `stream_flush_timeout`).
    pub stall_time: Duration,
    /// HTTP/2 streams that a client may have open at once (Envoy: 1024 by default since 1.37, before that unbounded).
    pub streams: u32,
    /// HTTP/2 flow-control window of a stream, in bytes (Envoy: 256 MiB; its advice for an edge: 64 KiB).
    pub stream_window: u32,
    /// HTTP/2 flow-control window of a connection, in bytes: larger than a stream's, or one slow stream stops all
    /// (Envoy: 256 MiB; its advice for an edge: 1 MiB).
    pub connection_window: u32,
    /// HTTP/2 frame size, in bytes (Envoy: 16 KiB).
    pub frame: u32,
    /// Bytes that wait for an HTTP/2 stream's window before its body is no longer read; `streams` of them may wait on a
    /// connection.
    pub send_buffer: usize,
    /// Most bytes of a request's body; more is answered 413. Absent: any number (Envoy: the same without its buffer
    /// filter).
    pub body_bytes: Option<u64>,
    /// How long a connection that is copied byte for byte may carry nothing (Envoy, Istio: one hour).
    pub tcp_idle_time: Duration,
    /// Streams that a client resets in a second, when they are half of those it opens or more (Envoy: 500 resets within
    /// a second of opening, when they are half of all).
    pub resets: u32,
    /// Streams that a client resets in a second at most, however many it opens.
    pub all_resets: u32,
    /// Streams that a client makes us reset by its errors before the connection ends (the engine: 1024).
    pub local_resets: usize,
    /// PING frames in a second, beyond those that answer what we send (Envoy: 1000 answers that the peer does not read).
    pub pings: u32,
    /// SETTINGS frames in a second (Envoy: as pings).
    pub settings: u32,
    /// WINDOW_UPDATE, PRIORITY, GOAWAY and unknown frames in a second, beyond those that answer what we send (Envoy: 10 for each
    /// data frame sent, 100 priorities for each stream).
    pub window_updates: u32,
    /// DATA frames in a second that carry nothing and end nothing (Envoy: 1 in a row).
    pub empty_frames: u32,
    /// Frames of one header block (Envoy: bounded by the size of the block alone).
    pub continuations: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            headers: 100,
            head_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(3600),
            stall_time: Duration::from_secs(300),
            streams: 1024,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            frame: 64 * 1024,
            send_buffer: 64 * 1024,
            body_bytes: None,
            tcp_idle_time: Duration::from_secs(3600),
            resets: 200,
            all_resets: 1000,
            local_resets: 1024,
            pings: 1000,
            settings: 100,
            window_updates: 2000,
            empty_frames: 100,
            continuations: 32,
        }
    }
}

/// Longest times while the process is short of memory.
const HURRIED_HEAD: Duration = Duration::from_secs(5);
const HURRIED: Duration = Duration::from_secs(10);

impl Limits {
    /// The same with the patience that the process has now.
    pub fn hurried(self) -> Self {
        if !crate::memory::pressure::is_pressed() {
            return self;
        }
        Self {
            head_time: self.head_time.min(HURRIED_HEAD),
            idle_time: self.idle_time.min(HURRIED),
            stall_time: self.stall_time.min(HURRIED),
            ..self
        }
    }
}
