//! What all devices share: an ioctl, a mapping of device memory, and the kernel's answer in our words.
#![allow(unsafe_code)]

use super::{Error, Kind};
use std::io;
use std::os::fd::RawFd;

/// Calls an ioctl that reads or writes an `argument`; an interrupted call is made again.
///
/// # Safety
/// `request` must be an ioctl whose argument is a pointer to a `T` as the kernel lays it out (or of which
/// any pointers inside are valid).
pub(super) unsafe fn ioctl<T>(fd: RawFd, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    loop {
        // SAFETY: the caller vouches for request and type; the reference is valid and exclusive.
        if unsafe { libc::ioctl(fd, request as _, std::ptr::from_mut(argument)) } != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The device error for what the kernel answered to `operation` on `target`.
pub(super) fn error(operation: &'static str, target: &str, source: &io::Error) -> Error {
    let errno = source.raw_os_error();
    let kind = match errno {
        // Without a number it is the standard library's: a path that cannot exist.
        None | Some(libc::ENOENT | libc::ENXIO | libc::ENOTDIR | libc::ENOTTY) => Kind::NotFound,
        Some(libc::EBUSY) => Kind::Busy,
        Some(libc::EACCES | libc::EPERM) => Kind::NotAuthorized,
        Some(libc::EINVAL) => Kind::Format,
        Some(libc::ENOSPC) => Kind::NoBandwidth,
        // ENODEV, EIO, and what else a dying device answers: opening it anew decides.
        _ => Kind::Gone,
    };
    Error { kind, operation, errno, target: target.to_owned() }
}

/// An error that is not the kernel's word but our finding.
pub(super) fn finding(kind: Kind, operation: &'static str, target: &str) -> Error {
    Error { kind, operation, errno: None, target: target.to_owned() }
}

/// Device memory mapped into the process, shared with the kernel; unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut u8,
    length: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: `&self` methods only read, and who reads promises that nobody writes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of the device from `offset` on.
    pub fn new(fd: RawFd, offset: libc::off_t, length: usize, writable: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length, writable })
    }

    /// The first bytes, `length` at most.
    ///
    /// # Safety
    /// Nobody else, the device included, may write the memory while the slice lives.
    pub unsafe fn bytes(&self, length: usize) -> &[u8] {
        // SAFETY: `start` is mapped and readable for `self.length` bytes as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start, length.min(self.length)) }
    }

    /// Copies `bytes` to `at`; what lies beyond the end is cut off.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.bytes_mut().get_mut(at..) {
            let length = bytes.len().min(room.len());
            room[..length].copy_from_slice(&bytes[..length]);
        }
    }

    /// All of it, to be written; empty if it was not mapped writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let length = if self.writable { self.length } else { 0 };
        // SAFETY: `start` is mapped readable and writable for `length` bytes as long as `self` lives, and borrowed from
        // nobody else in this process. Hardware and other programs may see what is written, as they should; what they
        // may write themselves is the screen's pixels, of which nothing is read.
        unsafe { std::slice::from_raw_parts_mut(self.start, length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(errno: i32) -> Kind {
        error("VIDIOC_STREAMON", "camera", &io::Error::from_raw_os_error(errno)).kind
    }

    #[test]
    fn the_kernels_answers_are_told_apart() {
        // Of a USB camera for whose pictures the bus has no time left (Linux, "USB Error codes").
        assert_eq!(kind_of(libc::ENOSPC), Kind::NoBandwidth);
        assert_eq!(kind_of(libc::EBUSY), Kind::Busy);
        assert_eq!(kind_of(libc::EACCES), Kind::NotAuthorized);
        assert_eq!(kind_of(libc::ENOENT), Kind::NotFound);
        assert_eq!(kind_of(libc::EINVAL), Kind::Format);
        for dying in [libc::ENODEV, libc::EIO, libc::EPIPE, libc::EPROTO] {
            assert_eq!(kind_of(dying), Kind::Gone, "{dying}");
        }
    }
}
