//! Gives memory back to the kernel, so that a long-lived process holds what it uses and not what its start-up or a
//! burst touched: clean pages of the program file, and free parts of the heap. And knows when it holds too much.

pub mod pressure;

pub use pressure::{Bounds, Level, Pressure};

/// One mapping of `/proc/self/smaps`, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    /// Whether every resident page is an unchanged page of the file.
    clean: bool,
}

/// Unmaps the resident pages of this program's file that nobody has written to; what is used again is mapped again
/// from the page cache, without IO. A system without `/proc` keeps its pages.
pub fn release_program_pages() {
    let Ok(path) = std::fs::read_link("/proc/self/exe") else {
        return;
    };
    let Ok(text) = std::fs::read_to_string("/proc/self/smaps") else {
        return;
    };
    for mapping in mappings(&text, &path.to_string_lossy())
        .into_iter()
        .filter(|m| m.clean)
    {
        #[expect(unsafe_code, reason = "madvise on a range has no safe form")]
        // SAFETY: the range is a private, read-only mapping of a file with no written page (checked above), so
        // dropping its pages loses nothing: the next access reads the same bytes from the file. Read-only
        // mappings of the program are never remapped while it runs.
        let _ = unsafe {
            libc::madvise(
                mapping.start as *mut libc::c_void,
                mapping.end - mapping.start,
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Returns the free parts of the heap to the kernel. The C library keeps them by itself after a burst of connections,
/// for as long as one small allocation lies above them.
pub fn release_free_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "malloc_trim has no safe form")]
    // SAFETY: malloc_trim may be called at any time from any thread; it frees only what no allocation covers.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// The read-only mappings of `program` in the text of `smaps`.
fn mappings(smaps: &str, program: &str) -> Vec<Mapping> {
    let mut out: Vec<Mapping> = Vec::new();
    let mut wanted = false;
    for line in smaps.lines() {
        if let Some((key, rest)) = line.split_once(": ").or(line.split_once(':'))
            && !key.contains('-')
        {
            let written = ["Private_Dirty", "Anonymous", "Shared_Dirty", "Swap"].contains(&key);
            if wanted && written && !rest.trim().starts_with("0 ") {
                out.iter_mut()
                    .last()
                    .into_iter()
                    .for_each(|mapping| mapping.clean = false);
            }
            continue;
        }
        wanted = false;
        let mut fields = line.split_whitespace();
        let (Some(range), Some(permissions)) = (fields.next(), fields.next()) else {
            continue;
        };
        let Some((start, end)) = range.split_once('-') else {
            continue;
        };
        let address = |hex| usize::from_str_radix(hex, 16).ok();
        let (Some(start), Some(end)) = (address(start), address(end)) else {
            continue;
        };
        if permissions.starts_with('r')
            && permissions.ends_with('p')
            && !permissions.contains('w')
            && line.ends_with(program)
        {
            wanted = true;
            out.push(Mapping {
                start,
                end,
                clean: true,
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-2000 r--p 00000000 fe:00 1 /bin/app
Rss:                   4 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
2000-3000 r-xp 00001000 fe:00 1 /bin/app
Private_Dirty:         0 kB
3000-4000 r--p 00002000 fe:00 1 /bin/app
Private_Dirty:         4 kB
Anonymous:             4 kB
4000-5000 rw-p 00003000 fe:00 1 /bin/app
Private_Dirty:         4 kB
5000-6000 r-xp 00000000 fe:00 2 /lib/libc.so.6
";

    #[test]
    fn only_clean_read_only_parts_of_the_program_are_given_back() {
        let found = mappings(SMAPS, "/bin/app");
        let shown: Vec<(usize, bool)> = found.iter().map(|m| (m.start, m.clean)).collect();
        assert_eq!(shown, [(0x1000, true), (0x2000, true), (0x3000, false)]);
    }

    #[test]
    fn the_program_goes_on_after_it() {
        release_program_pages();
        assert_eq!(format!("{:?}", mappings("", "")), "[]");
    }
}
