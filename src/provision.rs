//! The technician's settings, from a partition that a laptop writes to where the daemon reads them: looked at as a whole,
//! taken over at once or not at all.
//!
//! `to` is a link to one of two folders beside it that take turns. The idle one is filled, checked by the daemon's own
//! reading, and the link replaced by another: a power cut leaves the old settings or the new ones.

use crate::config::Config;
use crate::kiosk;
use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Of the files, of which there may be so many, each of so many bytes: a font is the largest thing one can need.
const MOST_FILES: usize = 64;
const LARGEST: u64 = 32 << 20;
/// The file the others are named by.
const MAIN: &str = "kiosk.toml";

/// What became of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are the ones in use.
    Unchanged,
    Installed,
}

/// Takes the files in `from` over to `to`, if the daemon can use them.
///
/// # Errors
/// Why not, for people; what `to` leads to is what it was.
pub fn provision(from: &Path, to: &Path) -> anyhow::Result<Outcome> {
    let files = read(from)?;
    let current = fs::read_link(to).ok();
    if current.is_some() && read(to).is_ok_and(|installed| installed == files) {
        return Ok(Outcome::Unchanged);
    }
    let folder = to.parent().context("the target has no folder")?;
    let name = to.file_name().and_then(|name| name.to_str()).context("the target has no name")?;
    let turns = [format!("{name}.a"), format!("{name}.b")];
    let idle = turns.iter().find(|turn| current.as_deref() != Some(Path::new(turn))).expect("one of two");
    let idle = folder.join(idle);
    write(&idle, &files).with_context(|| format!("write {}", idle.display()))?;

    let usable = || kiosk::check(&Config::load(&idle.join(MAIN))?);
    if let Err(reason) = usable() {
        let _ = fs::remove_dir_all(&idle);
        // In the technician's words: where the file is that is to be changed.
        let reason = format!("{reason:#}").replace(&format!("{}/", idle.display()), "");
        bail!(reason);
    }
    link(&idle, to, current.is_none()).with_context(|| format!("link {}", to.display()))?;
    Ok(Outcome::Installed)
}

/// The files of a folder by name, without what laptops leave behind.
fn read(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            bail!("a file's name is not in Unicode");
        };
        // No link is followed: it could lead anywhere on this machine.
        if name.starts_with('.') || !entry.file_type()?.is_file() {
            continue;
        }
        ensure!(files.len() < MOST_FILES, "more than {MOST_FILES} files");
        let mut content = Vec::new();
        let file = File::open(entry.path()).with_context(|| format!("open {name}"))?;
        file.take(LARGEST + 1).read_to_end(&mut content).with_context(|| format!("read {name}"))?;
        ensure!(content.len() as u64 <= LARGEST, "{name} is larger than {} MiB", LARGEST >> 20);
        files.push((name, content));
    }
    files.sort();
    match files.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(MAIN)) {
        Some((name, content)) => {
            // FAT keeps no case, and editors put a mark before the first letter.
            MAIN.clone_into(name);
            if content.starts_with(b"\xef\xbb\xbf") {
                content.drain(..3);
            }
        }
        None => {
            let like = |name: &&str| name.to_ascii_lowercase().starts_with(MAIN);
            let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).filter(like).collect();
            match names.first() {
                Some(name) => bail!("there is no {MAIN}, but {name}: rename it"),
                None => bail!("there is no {MAIN}"),
            }
        }
    }
    Ok(files)
}

/// Fills a folder, and waits until all of it is on the disk.
fn write(folder: &Path, files: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(folder)?,
    }
    for (name, content) in files {
        let mut file = File::create_new(folder.join(name))?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

/// Lets `to` lead to its neighbour `folder`, from one moment to the next.
fn link(folder: &Path, to: &Path, first: bool) -> std::io::Result<()> {
    let mut new = to.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let _ = fs::remove_file(&new);
    symlink(folder.file_name().unwrap_or_default(), &new)?;
    if first {
        // An empty folder may be there in its place.
        let _ = fs::remove_dir(to);
    }
    fs::rename(&new, to)?;
    to.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "id = 'lobby'\nbroker.address = 'broker'\n";

    /// A partition with settings and a disk to take them over to, in a folder of their own.
    struct Board {
        root: PathBuf,
    }

    impl Board {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("parlor-provision-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("settings")).expect("a folder");
            fs::create_dir_all(root.join("data")).expect("a folder");
            Self { root }
        }

        fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
            fs::write(self.root.join("settings").join(name), content).expect("written");
            self
        }

        fn provision(&self) -> anyhow::Result<Outcome> {
            provision(&self.root.join("settings"), &self.root.join("data/parlor"))
        }

        /// What the daemon would read.
        fn id(&self) -> String {
            let config = Config::load(&self.root.join("data/parlor/kiosk.toml"));
            config.expect("whatever happened, it can be used").id.to_string()
        }

        fn refusal(&self) -> String {
            format!("{:#}", self.provision().expect_err("refused"))
        }
    }

    impl Drop for Board {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    #[test]
    fn good_settings_are_taken_over_once_and_again_when_they_change() {
        let board = Board::new("good");
        board
            .put("KIOSK.TOML", format!("\u{feff}{}", GOOD.replace('\n', "\r\n")))
            .put("._kiosk.toml", "junk");

        assert_eq!(board.provision().expect("good"), Outcome::Installed);
        assert_eq!(board.provision().expect("good"), Outcome::Unchanged);
        assert_eq!(board.id(), "lobby");
        for id in ["ward", "gate", "hall"] {
            board.put("KIOSK.TOML", GOOD.replace("lobby", id));
            assert_eq!(board.provision().expect("good"), Outcome::Installed);
            assert_eq!(board.id(), id);
        }
        let left = fs::read_dir(board.root.join("data")).expect("a folder").count();
        assert_eq!(left, 3, "the link and two folders that take turns");
    }

    #[test]
    fn settings_that_cannot_be_used_leave_the_last_good_ones_and_are_said_with_their_line() {
        let board = Board::new("bad");
        board.put("kiosk.toml", GOOD).provision().expect("good");

        for (text, reason) in [
            ("id = 'lobby'\nbroker.address = 'b'\n[screen]\nrotate = 90\n", "kiosk.toml: line 4"),
            ("id = 'no spaces'\nbroker.address = 'b'\n", "1 to 64"),
            ("id = 'lobby'\nbroker.address = 'mqtts://b'\nbroker.ca_file = 'ours.crt'\n", "ours.crt"),
            ("id = 'lobby'\nbroker = { address = 'b', password_file = 'password' }\n", "password"),
            ("\u{0}\u{1}", "line 1"),
        ] {
            board.put("kiosk.toml", text);
            let said = board.refusal();
            assert!(said.contains(reason) && !said.contains("parlor.b"), "{said}");
            assert_eq!(board.id(), "lobby");
        }
    }

    #[test]
    fn what_is_missing_too_much_or_no_file_is_said() {
        let board = Board::new("hostile");
        assert!(board.refusal().contains("there is no kiosk.toml"));
        board.put("Kiosk.toml.txt", GOOD);
        assert!(board.refusal().contains("Kiosk.toml.txt: rename it"));
        fs::create_dir(board.root.join("settings/kiosk.toml")).expect("a folder");
        assert!(board.refusal().contains("there is no kiosk.toml"));
        fs::remove_dir(board.root.join("settings/kiosk.toml")).expect("ours");
        symlink("/etc/shadow", board.root.join("settings/kiosk.toml")).expect("a link");
        assert!(board.refusal().contains("there is no kiosk.toml"));
        fs::remove_file(board.root.join("settings/kiosk.toml")).expect("ours");
        board.put("kiosk.toml", [0xff; 10]);
        assert!(board.refusal().contains("UTF-8"));

        board.put("kiosk.toml", GOOD);
        for index in 0..MOST_FILES {
            board.put(&format!("{index}.crt"), "");
        }
        assert!(board.refusal().contains("more than 64 files"));
        assert!(!board.root.join("data/parlor").exists());
    }

    #[test]
    fn a_power_cut_at_any_step_leaves_settings_that_can_be_used() {
        let board = Board::new("cut");
        board.put("kiosk.toml", GOOD).provision().expect("good");
        let data = board.root.join("data");

        // A folder half filled, whole and not linked, and a link that was made and not renamed.
        for half in ["id = 'la", GOOD] {
            fs::create_dir_all(data.join("parlor.b")).expect("a folder");
            fs::write(data.join("parlor.b/kiosk.toml"), half).expect("written");
            let _ = symlink("parlor.b", data.join("parlor.new"));
            assert_eq!(board.id(), "lobby");
            board.put("kiosk.toml", GOOD.replace("lobby", "ward"));
            assert_eq!(board.provision().expect("good"), Outcome::Installed);
            assert_eq!(board.id(), "ward");
            board.put("kiosk.toml", GOOD).provision().expect("good");
        }
    }
}
