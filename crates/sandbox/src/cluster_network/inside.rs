//! Work inside a pod's namespaces. Network, host name and queue namespaces belong to a thread, so each
//! piece of work runs on a thread of its own that ends with it; no other thread is ever moved.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{NODE_ADDRESS, NetworkError, kernel};

/// Runs a function on a fresh thread and waits for it without blocking the runtime.
pub(super) async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("pod-network".into())
        .spawn(move || {
            let _ = sender.send(work());
        })
        .map_err(|e| kernel("start a thread", &e))?;
    receiver
        .await
        .map_err(|_| kernel("work in a pod's network", &"the thread died"))?
}

/// Fresh network, host name and queue namespaces: (net, uts, ipc).
pub(super) fn make_namespaces(
    host_name: &str,
) -> Result<(OwnedFd, OwnedFd, OwnedFd), NetworkError> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .map_err(|e| kernel("make the pod's namespaces", &e))?;
    nix::unistd::sethostname(host_name).map_err(|e| kernel("set the host name", &e))?;
    loopback_up().map_err(|e| kernel("bring the pod's loopback up", &e))?;
    for (path, value) in [
        // As container runtimes have it: unprivileged programs may listen on port 80.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
    ] {
        setting(path, value)?;
    }
    let open = |name: &str| {
        std::fs::File::open(format!("/proc/thread-self/ns/{name}"))
            .map(OwnedFd::from)
            .map_err(|e| kernel("keep the pod's namespaces", &e))
    };
    Ok((open("net")?, open("uts")?, open("ipc")?))
}

/// Gives `eth0` its address and routes; the link must be there.
pub(super) fn configure(net: &OwnedFd, address: Ipv4Addr) -> Result<(), NetworkError> {
    setns(net, CloneFlags::CLONE_NEWNET).map_err(|e| kernel("enter the pod's network", &e))?;
    let control = control_socket().map_err(|e| kernel("open a socket", &e))?;
    let fail = |e: Errno| kernel("configure the pod's address", &e);
    set_address(&control, libc::SIOCSIFADDR, address).map_err(fail)?;
    set_address(&control, libc::SIOCSIFNETMASK, Ipv4Addr::BROADCAST).map_err(fail)?;
    link_up(&control, "eth0").map_err(fail)?;
    // The gateway is not in a /32's network, so it gets a route of its own first.
    add_route(&control, NODE_ADDRESS, None).map_err(fail)?;
    add_route(&control, Ipv4Addr::UNSPECIFIED, Some(NODE_ADDRESS)).map_err(fail)
}

/// Brings the current network namespace's loopback up.
pub(crate) fn loopback_up() -> io::Result<()> {
    Ok(link_up(&control_socket()?, "lo")?)
}

/// Writes a kernel setting of the current network namespace; the path is below `/proc/sys`.
pub(crate) fn setting(path: &str, value: &str) -> Result<(), NetworkError> {
    std::fs::write(format!("/proc/sys/{path}"), value)
        .map_err(|e| kernel("set a kernel setting", &format!("{path}: {e}")))
}

/// Connects from inside a pod's network, as a process of the pod would.
pub(crate) fn connect_inside(net: &impl AsFd, to: SocketAddr) -> io::Result<std::net::TcpStream> {
    setns(net, CloneFlags::CLONE_NEWNET)?;
    std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_secs(10))
}

fn control_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

#[expect(
    unsafe_code,
    reason = "an interface request is a C structure with a union"
)]
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

#[expect(unsafe_code, reason = "interface ioctls have no safe wrapper")]
fn set_address(control: &OwnedFd, what: libc::c_ulong, address: Ipv4Addr) -> nix::Result<()> {
    let mut request = request("eth0");
    request.ifr_ifru.ifru_addr = socket_address(address);
    // SAFETY: both requests read one ifreq, which lives on this stack during the call.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), what as _, &raw const request) })
        .map(drop)
}

#[expect(unsafe_code, reason = "interface ioctls have no safe wrapper")]
fn link_up(control: &OwnedFd, name: &str) -> nix::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads one ifreq, which lives on this stack during the call.
    Errno::result(unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    })
    .map(drop)
}

/// A route through `eth0`: to one host when no gateway is given, else for everything.
#[expect(unsafe_code, reason = "route ioctls have no safe wrapper")]
fn add_route(control: &OwnedFd, to: Ipv4Addr, gateway: Option<Ipv4Addr>) -> nix::Result<()> {
    let mut device = *b"eth0\0";
    // SAFETY: all zeroes is a valid rtentry.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(to);
    route.rt_dev = device.as_mut_ptr().cast();
    route.rt_flags = libc::RTF_UP;
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    match gateway {
        Some(gateway) => {
            route.rt_gateway = socket_address(gateway);
            route.rt_flags |= libc::RTF_GATEWAY;
        }
        None => {
            route.rt_genmask = socket_address(Ipv4Addr::BROADCAST);
            route.rt_flags |= libc::RTF_HOST;
        }
    }
    // SAFETY: the request reads one rtentry and the device name, both alive on this stack during the call.
    Errno::result(unsafe {
        libc::ioctl(control.as_raw_fd(), libc::SIOCADDRT as _, &raw const route)
    })
    .map(drop)
}
