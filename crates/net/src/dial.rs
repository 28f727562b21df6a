//! Opening connections of our own: marked so that capture leaves them alone, bounded in time.

use crate::listen::tune;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// Socket mark that capture rules exempt (Istio: 1337).
pub const MARK: u32 = 1337;

/// How to open a connection.
#[derive(Debug, Clone, Copy)]
pub struct Dial {
    /// Bound on connecting.
    pub timeout: Duration,
    /// Address to bind first; absent: the kernel chooses.
    pub source: Option<IpAddr>,
    /// Keep-alive probes; absent: those of every connection of ours.
    pub keepalive: Option<Keepalive>,
}

/// Keep-alive probes; what is absent is the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Unanswered probes before a connection counts as dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe, to the second.
    pub time: Option<Duration>,
    /// Time between probes, to the second.
    pub interval: Option<Duration>,
}

impl Keepalive {
    // A kernel that knows no such probes has a connection without.
    fn set(self, stream: &TcpStream) {
        let mut settings = TcpKeepalive::new();
        // Less than a second would be 0, which the kernel refuses.
        let seconds = |time: Duration| time.max(Duration::from_secs(1));
        if let Some(time) = self.time {
            settings = settings.with_time(seconds(time));
        }
        if let Some(interval) = self.interval {
            settings = settings.with_interval(seconds(interval));
        }
        if let Some(probes) = self.probes {
            settings = settings.with_retries(probes);
        }
        let _ = SockRef::from(stream).set_tcp_keepalive(&settings);
    }
}

/// A connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answered in time.
    #[error("no answer from {address} within {} ms", timeout.as_millis())]
    Timeout {
        /// Who was called.
        address: SocketAddr,
        /// How long.
        timeout: Duration,
    },
    /// The kernel or the peer refused.
    #[error("cannot connect to {address}: {source}")]
    Refused {
        /// Who was called.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Whoever asked for the connection gave it up because the address went out of use meanwhile.
    #[error("gave up connecting to {address}: it went out of use meanwhile")]
    OutOfUse {
        /// Who was called.
        address: SocketAddr,
    },
}

impl DialError {
    /// The reason in Envoy's words, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub fn transport_reason(&self) -> String {
        match self {
            Self::Timeout { .. } => "connection timeout".to_owned(),
            Self::OutOfUse { .. } => "endpoint removed".to_owned(),
            Self::Refused { source, .. } => {
                let text = source.to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                format!("delayed connect error: {text}")
            }
        }
    }
}

// Once the kernel says that we may not mark sockets, capture exempts us by user id: asking again is waste.
static MARKING_REFUSED: AtomicBool = AtomicBool::new(false);

/// Marks a socket so that capture leaves it alone. Without the right to do so nothing happens:
/// capture then exempts us by user.
pub fn exempt(socket: &impl AsFd) {
    if MARKING_REFUSED.load(Ordering::Relaxed) {
        return;
    }
    if SockRef::from(socket).set_mark(MARK).is_err() {
        MARKING_REFUSED.store(true, Ordering::Relaxed);
    }
}

/// Connects to `address`.
///
/// # Errors
/// The peer refuses, is unreachable, or does not answer within the bound.
pub async fn dial(address: SocketAddr, how: &Dial) -> Result<TcpStream, DialError> {
    let connect = async {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        exempt(&socket);
        if let Some(source) = how.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        tune(&stream);
        if let Some(keepalive) = how.keepalive {
            keepalive.set(&stream);
        }
        Ok(stream)
    };
    match tokio::time::timeout(how.timeout, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(DialError::Refused { address, source }),
        Err(_) => Err(DialError::Timeout {
            address,
            timeout: how.timeout,
        }),
    }
}
