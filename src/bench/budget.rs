//! The board's measured budget as a file: written by a sweep, read by the daemon when it starts.

use crate::room::capacity::{Capacity, LARGEST_FILE};
use anyhow::Context;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Where the daemon looks: its state directory (systemd.exec(5), `StateDirectory=`).
pub const FILE: &str = "/var/lib/parlor/budget.json";

/// Writes the file whole: a daemon that starts meanwhile reads the old one.
///
/// # Errors
/// The directory does not exist or may not be written to.
pub fn write(path: &Path, capacity: &Capacity) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let json = serde_json::to_string_pretty(capacity).context("write the budget as JSON")?;
    std::fs::write(&fresh, json + "\n").with_context(|| format!("write {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("rename {} to {}", fresh.display(), path.display()))
}

/// Reads the file; `None` if there is none, or none that can be used, which is said in the log.
pub fn read(path: &Path) -> Option<Capacity> {
    let mut bytes = Vec::new();
    // One byte more than is allowed: enough to see that it is too long.
    let read =
        std::fs::File::open(path).and_then(|file| file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes));
    let error = match read {
        Ok(_) => match Capacity::parse(&bytes) {
            Ok(capacity) => return Some(capacity),
            Err(error) => error,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
    };
    tracing::warn!(file = %path.display(), error, "the budget cannot be used: `parlor bench --sweep` writes a new one");
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::capacity::Share;

    #[test]
    fn a_budget_is_found_again_and_a_bad_or_absent_file_is_as_good_as_none() {
        let directory = std::env::temp_dir().join(format!("parlor-budget-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a folder");
        let (file, share) = (directory.join("budget.json"), Share { base: 0.5, tile: 0.25 });
        let capacity = Capacity {
            version: Default::default(),
            size: [640, 480],
            rate_hz: 30,
            screen: [1920, 1080],
            tiles: 4,
            tried: 16,
            cpu: share,
            pss_mib: share,
        };

        assert_eq!(read(&file), None);
        write(&file, &capacity).expect("written");
        assert_eq!(read(&file), Some(capacity));
        std::fs::write(&file, "{").expect("written");
        assert_eq!(read(&file), None);
        std::fs::write(&file, [b' '; LARGEST_FILE * 2]).expect("written");
        assert_eq!(read(&file), None);
        assert_eq!(read(&directory), None);

        std::fs::remove_dir_all(&directory).expect("it is ours");
    }
}
