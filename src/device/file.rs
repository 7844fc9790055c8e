//! A large file, of which only what is read takes memory.
#![allow(unsafe_code)]

use super::ioctl::Mapping;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Maps it: its pages are the kernel's, which brings in those that are read, shares them between processes, and drops
/// them when memory is short. See [`super::Board::file`].
pub fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if length == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Bytes::from_owner(Pages(Mapping::new(file.as_raw_fd(), 0, length, false)?)))
}

struct Pages(Mapping);

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it is mapped for reading alone, and who installs files writes new ones (see `map`).
        unsafe { self.0.bytes(usize::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_the_files() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));

        assert_eq!(map(path).expect("mapped"), std::fs::read(path).expect("read"));
    }

    #[test]
    fn what_is_no_file_with_bytes_is_an_error() {
        for path in ["/nowhere", "/proc/self", "/dev/null"] {
            assert!(map(Path::new(path)).is_err(), "{path}");
        }
    }
}
