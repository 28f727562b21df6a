//! The listening sockets of the host: made before the node exists, inherited by it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::home::Record;
use super::{UpError, UpOptions};

/// How long the node of a run that was killed may still hold its ports. It ends with its holder, but a pod's
/// memory takes the kernel a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the API server's listener and then one per published service, and writes the ports that were
/// really taken back into the options. Ports of a run that was `killed` are waited for. Optional ones that
/// are in use are taken out of the options.
pub(super) fn all(
    options: &mut UpOptions,
    killed: Option<&Record>,
) -> Result<Vec<TcpListener>, UpError> {
    let held = |address: SocketAddr| {
        killed.is_some_and(|record| {
            let published = record.published.iter().map(|publish| publish.listen);
            published.chain([record.api]).any(|one| one == address)
        })
    };
    let mut listeners = vec![open_when_free(&mut options.api, held)?];
    for mut publish in std::mem::take(&mut options.publish) {
        match open_when_free(&mut publish.listen, held) {
            Err(UpError::PortInUse { .. }) if publish.optional => continue,
            opened => listeners.push(opened?),
        }
        options.publish.push(publish);
    }
    Ok(listeners)
}

fn open_when_free(
    address: &mut SocketAddr,
    held: impl Fn(SocketAddr) -> bool,
) -> Result<TcpListener, UpError> {
    let start = Instant::now();
    loop {
        match open(address) {
            Err(UpError::PortInUse { .. }) if held(*address) && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn open(address: &mut SocketAddr) -> Result<TcpListener, UpError> {
    let listener = TcpListener::bind(*address).map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => UpError::PortInUse {
            address: *address,
            holder: holder(address.port()),
        },
        io::ErrorKind::PermissionDenied => UpError::Unsupported(format!(
            "port {} needs root: choose a port from 1024 up",
            address.port()
        )),
        _ => UpError::Unsupported(format!("cannot listen on {address}: {e}")),
    })?;
    if let Ok(actual) = listener.local_addr() {
        *address = actual;
    }
    Ok(listener)
}

/// Who listens on a port, in words.
fn holder(port: u16) -> String {
    match find_holder(port) {
        Some((name, pid)) => format!("port {port} is used by {name} (pid {pid})"),
        None => format!("port {port} is used by another program (`ss -ltnp` as root names it)"),
    }
}

fn find_holder(port: u16) -> Option<(String, i32)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
}

/// Inodes of listening sockets on a port, from a table in the form of `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
            let same = u16::from_str_radix(local_port, 16) == Ok(port);
            (same && columns.get(3) == Some(&LISTEN))
                .then(|| columns.get(9).map(|s| (*s).to_owned()))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut address = listener.local_addr().expect("bound");
        let error = open(&mut address).expect_err("in use").to_string();
        let pid = format!("(pid {})", std::process::id());
        assert!(error.contains(&pid), "{error}");
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_optional_port_in_use_is_left_out() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
        let publish = |optional| crate::Publish {
            listen: taken.local_addr().expect("bound"),
            target: crate::Target {
                namespace: "n".into(),
                service: "s".into(),
                port: "443".into(),
            },
            optional,
        };
        let mut options = UpOptions {
            home: crate::Home::new("unused"),
            api: ([127, 0, 0, 1], 0).into(),
            publish: vec![publish(true)],
            state: None,
            images: None,
            detach: false,
            log: String::new(),
        };
        let opened = all(&mut options, None).expect("opened");
        assert_eq!((opened.len(), options.publish.len()), (1, 0));
        options.publish.push(publish(false));
        assert!(all(&mut options, None).is_err());
    }

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl local rem st\n\
            0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 4711 1\n\
            1: 0100007F:1F90 00000000:0001 01 0:0 00:0 0 0 0 4712 1\n";
        assert_eq!(listening_inodes(table, 8080), ["4711"]);
        assert!(listening_inodes(table, 8081).is_empty());
    }
}
