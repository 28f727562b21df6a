//! The control thread: configuration in, snapshots out; a gateway's listeners; the proxy's own servers; the end.

use crate::admin::{Admin, Server, serve};
use crate::config::Config;
use crate::drain::Stage;
use crate::identity::{self, Keeper};
use crate::shared::{Live, Shared};
use crate::start::{hand_out, per_worker};
use crate::worker::{Command, Entry};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::mesh::Role;
use lateen_net::dial::exempt;
use lateen_xds::client::{self, Update};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedSender, channel};

/// Updates that may wait to be applied.
pub(crate) const QUEUE: usize = 64;

/// How often the certificate's end is looked at.
const LOOK: Duration = Duration::from_secs(300);

/// Listeners of the proxy's own servers.
pub(crate) struct Servers {
    pub(crate) admin: Vec<TcpListener>,
    pub(crate) merged: Vec<TcpListener>,
    pub(crate) ready: Vec<TcpListener>,
    pub(crate) metrics: Vec<TcpListener>,
}

/// Listeners for captured connections, for each worker.
pub(crate) type Captured = Vec<(Entry, Vec<Vec<TcpListener>>)>;

/// What the control thread works with.
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<UnboundedSender<Command>>,
    pub(crate) admin: Admin,
    pub(crate) config: Config,
    pub(crate) servers: Servers,
    /// Accepted from once there is a configuration; until then the kernel keeps those who come.
    pub(crate) captured: Captured,
    /// Where configuration comes in; taken once.
    pub(crate) updates: Option<(Sender<Update>, Receiver<Update>)>,
}

/// Runs until the proxy has ended.
pub(crate) fn run(control: Control) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_stack_size(512 * 1024)
        .build_local(Default::default());
    match runtime {
        Ok(runtime) => runtime.block_on(live(control)),
        Err(error) => {
            tracing::error!("the control thread cannot start: {error}");
            stop(&control);
        }
    }
}

async fn live(mut control: Control) {
    let admin = Rc::new(control.admin.clone());
    let servers = std::mem::replace(
        &mut control.servers,
        Servers {
            admin: vec![],
            merged: vec![],
            ready: vec![],
            metrics: vec![],
        },
    );
    for (kind, listeners) in [
        (Server::Admin, servers.admin),
        (Server::Merged, servers.merged),
        (Server::Ready, servers.ready),
        (Server::Metrics, servers.metrics),
    ] {
        for listener in listeners {
            tokio::task::spawn_local(serve(Rc::clone(&admin), kind, listener));
        }
    }
    let drain = control.shared.drain.clone();
    tokio::select! {
        () = follow(&mut control) => {}
        () = drain.reached(Stage::Ending) => {}
    }
    end(&control).await;
    stop(&control);
}

/// Waits for what is under way, within the configured times.
async fn end(control: &Control) {
    let (drain, times) = (&control.shared.drain, control.config.drain);
    let patiently = async {
        tokio::time::sleep(times.least).await;
        let rest = times.most.saturating_sub(times.least);
        if tokio::time::timeout(rest, drain.idle()).await.is_err() {
            tracing::warn!(
                "{} requests and connections were cut off at the end",
                drain.active()
            );
        }
    };
    tokio::select! {
        () = patiently => {}
        () = drain.reached(Stage::Ended) => {}
    }
}

fn stop(control: &Control) {
    control.shared.drain.advance(Stage::Ended);
    for worker in &control.workers {
        // A worker that is gone needs no telling.
        let _ = worker.send(Command::Stop);
    }
}

/// Applies configuration and certificates as they come; never returns while there may be more.
async fn follow(control: &mut Control) {
    let mut identity = control.config.identity.take();
    let control_plane = identity.as_mut().and_then(|i| i.control_plane.take());
    let mut state = State {
        resources: ResourceSet::default(),
        synced: false,
        open: BTreeSet::new(),
        captured: std::mem::take(&mut control.captured),
        keeper: identity.map(Keeper::start),
    };
    if let Some(keeper) = &state.keeper {
        control.admin.follow(keeper.state());
    }
    if let Some(resources) = control.config.resources.take() {
        state.resources.apply(resources, []);
        state.synced = true;
        publish(control, &mut state);
    }
    certify(control, &mut state);
    let (sender, updates) = control.updates.take().unwrap_or_else(|| channel(QUEUE));
    // Held here, so that the queue stays open without a control plane.
    let held = sender.clone();
    if let Some(address) = control.config.discovery.clone() {
        let connect = match (&control_plane, &state.keeper) {
            (Some(control_plane), Some(keeper)) => {
                identity::connect(&address, control_plane, &keeper.state())
            }
            _ => client::plain(&address, |socket| {
                exempt(socket);
                Ok(())
            }),
        };
        let options = client::Options {
            address,
            connect,
            token: control_plane.and_then(|c| c.token),
            scope: control.shared.scope.clone(),
            node_id: client::node_id(&control.shared.scope),
            version: control.config.version.clone(),
            cache: control.config.cache.clone(),
        };
        if let Some(questions) = control.shared.demand.take_questions() {
            tokio::spawn(client::run(options, questions, sender));
        }
    }
    apply_all(control, &mut state, updates).await;
    drop(held);
}

struct State {
    resources: ResourceSet,
    synced: bool,
    /// A gateway's listeners.
    open: BTreeSet<Entry>,
    /// Not accepted from yet.
    captured: Captured,
    /// Absent: the proxy has no identity.
    keeper: Option<Keeper>,
}

async fn apply_all(control: &Control, state: &mut State, mut updates: Receiver<Update>) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        let renewed = async {
            match &mut state.keeper {
                Some(keeper) => keeper.changed().await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            first = updates.recv() => match first {
                Some(first) => first,
                None => return,
            },
            () = renewed => {
                certify(control, state);
                continue;
            }
            _ = look.tick() => {
                if let Some(keeper) = &state.keeper {
                    keeper.alarm();
                }
                continue;
            }
        };
        let mut differs = false;
        let mut found = Vec::new();
        let mut next = Some(first);
        // What has come together is compiled together.
        while let Some(update) = next {
            match update {
                Update::Changed { changed, removed } => {
                    differs |= state.resources.apply(changed, removed);
                }
                Update::Synced => {
                    differs |= !state.synced;
                    state.synced = true;
                }
                Update::Found(lookups) => found.extend(lookups),
                Update::Forgotten(lookups) => {
                    found.retain(|lookup| !lookups.contains(lookup));
                    control.shared.demand.forgotten(&lookups);
                }
            }
            next = updates.try_recv().ok();
        }
        // Half of a first configuration would refuse what the other half allows.
        if differs && state.synced {
            publish(control, state);
        }
        if !found.is_empty() {
            control.shared.demand.found(found);
        }
    }
}

fn publish(control: &Control, state: &mut State) {
    let shared = &control.shared;
    let previous = shared.live.load();
    let live = Live::compile(state.resources.clone(), &shared.scope, Some(&previous));
    tracing::debug!(
        "configuration {} with {} resources",
        live.generation,
        state.resources.len()
    );
    let now = tokio::time::Instant::now();
    shared.states.observe(&live.snapshot, now);
    shared.live.store(Arc::new(live));
    // Trust comes with configuration: both are in force before anybody is told.
    let trust = state.keeper.as_mut().is_some_and(|k| k.refresh(shared));
    tell(control, trust);
    for (entry, sets) in state.captured.drain(..) {
        hand_out(&control.workers, entry, sets);
    }
    if shared.scope.role == Role::Gateway {
        gateway_listeners(control, state);
    }
    control.admin.synced();
}

/// Puts a new certificate in force.
fn certify(control: &Control, state: &mut State) {
    if let Some(keeper) = &mut state.keeper
        && keeper.refresh(&control.shared)
    {
        tell(control, true);
    }
}

/// Has live connections looked at again.
fn tell(control: &Control, trust: bool) {
    for worker in &control.workers {
        // A worker that is gone has no connections.
        let _ = worker.send(Command::Review(trust));
    }
}

/// Opens and closes a gateway's ports; those that stay are not touched.
fn gateway_listeners(control: &Control, state: &mut State) {
    let live = control.shared.live.load();
    let wanted: BTreeSet<Entry> = live
        .snapshot
        .gateway_listeners()
        .iter()
        .map(|l| Entry::Gateway {
            bind: l.bind_port,
            address: l.address,
        })
        .collect();
    for gone in state.open.difference(&wanted) {
        for worker in &control.workers {
            let _ = worker.send(Command::Close(*gone));
        }
        control.admin.closed(*gone);
    }
    state.open.retain(|entry| wanted.contains(entry));
    let new: Vec<Entry> = wanted.difference(&state.open).copied().collect();
    for entry in new {
        let Entry::Gateway { bind, address } = entry else {
            continue;
        };
        let own = &control.shared.ports;
        let ports = crate::Ports {
            bind: address.unwrap_or(own.bind),
            ..*own
        };
        match per_worker(&ports, bind, control.workers.len()) {
            Ok((address, sets)) => {
                hand_out(&control.workers, entry, sets);
                control.admin.opened(entry, Ok(address));
                state.open.insert(entry);
            }
            Err(error) => {
                tracing::warn!("a gateway's port is not served: {error}");
                control.admin.opened(entry, Err(error.to_string()));
            }
        }
    }
}
