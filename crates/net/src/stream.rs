//! A connection, plain or within TLS, that can be watched from outside while an HTTP engine owns it,
//! and whose first bytes may already have been read.

pub(crate) mod session;

use crate::listen::reset_on_close;
use bytes::{Buf, Bytes, BytesMut};
use session::{Session, Sink};
use socket2::SockRef;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection. It is plain at first; [`crate::tls`] puts TLS on it. Reading and writing mean plaintext either way.
///
/// An end that TLS does not vouch for (the peer closed without a `close_notify`) reads as an error, never as an end:
/// somebody may have cut the connection. Ending our half says both: `close_notify`, then TCP's FIN.
/// Dropping the stream says nothing in TLS: half-written answers do not look whole.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    prefix: Bytes,
    unsent: Unsent,
}

/// What becomes of bytes that the peer no longer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// Writing fails.
    Fails,
    /// They will be dropped once writing has failed.
    MayDrop,
    /// They are dropped.
    Dropped,
}

#[derive(Debug)]
pub(crate) struct Shared {
    tcp: TcpStream,
    read: AtomicU64,
    written: AtomicU64,
    /// The socket takes no more for now.
    blocked: AtomicBool,
    session: OnceLock<Box<Mutex<Session>>>,
}

/// A view of a [`Stream`] that somebody else owns.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Shared>);

impl Stream {
    /// Wraps `tcp`; `prefix` holds bytes that were already read from it.
    pub fn new(tcp: TcpStream, prefix: Bytes) -> Self {
        Self {
            shared: Arc::new(Shared {
                tcp,
                read: AtomicU64::new(0),
                written: AtomicU64::new(0),
                blocked: AtomicBool::new(false),
                session: OnceLock::new(),
            }),
            prefix,
            unsent: Unsent::Fails,
        }
    }

    /// Hears the peer out: when it takes no more bytes, what is written is dropped without an error, and reading tells
    /// what it had to say. A server may answer and close before it has read a whole request (RFC 9112 §9.6).
    #[must_use]
    pub fn hearing_out(mut self) -> Self {
        self.unsent = Unsent::MayDrop;
        self
    }

    /// Whether what was written last was dropped: the peer takes no more.
    pub(crate) fn has_dropped(&self) -> bool {
        self.unsent == Unsent::Dropped
    }

    /// A view that outlives handing the stream to an engine.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }

    /// Whether TLS is on.
    pub fn is_tls(&self) -> bool {
        self.shared.session.get().is_some()
    }

    /// The socket, for addresses and options; reading and writing past the stream would break TLS.
    pub fn tcp(&self) -> &TcpStream {
        &self.shared.tcp
    }

    /// Address of our end.
    ///
    /// # Errors
    /// The socket is closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.tcp.local_addr()
    }

    /// Address of the peer.
    ///
    /// # Errors
    /// The socket is closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.shared.tcp.peer_addr()
    }

    /// Puts bytes back: they are read again before anything else.
    pub fn unread(&mut self, bytes: Bytes) {
        if self.prefix.is_empty() {
            self.prefix = bytes;
        } else if !bytes.is_empty() {
            self.prefix = [&bytes[..], &self.prefix[..]].concat().into();
        }
    }

    /// Bytes that were put back or read before, taken away.
    pub(crate) fn take_prefix(&mut self) -> Bytes {
        std::mem::take(&mut self.prefix)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Waits until something can be read at once: bytes, an end or an error. Nothing is lost when it is dropped.
    pub async fn readable(&self) {
        if self.prefix.is_empty() {
            self.shared.readable().await;
        }
    }

    /// Appends what is there; none when nothing is there yet; 0 when the peer has ended.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read_now(&mut self, into: &mut BytesMut) -> io::Result<Option<usize>> {
        if !self.prefix.is_empty() {
            let prefix = self.take_prefix();
            into.extend_from_slice(&prefix);
            return Ok(Some(prefix.len()));
        }
        match self.shared.try_read_into(into) {
            Ok(n) => Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Appends at least one byte, or says 0 when the peer has ended. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn read_more(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        loop {
            if let Some(n) = self.read_now(into)? {
                return Ok(n);
            }
            self.readable().await;
        }
    }

    /// Writes all of `bytes` and waits until the socket has them.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shared.write_all(bytes, |_| ()).await?;
        self.shared.flush().await
    }

    /// Makes the coming drop of the stream a reset, so that the peer sees an error and not an orderly end. TLS is not
    /// ended either.
    pub fn reset_on_close(&self) {
        reset_on_close(&self.shared.tcp);
    }
}

impl Shared {
    fn session(&self) -> Option<MutexGuard<'_, Session>> {
        let session = self.session.get()?;
        Some(session.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts TLS on; a connection has it once.
    pub(crate) fn start_tls(&self, session: Session) {
        let _ = self.session.set(Box::new(Mutex::new(session)));
    }

    /// The socket.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether the socket's bytes are what the reader sees.
    pub(crate) fn is_plain(&self) -> bool {
        self.session.get().is_none()
    }

    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.tcp.try_read(buf)?;
        self.took(got, buf.len());
        Ok(got)
    }

    fn recv_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room = bufs.iter().map(|buf| buf.len()).sum();
        let got = self.tcp.try_read_vectored(bufs)?;
        self.took(got, room);
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }

    /// Passes on what `from`, which is plain, has to say, without a copy: it is read to where it is encrypted. Says how much
    /// that was (0: `from` has ended). Absent, and nothing was read: it has to be read and written.
    pub(crate) fn take_from(&self, from: &Self) -> io::Result<Option<usize>> {
        let Some(mut session) = self.session() else {
            return Ok(None);
        };
        let mut fill = |rooms: &mut [IoSliceMut<'_>]| from.recv_vectored(rooms);
        session.pass(&mut fill, &mut |b| self.send(&[IoSlice::new(b)]))
    }

    // A read that leaves room has emptied the socket: the next one waits for news of it instead of asking in vain. What
    // comes meanwhile is such news.
    fn took(&self, got: usize, room: usize) {
        if got > 0 && got < room {
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = self.tcp.try_io(Interest::READABLE, nothing);
        }
    }

    /// Writes ciphertext, or plaintext where there is no TLS, and notes whether the peer takes it.
    pub(crate) fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // What is in one piece is sent by the shorter way through the kernel.
        let done = match bufs {
            [one] => self.tcp.try_write(one),
            bufs => self.tcp.try_write_vectored(bufs),
        };
        match &done {
            Ok(n) => {
                self.written.fetch_add(*n as u64, Ordering::Relaxed);
                self.blocked.store(false, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        done
    }

    /// Reads at most `buf`.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match self.session() {
            None => self.recv(buf)?,
            Some(mut session) => session.read_into(buf, &mut |b| self.recv(b))?,
        };
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn try_read_into(&self, into: &mut BytesMut) -> io::Result<usize> {
        let read = match self.session() {
            None => {
                into.reserve(2048);
                let room = into.capacity() - into.len();
                let got = self.tcp.try_read_buf(into)?;
                self.took(got, room);
                got
            }
            Some(mut session) => {
                let mut sink = |bytes: &[u8]| {
                    into.extend_from_slice(bytes);
                    bytes.len()
                };
                session.read(&mut sink, &mut |b| self.recv(b))?
            }
        };
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    /// Waits until [`Shared::try_read`] has something to tell.
    pub(crate) async fn readable(&self) {
        loop {
            if self
                .session()
                .is_some_and(|s| s.has_plain() || s.has_ended())
            {
                return;
            }
            if self.tcp.readable().await.is_err() || self.is_plain() {
                return;
            }
            // Records of TLS itself are no news: they are read here, and the waiting goes on.
            if let Some(mut session) = self.session() {
                match session.pull(&mut |_| 0, &mut |b| self.recv(b)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// Writes some of `bufs`.
    pub(crate) fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.session() {
            None => self.send(bufs),
            Some(mut session) => session.write(bufs, &mut |b| self.send(&[IoSlice::new(b)])),
        }
    }

    fn try_flush(&self) -> io::Result<()> {
        match self.session() {
            None => Ok(()),
            Some(mut session) => session.flush(&mut |b| self.send(&[IoSlice::new(b)])),
        }
    }

    /// Waits until the socket has taken everything that was written.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.tcp.writable().await?;
                }
                done => return done,
            }
        }
    }

    /// Writes all of `bytes`; `wrote` hears of each part.
    pub(crate) async fn write_all(&self, bytes: &[u8], wrote: impl Fn(usize)) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.tcp.writable().await?;
            match self.try_write(&[IoSlice::new(rest)]) {
                Ok(n) => {
                    wrote(n);
                    rest = &rest[n..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends our half once everything is sent. A peer that is already gone is no error.
    pub(crate) async fn finish(&self) {
        let _ = self.close_session();
        let _ = self.flush().await;
        let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Write);
    }

    fn close_session(&self) -> io::Result<()> {
        match self.session() {
            None => Ok(()),
            Some(mut session) => session.close(&mut |b| self.send(&[IoSlice::new(b)])),
        }
    }

    fn peek(&self) -> io::Result<usize> {
        SockRef::from(&self.tcp).peek(&mut [MaybeUninit::uninit(); 1])
    }
}

impl Watch {
    /// Bytes read from the peer so far; within TLS, plaintext.
    pub fn bytes_read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// Bytes that the peer's socket has been given so far; within TLS, ciphertext.
    pub fn bytes_written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Whether bytes wait for a peer that takes none: it was so at the last try to write.
    pub fn is_blocked(&self) -> bool {
        self.0.blocked.load(Ordering::Relaxed)
    }

    /// Whether the peer has closed, reset, or sent bytes that nobody asked for: an idle connection must not be used
    /// again. Messages of TLS itself, such as session tickets, are read here and mean nothing.
    pub fn is_spent(&self) -> bool {
        let Some(mut session) = self.0.session() else {
            return match self.0.peek() {
                Ok(_) => true,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
        };
        // Asks the kernel itself: the runtime's view of the socket may be behind.
        let mut recv = |buf: &mut [u8]| {
            use std::io::Read;
            (&*SockRef::from(&self.0.tcp)).read(buf)
        };
        loop {
            if session.has_plain() || session.has_ended() {
                return true;
            }
            match session.pull(&mut |_| 0, &mut recv) {
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Whether something has happened to the socket since it was last read from, as far as the runtime knows: if not, the
    /// peer has neither spoken nor ended. For connections that nobody is reading from.
    pub(crate) fn has_news(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.0.tcp.poll_read_ready(&mut cx).is_ready()
    }

    /// Whether the peer has said its last word: closed its half, or reset.
    pub fn has_ended(&self) -> bool {
        if self.0.session().is_some_and(|session| session.has_ended()) {
            return true;
        }
        match self.0.peek() {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Says that nothing more comes, then reads and drops what the peer still sends, until it ends or `most` has passed.
    /// Closing a socket with bytes unread resets it, and a reset can destroy an answer that the peer has not read yet
    /// (RFC 9112 §9.6).
    pub async fn linger(&self, most: Duration) {
        let drop_all = async {
            self.0.finish().await;
            let mut unread = vec![0; 16 * 1024];
            while self.0.tcp.readable().await.is_ok() {
                match self.0.tcp.try_read(&mut unread) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let _ = tokio::time::timeout(most, drop_all).await;
    }

    /// The socket, for addresses and options.
    pub fn tcp(&self) -> &TcpStream {
        &self.0.tcp
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            self.shared.read.fetch_add(n as u64, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        let shared = &*self.shared;
        loop {
            let tried = match shared.session() {
                None => {
                    ready!(shared.tcp.poll_read_ready(cx))?;
                    let room = buf.remaining();
                    let got = shared.tcp.try_read_buf(buf);
                    if let Ok(got) = got {
                        shared.took(got, room);
                    }
                    got
                }
                Some(mut session) => {
                    // Decrypted bytes may wait although the socket has none.
                    if !session.has_plain() && !session.has_ended() {
                        ready!(shared.tcp.poll_read_ready(cx))?;
                    }
                    let mut sink = |bytes: &[u8]| {
                        let n = bytes.len().min(buf.remaining());
                        buf.put_slice(&bytes[..n]);
                        n
                    };
                    let sink: Sink<'_> = &mut sink;
                    session.read(sink, &mut |b| shared.recv(b))
                }
            };
            match tried {
                Ok(n) => {
                    shared.read.fetch_add(n as u64, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Stream {
    // Tries until the socket blocks; a peer that is gone may be no error.
    fn poll_out<T>(
        &mut self,
        cx: &mut Context<'_>,
        when_gone: T,
        mut act: impl FnMut(&Shared) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if self.unsent == Unsent::Dropped {
            return Poll::Ready(Ok(when_gone));
        }
        loop {
            ready!(self.shared.tcp.poll_write_ready(cx))?;
            match act(&self.shared) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if self.unsent == Unsent::MayDrop && is_closed(&error) => {
                    self.unsent = Unsent::Dropped;
                    return Poll::Ready(Ok(when_gone));
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_out(cx, all, |shared| shared.try_write(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.session().is_none_or(|s| !s.has_unsent()) {
            return Poll::Ready(Ok(()));
        }
        self.poll_out(cx, (), Shared::try_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent != Unsent::Dropped && self.is_tls() {
            // Without an effect when it has been said already.
            let _ = self.shared.close_session();
            // A peer that is gone needs no farewell.
            let _ = ready!(self.as_mut().poll_flush(cx));
        }
        let done = SockRef::from(&self.shared.tcp).shutdown(Shutdown::Write);
        Poll::Ready(match done {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        })
    }
}
