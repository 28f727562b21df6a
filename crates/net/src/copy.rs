//! Copying bytes both ways between two connections, with half-close and resets passed on.
//!
//! An idle connection holds no buffer: a worker has one scratch buffer, used only between a read and the write
//! right after it. Bytes that the other side does not take at once are kept until it does. A direction that turns out
//! to move much between plain connections is handed to the kernel, which moves the rest through a pipe without showing
//! it to us.

use crate::stream::{Shared, Stream};
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Most bytes that are moved at once.
const MOST: usize = 128 * 1024;
/// Size of a worker's scratch buffer: room for the ends of TLS records beside them.
const SCRATCH: usize = MOST + 1024;
/// Bytes of one direction after which the kernel moves the rest.
const MUCH: u64 = 1 << 20;
/// Size asked for a pipe, in bytes.
const PIPE: i32 = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Bytes copied so far, readable while the copy runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// From the first connection to the second.
    pub forward: Cell<u64>,
    /// From the second connection to the first.
    pub back: Cell<u64>,
}

/// Copies both ways until both sides have ended, beginning with what was read from either before. An end of one
/// direction is passed on as a half-close (within TLS with a `close_notify`); a reset, and an end that TLS does not vouch
/// for, ends everything and is passed on as a reset.
///
/// # Errors
/// Either side failed, with the error that was seen first.
pub async fn streams(first: &mut Stream, second: &mut Stream, counts: &Counts) -> io::Result<()> {
    let (said, answered) = (first.take_prefix(), second.take_prefix());
    let (one, two) = (first.shared(), second.shared());
    // What does not happen all the time is boxed where it begins: many connections wait in this future.
    let forward = async {
        Box::pin(pass(two, &said, &counts.forward)).await?;
        carry_on(one, two, &counts.forward).await
    };
    let back = async {
        Box::pin(pass(one, &answered, &counts.back)).await?;
        carry_on(two, one, &counts.back).await
    };
    let done = futures::future::try_join(forward, back).await;
    if done.is_err() {
        first.reset_on_close();
        second.reset_on_close();
    }
    done.map(drop)
}

async fn pass(to: &Shared, bytes: &[u8], count: &Cell<u64>) -> io::Result<()> {
    to.write_all(bytes, |n| count.set(count.get() + n as u64))
        .await?;
    to.flush().await
}

async fn carry_on(from: &Shared, to: &Shared, count: &Cell<u64>) -> io::Result<()> {
    let is_plain = from.is_plain() && to.is_plain();
    let start = count.get();
    while !is_plain || count.get() - start < MUCH {
        match BUFFER.with_borrow_mut(|buffer| hop(from, to, buffer, count))? {
            Step::Moved => {
                // Two peers that are always ready must not keep the worker to themselves.
                tokio::task::coop::consume_budget().await;
                to.flush().await?;
            }
            // Not for what TLS has to say: what comes is decrypted where it is wanted.
            Step::Nothing => from.tcp().readable().await?,
            Step::Left(rest) => Box::pin(pass(to, &rest, count)).await?,
            Step::End => {
                Box::pin(to.finish()).await;
                return Ok(());
            }
        }
    }
    match Pipe::new() {
        Ok(pipe) => Box::pin(pipe.splice(from.tcp(), to.tcp(), count)).await,
        // Out of descriptors: slower, but no reason to fail.
        Err(_) => Box::pin(carry_on(from, to, count)).await,
    }
}

fn hop(from: &Shared, to: &Shared, buffer: &mut [u8], count: &Cell<u64>) -> io::Result<Step> {
    if from.is_plain() {
        match to.take_from(from) {
            Ok(None) => {}
            Ok(Some(0)) => return Ok(Step::End),
            Ok(Some(n)) => {
                count.set(count.get() + n as u64);
                return Ok(Step::Moved);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Nothing),
            Err(error) => return Err(error),
        }
    }
    let room = if from.is_plain() { MOST } else { SCRATCH };
    let got = match from.try_read(&mut buffer[..room]) {
        Ok(0) => return Ok(Step::End),
        Ok(n) => n,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Nothing),
        Err(error) => return Err(error),
    };
    let put = match to.try_write(&[IoSlice::new(&buffer[..got])]) {
        Ok(n) => n,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    count.set(count.get() + put as u64);
    Ok(if put == got {
        Step::Moved
    } else {
        Step::Left(buffer[put..got].to_vec())
    })
}

/// A pipe that the kernel moves bytes through.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // More than the kernel's default of 64 KiB halves the number of calls; a user's limit may forbid it.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE));
        Ok(Self { read, write })
    }

    async fn splice(&self, from: &TcpStream, to: &TcpStream, count: &Cell<u64>) -> io::Result<()> {
        loop {
            from.readable().await?;
            let got = from.try_io(Interest::READABLE, || {
                carry(from, &self.write, MUCH as usize)
            });
            let mut held = match got {
                Ok(0) => {
                    // The other side may already be gone: that is an end as well.
                    let _ = SockRef::from(to).shutdown(Shutdown::Write);
                    return Ok(());
                }
                Ok(n) => n,
                // The pipe is empty, so it is the socket that has nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            while held > 0 {
                to.writable().await?;
                match to.try_io(Interest::WRITABLE, || carry(&self.read, to, held)) {
                    Ok(n) => {
                        held -= n;
                        count.set(count.get() + n as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

fn carry(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from, None, to, None, most, flags)?)
}

enum Step {
    Moved,
    /// There is nothing to read.
    Nothing,
    Left(Vec<u8>),
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (a.unwrap(), b.unwrap().0)
    }

    fn plain(tcp: TcpStream) -> Stream {
        Stream::new(tcp, bytes::Bytes::new())
    }

    #[tokio::test]
    async fn copies_more_than_the_sockets_hold_and_half_closes() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let (mut near, mut far) = (plain(near), plain(far));
        let counts = Counts::default();
        let sent: Vec<u8> = (0..9_000_000u32).map(|i| i as u8).collect();
        let copy = streams(&mut near, &mut far, &counts);
        let talk = async {
            let (mut client_read, mut client_write) = client.split();
            let upload = async {
                client_write.write_all(&sent).await.unwrap();
                client_write.shutdown().await.unwrap();
            };
            let serve = async {
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                assert!(got == sent, "every byte arrives in order");
                server.write_all(b"bye").await.unwrap();
                server.shutdown().await.unwrap();
            };
            let mut answer = String::new();
            let (_, _, n) = tokio::join!(upload, serve, client_read.read_to_string(&mut answer));
            n.unwrap();
            assert_eq!(answer, "bye");
        };
        let (done, ()) = tokio::join!(copy, talk);
        done.unwrap();
        assert_eq!((counts.forward.get(), counts.back.get()), (9_000_000, 3));
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_a_reset() {
        let ((mut client, near), (far, server)) = (pair().await, pair().await);
        let (mut near, mut far) = (plain(near), plain(far));
        let counts = Counts::default();
        crate::listen::reset_on_close(&server);
        drop(server);
        assert!(streams(&mut near, &mut far, &counts).await.is_err());
        drop((near, far));
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
