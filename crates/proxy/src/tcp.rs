//! Connections that are copied byte for byte: admitted, called, counted, and accounted for at their end.

use crate::connection::{Conn, Rest};
use crate::exchange::{Kind, Ledger, Open};
use crate::fault;
use crate::live::{Held, Review};
use crate::security;
use crate::tls::NotEnded;
use crate::upstream::{Dialed, Failed};
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::{Fault, FaultReason, TcpPlan};
use lateen_model::name::Origin;
use lateen_net::copy::{Counts, streams};
use lateen_net::original::canonical;
use lateen_net::seldom::Seldom;
use lateen_net::stream::{Stream, Watch};
use lateen_telemetry::metrics::TcpSeen;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How often a connection that goes on adds its bytes to the metrics (Istio: 15 s).
const REPORT: Duration = Duration::from_secs(15);

/// How long a client that was refused may take to read the alert that says why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Serves a connection by `plan`, as far as there being something to copy, which is what is left. `dialed` may be a
/// connection that was opened while the client was still silent.
pub(crate) async fn serve(
    conn: Conn,
    client: Stream,
    plan: TcpPlan,
    dialed: Option<Dialed>,
) -> Rest {
    let mut open = begin(&conn);
    let asked = match security::ask(&conn, &open.record).await {
        Ok(asked) => asked,
        Err(refused) => {
            deny(&conn, &mut open, &refused.fault, refused.termination);
            client.reset_on_close();
            return None;
        }
    };
    let held = conn.hold(Review::Tcp(conn.facts, conn.peer.clone(), asked));
    if let Some(fault) = held.as_ref().and_then(Held::why) {
        cut(&conn, &mut open, &fault);
        client.reset_on_close();
        return None;
    }
    match plan {
        TcpPlan::Refuse(fault) => {
            conn.worker.say(&fault, || fault::sentence(&fault, None));
            note(&mut open, &fault, None);
            if fault.reason == FaultReason::NotInRegistry {
                // Istio: connections that REGISTRY_ONLY refuses go to a cluster that has no endpoint.
                let live = conn.worker.shared.live.load();
                describe(&conn, &mut open, live.snapshot.black_hole());
                open.record.flags = "UH".into();
            }
            client.reset_on_close();
            None
        }
        TcpPlan::Forward { cluster, origin } => {
            describe(&conn, &mut open, &cluster);
            // The server name may have changed the plan since the call was made.
            let dialed = match dialed.filter(|d| d.cluster.name == cluster.name) {
                Some(dialed) => Ok(dialed),
                None => {
                    let upstream = &conn.worker.upstream;
                    Box::pin(upstream.dial(&cluster, &conn.facts, &conn.server_name)).await
                }
            };
            match dialed {
                Ok(dialed) => {
                    let both = Box::new(Both {
                        conn,
                        open,
                        client,
                        held,
                        dialed,
                    });
                    Some(Box::pin(copy(both)))
                }
                Err(failed) => {
                    unreachable(&conn, &mut open, &cluster, origin, &failed);
                    client.reset_on_close();
                    None
                }
            }
        }
    }
}

/// Accounts for a connection that is refused before there is a plan for it; its closing will be a reset.
pub(crate) fn refuse(conn: &Conn, client: &Stream, fault: &Fault) {
    let mut open = begin(conn);
    conn.worker.say(fault, || fault::sentence(fault, None));
    note(&mut open, fault, None);
    client.reset_on_close();
}

/// As [`refuse`], for a client that TLS has told why: it gets the time to read that.
pub(crate) async fn refuse_politely(conn: &Conn, client: &Watch, refusal: &NotEnded) {
    if refusal.left {
        return tracing::debug!("{} left: {}", conn.facts.source, refusal.fault.subject);
    }
    let mut open = begin(conn);
    conn.worker
        .say(&refusal.fault, || fault::sentence(&refusal.fault, None));
    note(&mut open, &refusal.fault, None);
    drop(open);
    client.linger(LAST_WORD).await;
}

fn deny(conn: &Conn, open: &mut Open, fault: &Fault, termination: String) {
    conn.worker.say(fault, || fault::sentence(fault, None));
    note(open, fault, None);
    open.record.termination = termination.into();
}

fn begin(conn: &Conn) -> Open {
    let labels = &conn.worker.labels;
    let unknown = labels.peer(None, None);
    let kind = Kind::Tcp(TcpSeen::default());
    let direction = conn.facts.direction;
    let mut open = conn
        .worker
        .ledger
        .open(direction, kind, &unknown, labels.target(None, None));
    open.complete = true;
    open.record.local = Some(conn.local);
    open.record.remote = Some(conn.facts.source);
    conn.label(&mut open);
    open
}

fn describe(conn: &Conn, open: &mut Open, cluster: &Arc<Cluster>) {
    open.record.cluster = cluster.name.clone();
    open.target = conn.worker.labels.target(Some(cluster), None);
}

fn note(open: &mut Open, fault: &Fault, failed: Option<&Failed>) {
    let verdict = fault::verdict(fault, failed);
    open.record.flags = verdict.flags;
    open.record.transport_failure = verdict.transport;
}

fn unreachable(
    conn: &Conn,
    open: &mut Open,
    cluster: &Cluster,
    origin: Option<Origin>,
    failed: &Failed,
) {
    let fault = Fault {
        reason: failed.reason,
        origin,
        subject: cluster.name.to_string(),
    };
    conn.worker
        .say(&fault, || fault::sentence(&fault, Some(failed)));
    note(open, &fault, Some(failed));
    open.record.upstream_host = failed.address;
    conn.label_upstream(open, failed.workload.as_ref(), None);
}

/// A connection and the one that it is copied to.
struct Both {
    conn: Conn,
    open: Open,
    client: Stream,
    held: Option<Held>,
    dialed: Dialed,
}

/// Copies until there is an end. Small, as idle connections wait in it.
async fn copy(mut both: Box<Both>) {
    let Both {
        conn,
        open,
        client,
        held,
        dialed,
    } = &mut *both;
    let address = dialed.address();
    open.record.upstream_host = Some(address);
    open.record.upstream_local = dialed.stream.local_addr().ok().map(canonical);
    conn.label_upstream(open, dialed.workload.as_ref(), dialed.security().identity());
    let counts = Counts::default();
    let ledger = open.ledger();
    report(open, &ledger, &counts);
    let cut = Seldom::new(async {
        match held {
            Some(held) => held.cut().await,
            None => std::future::pending().await,
        }
    });
    let pool = &dialed.cluster.settings.pool;
    let idle = match pool.tcp_idle_timeout {
        Some(time) if time.is_zero() => Duration::MAX,
        Some(time) => time,
        None => conn.worker.shared.limits.tcp_idle_time,
    };
    let mut idle = Idle::new(idle);
    let life = pool.max_connection_duration;
    let mut over = life.map(|life| Box::pin(tokio::time::sleep(life)));
    let done = {
        let mut copying = pin!(streams(client, &mut dialed.stream, &counts));
        let mut cut = pin!(cut);
        loop {
            tokio::select! {
                // Who may not come in any more is not heard first.
                biased;
                fault = cut.as_mut() => break Err(fault),
                done = copying.as_mut() => break Ok(done),
                () = passed(&mut over) => {
                    open.record.flags = "DT".into();
                    open.record.termination = "max_connection_duration".into();
                    break Ok(Ok(()));
                }
                () = tokio::time::sleep(REPORT.min(idle.rest())) => {
                    report(open, &ledger, &counts);
                    if idle.is_over(counts.forward.get() + counts.back.get()) {
                        open.record.termination = "tcp_idle_timeout".into();
                        break Ok(Ok(()));
                    }
                }
            }
        }
    };
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("copying to {address} ended: {error}"),
        Err(fault) => {
            self::cut(conn, open, &fault);
            client.reset_on_close();
            dialed.stream.reset_on_close();
        }
    }
    open.record.received = counts.forward.get();
    open.record.sent = counts.back.get();
}

async fn passed(time: &mut Option<Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.await,
        None => std::future::pending().await,
    }
}

/// Accounts for a connection that would not be let in any more.
fn cut(conn: &Conn, open: &mut Open, fault: &Fault) {
    let termination = match fault.reason {
        FaultReason::Denied => admit_again(conn).unwrap_or_default(),
        FaultReason::NotMutualTls => String::new(),
        _ => "peer_no_longer_trusted".to_owned(),
    };
    deny(conn, open, fault, termination);
}

/// How long a connection has carried nothing.
struct Idle {
    limit: Duration,
    carried: u64,
    since: Instant,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            carried: 0,
            since: Instant::now(),
        }
    }

    /// How long it may stay silent yet, as far as is known.
    fn rest(&self) -> Duration {
        // A moment longer, as clocks of timers are coarse.
        let rest = self.limit.saturating_sub(self.since.elapsed());
        rest.max(Duration::from_millis(1))
    }

    fn is_over(&mut self, carried: u64) -> bool {
        if carried != self.carried {
            self.carried = carried;
            self.since = Instant::now();
        }
        self.since.elapsed() >= self.limit
    }
}

// The policy that a live connection was cut for.
fn admit_again(conn: &Conn) -> Option<String> {
    let live = conn.worker.shared.live.load();
    let refused = security::admit(&live.snapshot, &conn.facts, &conn.peer).err()?;
    Some(refused.termination)
}

// Adds what happened since the last report; the rest is added when the connection is over.
fn report(open: &mut Open, ledger: &Rc<Ledger>, counts: &Counts) {
    let Kind::Tcp(counted) = open.kind else {
        return;
    };
    let (received, sent) = (counts.forward.get(), counts.back.get());
    let seen = TcpSeen {
        opened: 1 - counted.opened,
        closed: 0,
        sent: sent - counted.sent,
        received: received - counted.received,
    };
    ledger.progress(open, seen);
    open.kind = Kind::Tcp(TcpSeen {
        opened: 1,
        closed: 0,
        sent,
        received,
    });
}
