//! An open-loop load: requests start on a fixed beat whether or not earlier ones have been answered, so that a stall
//! shows as latency and failures instead of as fewer requests.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Most requests of one run.
const MOST: u64 = 1_000_000;

type Idle = Rc<RefCell<Vec<SendRequest<Empty<Bytes>>>>>;

#[derive(Default)]
struct Tally {
    answered: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
}

/// Sends `rate` GET requests a second for `seconds` to `url` and prints what came back.
///
/// # Errors
/// The URL is not on the loopback, or an answer failed (the exit code tells a script).
pub async fn run(url: &str, rate: u32, seconds: u32) -> Result<()> {
    let uri: Uri = url
        .parse()
        .with_context(|| format!("{url:?} is not a URL"))?;
    ensure!(
        uri.scheme_str() == Some("http"),
        "{url}: only http:// is measured"
    );
    let host = uri.host().context("the URL names no host")?;
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let resolved = tokio::net::lookup_host(&address)
        .await?
        .next()
        .context("the host has no address")?;
    ensure!(
        resolved.ip().is_loopback(),
        "{url} is not on this machine: the load goes to the loopback only"
    );
    ensure!(
        rate > 0 && u64::from(rate) * u64::from(seconds) <= MOST,
        "at most {MOST} requests in one run"
    );

    let local = tokio::task::LocalSet::new();
    let tally = local
        .run_until(beat(resolved.to_string(), uri, rate, seconds))
        .await?;
    report(&tally, rate, seconds)
}

async fn beat(address: String, uri: Uri, rate: u32, seconds: u32) -> Result<Tally> {
    let (idle, tally) = (Idle::default(), Rc::new(RefCell::new(Tally::default())));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..rate * seconds {
        ticks.tick().await;
        let (address, uri, idle, tally) =
            (address.clone(), uri.clone(), idle.clone(), tally.clone());
        running.spawn_local(async move {
            let start = Instant::now();
            let outcome =
                tokio::time::timeout(Duration::from_secs(15), one(&address, &uri, &idle)).await;
            let mut tally = tally.borrow_mut();
            tally.latencies.push(start.elapsed());
            match outcome {
                Ok(Ok(status)) => *tally.answered.entry(status).or_default() += 1,
                Ok(Err(error)) => *tally.errors.entry(format!("{error:#}")).or_default() += 1,
                Err(_) => {
                    *tally
                        .errors
                        .entry("no answer within 15 s".to_owned())
                        .or_default() += 1
                }
            }
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
    Ok(tally.take())
}

async fn one(address: &str, uri: &Uri, idle: &Idle) -> Result<u16> {
    let kept = std::iter::from_fn(|| idle.borrow_mut().pop()).find(|sender| sender.is_ready());
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(address).await.context("connect")?;
            stream.set_nodelay(true)?;
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(async move {
                let _ = connection.await;
            });
            sender
        }
    };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let authority = uri.authority().map(|a| a.as_str()).unwrap_or(address);
    let request = Request::get(path)
        .header(header::HOST, authority)
        .body(Empty::new())?;
    let response = sender.send_request(request).await.context("request")?;
    let status = response.status().as_u16();
    response.into_body().collect().await.context("body")?;
    if sender.ready().await.is_ok() {
        idle.borrow_mut().push(sender);
    }
    Ok(status)
}

fn report(tally: &Tally, rate: u32, seconds: u32) -> Result<()> {
    let mut sorted = tally.latencies.clone();
    sorted.sort();
    let good: u64 = tally
        .answered
        .iter()
        .filter(|(status, _)| **status < 400)
        .map(|(_, n)| n)
        .sum();
    let failed = sorted.len() as u64 - good;
    println!(
        "{} requests at {rate}/s for {seconds} s: {good} good, {failed} failed",
        sorted.len()
    );
    for (status, count) in &tally.answered {
        println!("  status {status}: {count}");
    }
    for (error, count) in &tally.errors {
        println!("  {error}: {count}");
    }
    println!(
        "  latency p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        at(&sorted, 0.50),
        at(&sorted, 0.99),
        at(&sorted, 1.0)
    );
    ensure!(failed == 0, "{failed} requests failed");
    Ok(())
}

/// The value below which `share` of the sorted durations lie, in milliseconds; 0 when there is none.
pub fn at(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(index.saturating_sub(1).min(last))
        .map_or(0.0, |d| d.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(at(&sorted, 0.5).round(), 50.0);
        assert_eq!(at(&sorted, 0.99).round(), 99.0);
        assert_eq!(at(&sorted, 1.0).round(), 100.0);
        assert_eq!(at(&[], 0.5), 0.0);
    }
}
