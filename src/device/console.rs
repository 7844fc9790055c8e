//! The text console that shares the screen: it must not write into our picture, and must come back after us.

use linuxfb::{TerminalMode, set_terminal_mode};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use tracing::{debug, info};

/// The console that is in front.
pub const FRONT: &str = "/dev/tty0";

/// A console in graphics mode: the kernel draws nothing on the screen. Dropping it, in a panic as well, brings the
/// text back; after a crash [`restore`] does.
#[derive(Debug)]
pub struct Console(File);

impl Console {
    /// Puts the console at `path` into graphics mode (KD_GRAPHICS).
    ///
    /// # Errors
    /// As of opening the file and KDSETMODE. A board without a console is no reason to stop: see [`take`].
    pub fn open(path: &str) -> io::Result<Self> {
        let console = Self(open(path)?);
        (&console.0).write_all(HIDE_CURSOR)?;
        set(&console.0, TerminalMode::Graphics)?;
        debug!(path, "console gives way to graphics");
        Ok(console)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = give_back(&self.0);
    }
}

/// The console at `path` in graphics mode, or none if there is none or it is not ours.
pub fn take(path: &str) -> Option<Console> {
    Console::open(path).inspect_err(|error| info!(path, %error, "no console to take; going on")).ok()
}

/// Brings the text console back (`ExecStopPost=` of the service: the process that took it is gone).
///
/// # Errors
/// As of opening the file and KDSETMODE.
pub fn restore(path: &str) -> io::Result<()> {
    give_back(&open(path)?)
}

// DECTCEM, as the kernel's console understands it (console_codes(4)).
const HIDE_CURSOR: &[u8] = b"\x1b[?25l";
const SHOW_CURSOR: &[u8] = b"\x1b[?25h";

fn give_back(mut tty: &File) -> io::Result<()> {
    set(tty, TerminalMode::Text)?;
    tty.write_all(SHOW_CURSOR)
}

fn set(tty: &File, mode: TerminalMode) -> io::Result<()> {
    set_terminal_mode(tty, mode).map_err(|error| io::Error::from_raw_os_error(error.errno))
}

/// Opens without making the console our controlling terminal, whose hang-up would end us.
fn open(path: &str) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC).open(path)
}
