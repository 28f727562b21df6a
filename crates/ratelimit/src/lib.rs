//! The rate-limit service: says of hits, by domain and descriptors, whether they are within their limits.
//!
//! ```text
//! gRPC (envoy.service.ratelimit.v3) -> engine: limits -> windows -> store (memory | Redis) -> answer
//! folder of YAML -> limits, again on each change
//! ```
//! It is an ordinary server: it knows no mesh. Whom its answers hold back is decided by whoever asks.

mod admin;
pub mod engine;
pub mod folder;
pub mod limits;
pub mod stats;
pub mod store;
#[cfg(test)]
mod tests;
pub mod window;

use crate::engine::{Engine, Refused};
use crate::folder::{Folder, Unread};
use crate::stats::Stats;
use crate::store::Store;
use crate::store::memory::Memory;
use crate::store::redis::{Redis, Settings};
use lateen_proto::ratelimit::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use lateen_proto::ratelimit::{RateLimitRequest, RateLimitResponse};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Largest request in bytes: clients may pass on long headers.
const LARGEST_REQUEST: usize = 1 << 20;
/// Requests of one connection at once.
const STREAMS: u32 = 1024;
/// How often the limits are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the service is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// File or folder with the limits.
    pub limits: PathBuf,
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves its metrics.
    pub admin: SocketAddr,
    /// Where hits are counted; absent: in memory.
    pub redis: Option<Settings>,
    /// Whether hits pass when they cannot be counted; else they get an error.
    pub fail_open: bool,
    /// Most counters in memory.
    pub counters: usize,
}

/// The service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port cannot be had.
    #[error("cannot listen at {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The limits make no sense; there are none from before.
    #[error(transparent)]
    Limits(#[from] Unread),
    /// gRPC ends.
    #[error("serving gRPC: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Runs until `shutdown`.
///
/// # Errors
/// The limits cannot be read at the start, or a port is taken.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let stats = Arc::new(Stats::default());
    let store = match &config.redis {
        Some(settings) => Store::Redis(Redis::start(settings.clone())),
        None => Store::Memory(Memory::new(config.counters)),
    };
    let engine = Arc::new(Engine::new(store, config.fail_open, stats));
    let mut folder = Folder::new(config.limits);
    folder.refresh(&engine)?;
    let listen = |address: SocketAddr| async move {
        let bound = TcpListener::bind(address).await;
        bound.map_err(|error| Error::Listen(address, error))
    };
    let grpc = listen(config.listen).await?;
    let admin = listen(config.admin).await?;
    tracing::info!(
        "rate limits at {}, metrics at {}",
        config.listen,
        config.admin
    );
    tokio::select! {
        served = serve(grpc, Arc::clone(&engine), shutdown) => served,
        () = admin::serve(admin, Arc::clone(&engine)) => Ok(()),
        () = folder.follow(&engine, LOOK) => Ok(()),
    }
}

/// Serves gRPC until `shutdown`; requests under way are finished.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = RateLimitServiceServer::new(Service(engine));
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .add_service(service.max_decoding_message_size(LARGEST_REQUEST))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(Into::into)
}

/// The engine behind gRPC, by the system's clock.
#[derive(Debug)]
struct Service(Arc<Engine>);

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let answer = self.0.answer(request.get_ref(), now.unwrap_or_default());
        match answer.await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(refused @ Refused::Invalid(_)) => {
                Err(Status::invalid_argument(refused.to_string()))
            }
            Err(refused @ Refused::Unavailable(_)) => Err(Status::unavailable(refused.to_string())),
        }
    }
}
