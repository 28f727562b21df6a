//! A terminal's master side for the runtime: reads what the program shows, writes what is typed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a terminal; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Takes a master side over.
    #[expect(
        unsafe_code,
        reason = "the runtime asks for a promise about the descriptor"
    )]
    pub(crate) fn new(master: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: the OwnedFd moves in, is never replaced, and always names the same open file.
        let registered = unsafe { AsyncFd::register(master) }?;
        Ok(Self(Arc::new(registered)))
    }

    /// Sets its size in columns and rows.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let _ = super::stage::set_window_size(self.0.get_ref(), columns, rows);
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let result = guard.try_io(|file| {
                let space = buffer.initialize_unfilled();
                Ok(nix::unistd::read(file.get_ref().as_fd(), space)?)
            });
            match result {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // The last program has closed its side.
                Ok(Err(e)) if e.raw_os_error() == Some(Errno::EIO as i32) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            let result =
                guard.try_io(|file| Ok(nix::unistd::write(file.get_ref().as_fd(), bytes)?));
            match result {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A terminal has no half-close; the end of input is typed.
        let _ = nix::unistd::write(self.0.get_ref().as_fd(), &[4]);
        Poll::Ready(Ok(()))
    }
}
