//! The few system calls of a stage that have no safe wrapper: clone, capability and terminal calls.
//! Each is a thin function with the reason why it is sound; no policy lives here.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;

/// Forks with namespace flags. Returns the child's id in the parent and nothing in the child.
///
/// # Errors
/// What `clone(2)` says. The caller must be single-threaded: the child has only this thread.
#[expect(
    unsafe_code,
    reason = "clone(2) with fork semantics has no safe wrapper"
)]
pub(crate) fn clone_process(flags: CloneFlags) -> nix::Result<Option<i32>> {
    let flags = libc::c_long::from(flags.bits()) | libc::c_long::from(libc::SIGCHLD);
    // SAFETY: a null stack means fork semantics (the child runs on a copy of this stack), no pointer is
    // passed, and callers are single-threaded, so no lock can be left held by another thread.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match Errno::result(result)? {
        0 => Ok(None),
        pid => Ok(Some(i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?)),
    }
}

/// Drops every capability from the bounding set that is not in `keep`.
#[expect(unsafe_code, reason = "prctl(PR_CAPBSET_*) has no safe wrapper")]
pub(super) fn bound_capabilities(keep: &[u32]) -> nix::Result<()> {
    for capability in 0..64u32 {
        // SAFETY: both calls take plain numbers.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if known < 0 {
            break;
        }
        if known == 1 && !keep.contains(&capability) {
            // SAFETY: as above.
            Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
        }
    }
    Ok(())
}

/// Makes a file the controlling terminal of this session.
#[expect(unsafe_code, reason = "TIOCSCTTY has no safe wrapper")]
pub(super) fn controlling_terminal(terminal: &impl AsFd) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes a plain number.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
}

/// Sets a terminal's size in columns and rows.
#[expect(unsafe_code, reason = "TIOCSWINSZ has no safe wrapper")]
pub(crate) fn set_window_size(terminal: &impl AsFd, columns: u16, rows: u16) -> nix::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let file = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads one winsize, which lives on this stack during the call.
    Errno::result(unsafe { libc::ioctl(file, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Puts a file in the place of a standard one (0, 1 or 2).
#[expect(unsafe_code, reason = "dup2 onto a number that no OwnedFd holds")]
pub(crate) fn place(file: &impl AsFd, number: i32) -> nix::Result<()> {
    // SAFETY: the standard descriptors are not owned by any value of this process.
    Errno::result(unsafe { libc::dup2(file.as_fd().as_raw_fd(), number) }).map(drop)
}

/// Gives signals their default meaning again and unblocks them all, as a program expects at its start.
#[expect(
    unsafe_code,
    reason = "signal(2) is unsafe because handlers may be; the default is not"
)]
pub(super) fn default_signals() -> nix::Result<()> {
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
    // SAFETY: SIG_DFL installs no handler.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}
