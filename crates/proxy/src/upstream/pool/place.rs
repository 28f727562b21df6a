//! What makes connections interchangeable: the endpoint, how it is called, and the terms that its cluster sets.

use crate::upstream::limits;
use crate::upstream::secure::Security;
use lateen_base::Str;
use lateen_model::decide::cluster::{Cluster, ClusterSettings};
use lateen_model::traffic::{ConnectionPool, ProxyProtocol};
use lateen_net::dial::Keepalive;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long an idle connection is kept where nothing else is said.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// An endpoint, and how it is called: connections of different places are not interchangeable, as capture tells sources
/// apart, and peers tell certificates apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    /// Absent: the kernel chooses.
    pub(crate) source: Option<IpAddr>,
    /// Whether it is the application beside us.
    pub(crate) beside: bool,
    pub(crate) security: Security,
    /// Of the certificates in use; 0 without TLS.
    pub(crate) generation: u64,
    /// Absent: the cluster sets no terms, and the connection may serve any other that sets none.
    pub(crate) terms: Option<Terms>,
    /// What the endpoint is told of the client first; absent: nothing.
    pub(crate) preface: Option<Preface>,
}

/// A cluster's terms for its connections.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    cluster: Str,
    settings: Arc<ClusterSettings>,
}

/// A client's connection, as the PROXY protocol tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Preface {
    pub(crate) version: ProxyProtocol,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Terms {
    /// The terms of a cluster; none when it sets none.
    pub(crate) fn of(cluster: &Cluster) -> Option<Self> {
        let settings = &cluster.settings;
        let pool = &settings.pool;
        let plain = pool.keepalive.is_none()
            && pool.max_connection_duration.is_none()
            && pool.max_requests_per_connection.is_none()
            && pool.http_idle_timeout.is_none()
            && pool.max_concurrent_streams.is_none()
            && pool.http2_keepalive.is_none();
        (!plain || limits::counts(settings)).then(|| Self {
            cluster: cluster.name.clone(),
            settings: Arc::clone(settings),
        })
    }

    pub(super) fn pool(&self) -> &ConnectionPool {
        &self.settings.pool
    }
}

impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.settings, &other.settings);
        self.cluster == other.cluster && (same || self.pool() == other.pool())
    }
}

impl Eq for Terms {}

impl Hash for Terms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cluster.hash(state);
    }
}

// Few places share an address: the rest is for comparison alone.
impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        self.generation.hash(state);
    }
}

impl Place {
    /// The cluster's limits; absent: there are none.
    pub(super) fn pool(&self) -> Option<&ConnectionPool> {
        self.terms.as_ref().map(Terms::pool)
    }

    /// How long an idle connection is kept; absent: for ever.
    pub(super) fn idle(&self) -> Option<Duration> {
        match self.pool().and_then(|pool| pool.http_idle_timeout) {
            None => Some(IDLE),
            Some(time) => (!time.is_zero()).then_some(time),
        }
    }

    /// Whether somebody has to watch an idle connection: its end is timed, or others may need its slot.
    pub(super) fn is_watched(&self) -> bool {
        let watched = |pool: &ConnectionPool| {
            pool.http_idle_timeout.is_some()
                || pool.max_connections.is_some()
                || pool.max_connection_duration.is_some()
        };
        self.pool().is_some_and(watched)
    }

    /// Requests that one connection may serve.
    pub(super) fn most_requests(&self) -> u32 {
        let most = self
            .pool()
            .and_then(|pool| pool.max_requests_per_connection);
        most.unwrap_or(u32::MAX)
    }

    /// Longest life of a connection.
    pub(super) fn life(&self) -> Duration {
        let most = self.pool().and_then(|pool| pool.max_connection_duration);
        most.unwrap_or(Duration::MAX)
    }

    /// Keep-alive probes.
    pub(crate) fn keepalive(&self) -> Option<Keepalive> {
        let asked = self.pool()?.keepalive?;
        Some(Keepalive {
            probes: asked.probes,
            time: asked.time,
            interval: asked.interval,
        })
    }

    /// Pings of HTTP/2: time between them, and the bound on an answer.
    pub(super) fn ping(&self) -> Option<(Duration, Duration)> {
        let asked = self.pool()?.http2_keepalive?;
        Some((asked.interval, asked.timeout))
    }
}
