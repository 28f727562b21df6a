//! The control thread: configuration in, snapshots out; a gateway's listeners; the proxy's own servers; the end.

use crate::admin::{Admin, Server, serve};
use crate::config::Config;
use crate::drain::Stage;
use crate::shared::{Live, Shared};
use crate::start::{hand_out, per_worker};
use crate::worker::{Command, Entry};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::gateway::ServerProtocol;
use lateen_model::mesh::Role;
use lateen_net::dial::exempt;
use lateen_xds::client::{self, Update};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, UnboundedSender, channel};

/// Updates that may wait to be applied.
const QUEUE: usize = 64;

/// Listeners of the proxy's own servers.
pub(crate) struct Servers {
    pub(crate) admin: Vec<TcpListener>,
    pub(crate) merged: Vec<TcpListener>,
    pub(crate) ready: Vec<TcpListener>,
    pub(crate) metrics: Vec<TcpListener>,
}

/// What the control thread works with.
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<UnboundedSender<Command>>,
    pub(crate) admin: Admin,
    pub(crate) config: Config,
    pub(crate) servers: Servers,
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

/// Applies configuration as it comes; never returns while there may be more.
async fn follow(control: &mut Control) {
    let mut state = State {
        resources: ResourceSet::default(),
        synced: false,
        open: BTreeSet::new(),
    };
    if let Some(resources) = control.config.resources.take() {
        state.resources.apply(resources, []);
        state.synced = true;
        publish(control, &mut state);
    }
    let (sender, updates) = channel(QUEUE);
    // Held here, so that the queue stays open without a control plane.
    let held = sender.clone();
    if let Some(address) = control.config.discovery.clone() {
        let options = client::Options {
            address,
            scope: control.shared.scope.clone(),
            node_id: client::node_id(&control.shared.scope),
            version: control.config.version.clone(),
            cache: control.config.cache.clone(),
        };
        tokio::spawn(client::run_with(options, sender, |socket| {
            exempt(socket);
            Ok(())
        }));
    }
    apply_all(control, &mut state, updates).await;
    drop(held);
}

struct State {
    resources: ResourceSet,
    synced: bool,
    /// A gateway's listeners.
    open: BTreeSet<Entry>,
}

async fn apply_all(control: &Control, state: &mut State, mut updates: Receiver<Update>) {
    while let Some(first) = updates.recv().await {
        let mut differs = false;
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
            }
            next = updates.try_recv().ok();
        }
        // Half of a first configuration would refuse what the other half allows.
        if differs && state.synced {
            publish(control, state);
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
    shared.live.store(Arc::new(live));
    if shared.scope.role == Role::Gateway {
        gateway_listeners(control, state);
    }
    control.admin.synced();
}

/// Opens and closes a gateway's ports; those that stay are not touched.
fn gateway_listeners(control: &Control, state: &mut State) {
    let live = control.shared.live.load();
    let wanted: BTreeSet<Entry> = live
        .snapshot
        .gateway_listeners()
        .iter()
        .filter(|l| l.protocol != ServerProtocol::TlsTerminate)
        .map(|l| Entry::Gateway { bind: l.bind_port })
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
        let Entry::Gateway { bind } = entry else {
            continue;
        };
        match per_worker(&control.shared.ports, bind, control.workers.len()) {
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
