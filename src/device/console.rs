//! The text console that shares the screen: it must not write into our picture, and must come back after us.

use linuxfb::{TerminalMode, set_terminal_mode};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use tracing::{debug, info};

/// The console that is in front.
pub const FRONT: &str = "/dev/tty0";

/// A console in graphics mode (KD_GRAPHICS): the kernel draws nothing on the screen. Dropping it, by a panic as well,
/// brings the text back; after a crash [`restore`] does. There is no panic hook: it would run for panics that are
/// caught, while the picture goes on.
#[derive(Debug)]
pub struct Console(Option<File>);

impl Console {
    /// Takes the console in front; holds nothing, after a line in the log, where there is none or it is not ours.
    pub fn take() -> Self {
        Self::open(FRONT).unwrap_or_else(|error| {
            info!(path = FRONT, %error, "no console to take");
            Self(None)
        })
    }

    /// Takes the console at `path`.
    ///
    /// # Errors
    /// As of opening the file, and of KDSETMODE: EPERM without CAP_SYS_TTY_CONFIG, ENOTTY if it is no console.
    pub fn open(path: &str) -> io::Result<Self> {
        let mut tty = open(path)?;
        set(&tty, TerminalMode::Graphics)?;
        let console = Self(Some(tty.try_clone()?));
        tty.write_all(HIDE_CURSOR)?;
        debug!(path, "console in graphics mode");
        Ok(console)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(give_back) {
            info!(%error, "the console stays in graphics mode");
        }
    }
}

/// Brings the text console back: for `ExecStopPost=` of the service, when the process that took it is gone.
///
/// # Errors
/// As [`Console::open`].
pub fn restore(path: &str) -> io::Result<()> {
    give_back(open(path)?)
}

// DECTCEM, as the kernel's console understands it (console_codes(4)).
const HIDE_CURSOR: &[u8] = b"\x1b[?25l";
const SHOW_CURSOR: &[u8] = b"\x1b[?25h";

fn give_back(mut tty: File) -> io::Result<()> {
    set(&tty, TerminalMode::Text)?;
    tty.write_all(SHOW_CURSOR)
}

fn set(tty: &File, mode: TerminalMode) -> io::Result<()> {
    set_terminal_mode(tty, mode).map_err(|error| io::Error::from_raw_os_error(error.errno))
}

/// Opens for writing only, which is what the group `tty` may, and not as our controlling terminal, whose hang-up would
/// end us.
fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_console_is_refused_and_named() {
        assert_eq!(
            Console::open("/dev/tty-none").err().map(|error| error.kind()),
            Some(io::ErrorKind::NotFound)
        );
        assert_eq!(restore("/dev/null").err().and_then(|error| error.raw_os_error()), Some(libc::ENOTTY));
    }
}
