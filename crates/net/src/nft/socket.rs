//! One transaction over a netlink socket: send all, then read the kernel's verdicts.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
};

use super::wire::{self, Message, Reply};
use super::{Command, NftError};

/// Sends the commands between brackets and waits for the outcome.
pub(super) fn transact(commands: &[Command]) -> Result<(), NftError> {
    let mut bytes = encode(&Message::bracket(true), 0, false, "begin")?;
    for (index, command) in commands.iter().enumerate() {
        let last = index + 1 == commands.len();
        bytes.extend(encode(
            &command.message,
            index as u32 + 1,
            last,
            &command.label,
        )?);
    }
    bytes.extend(encode(
        &Message::bracket(false),
        commands.len() as u32 + 1,
        false,
        "end",
    )?);
    let socket = open(bytes.len())?;
    send(&socket, &bytes)?;
    judge(&receive(&socket)?, commands)
}

fn encode(message: &Message, sequence: u32, ack: bool, label: &str) -> Result<Vec<u8>, NftError> {
    message
        .finish(sequence, ack)
        .ok_or_else(|| NftError::TooLarge {
            command: label.to_owned(),
        })
}

fn open(size: usize) -> Result<OwnedFd, NftError> {
    let socket = socket::socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .map_err(|errno| match errno {
        Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => NftError::Unsupported(errno.into()),
        _ => NftError::Socket {
            step: "open",
            source: errno.into(),
        },
    })?;
    option(&socket, libc::NETLINK_EXT_ACK);
    option(&socket, libc::NETLINK_CAP_ACK);
    // The kernel takes a transaction in one write, which must fit the send buffer (default 208 kB).
    let wanted = size.saturating_mul(2).max(256 * 1024);
    if socket::setsockopt(&socket, socket::sockopt::SndBufForce, &wanted).is_err() {
        // A user namespace may only go up to net.core.wmem_max; a larger write is refused below.
        let _ = socket::setsockopt(&socket, socket::sockopt::SndBuf, &wanted);
    }
    socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(|errno| {
        NftError::Socket {
            step: "bind",
            source: errno.into(),
        }
    })?;
    Ok(socket)
}

/// Switches on a netlink option; kernels before 4.12 lack some, and answer less clearly then.
fn option(socket: &OwnedFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    #[expect(unsafe_code, reason = "nix has no wrapper for netlink socket options")]
    // SAFETY: the pointer and length describe a live c_int, and the descriptor is open.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), NftError> {
    let kernel = NetlinkAddr::new(0, 0);
    loop {
        return match socket::sendto(socket.as_raw_fd(), bytes, &kernel, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(Errno::EINTR) => continue,
            Err(Errno::EMSGSIZE | Errno::ENOBUFS) => Err(NftError::TooLarge {
                command: "commit the transaction".to_owned(),
            }),
            Err(errno) => Err(NftError::Socket {
                step: "send",
                source: errno.into(),
            }),
        };
    }
}

/// Everything the kernel answered. It executes the transaction inside the send, so that all
/// answers are queued by now and waiting would only hide a bug.
fn receive(socket: &OwnedFd) -> Result<Vec<Reply>, NftError> {
    let mut replies = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(replies),
            Ok(length) => replies.extend(wire::replies(&buffer[..length])),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(NftError::Socket {
                    step: "receive",
                    source: errno.into(),
                });
            }
        }
    }
}

/// The first refusal is the cause; those after it may only follow from it.
fn judge(replies: &[Reply], commands: &[Command]) -> Result<(), NftError> {
    let Some(refusal) = replies.iter().find(|reply| reply.errno != 0) else {
        if replies.is_empty() {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "no acknowledgement");
            return Err(NftError::Socket {
                step: "acknowledge",
                source,
            });
        }
        return Ok(());
    };
    let index = (refusal.sequence as usize).saturating_sub(1);
    let command = match commands.get(index) {
        Some(command) => command.label.clone(),
        None => "commit the transaction".to_owned(),
    };
    let errno = Errno::from_raw(refusal.errno);
    match errno {
        Errno::EPERM | Errno::EACCES => Err(NftError::Permission { command }),
        _ => {
            let detail = match (&refusal.text, errno) {
                (Some(text), _) => format!(" ({text})"),
                (None, Errno::ENOENT) => {
                    " (the chain or set does not exist, or the kernel lacks a part of nf_tables)"
                        .to_owned()
                }
                (None, Errno::EOPNOTSUPP) => {
                    " (the kernel lacks a part of nf_tables that this needs)".to_owned()
                }
                _ => String::new(),
            };
            Err(NftError::Refused {
                command,
                source: errno.into(),
                detail,
            })
        }
    }
}
