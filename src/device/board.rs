//! How the board itself is: heat (kernel: driver-api/thermal/sysfs-api) and memory (kernel: admin-guide/cgroup-v2).

use super::{Board, Gauge};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};

/// The board as the kernel shows it below a root: `/`, or a copy of some files in a test.
#[derive(Clone, Debug)]
pub struct KernelBoard {
    root: PathBuf,
}

impl KernelBoard {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Board for KernelBoard {
    /// The thermal zone nearest to its first trip point above which the kernel acts: passive, hot or critical.
    fn heat(&self) -> Option<Gauge> {
        let zones = std::fs::read_dir(self.root.join("sys/class/thermal")).ok()?.flatten();
        let zones = zones.filter(|zone| zone.file_name().to_string_lossy().starts_with("thermal_zone"));
        zones
            .filter_map(|zone| zone_of(&zone.path()))
            .max_by_key(|gauge| gauge.now as i64 - gauge.limit as i64)
    }

    fn file(&self, path: &Path) -> io::Result<Bytes> {
        super::file::map(path)
    }

    /// Of the process's control group, against `memory.high`, else `memory.max`.
    fn memory(&self) -> Option<Gauge> {
        let groups = std::fs::read_to_string(self.root.join("proc/self/cgroup")).ok()?;
        // Version 2 has one line, without a controller's name.
        let name = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let group = self.root.join("sys/fs/cgroup").join(name.trim_start_matches('/'));
        let limit = number(&group.join("memory.high")).or_else(|| number(&group.join("memory.max")))?;
        Some(Gauge { now: number(&group.join("memory.current"))?, limit, name: name.to_owned() })
    }
}

/// Gives memory that is free in the allocator back to the kernel, so that what is resident is what is in use
/// (malloc_trim(3)).
#[allow(unsafe_code)]
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and locks each arena while it works on it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Memory that this process has allocated and not freed, in KiB, whatever the allocator keeps besides (mallinfo2(3)).
/// `None` where the C library does not tell.
#[allow(unsafe_code)]
pub fn allocated_kib() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and locks each arena while it counts in it.
    return Some(unsafe {
        let info = libc::mallinfo2();
        (info.uordblks + info.hblkhd) as u64 / 1024
    });
    #[cfg(not(target_env = "gnu"))]
    None
}

fn zone_of(zone: &Path) -> Option<Gauge> {
    let acts = |index: u32| {
        let kind = std::fs::read_to_string(zone.join(format!("trip_point_{index}_type"))).ok()?;
        let at = number(&zone.join(format!("trip_point_{index}_temp")))?;
        // `active` only turns a fan on.
        Some((kind.trim() != "active" && at > 0).then_some(at))
    };
    let limit = (0..16).map_while(acts).flatten().min()?;
    let name = std::fs::read_to_string(zone.join("type")).ok()?.trim().to_owned();
    Some(Gauge { now: number(&zone.join("temp"))?, limit, name })
}

/// The number in a file; `None` for `max` too.
fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files; gone when dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("parlor-board-{name}-{}", std::process::id()));
            for (file, content) in files {
                let file = root.join(file);
                std::fs::create_dir_all(file.parent().expect("below the root")).expect("a folder");
                std::fs::write(file, content).expect("a file");
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_zone_nearest_to_where_the_kernel_acts_counts() {
        let zone = |number: u32, file: &str| format!("sys/class/thermal/thermal_zone{number}/{file}");
        let files = [
            (zone(0, "type"), "cpu-thermal\n"),
            (zone(0, "temp"), "71000\n"),
            (zone(0, "trip_point_0_type"), "active\n"),
            (zone(0, "trip_point_0_temp"), "50000\n"),
            (zone(0, "trip_point_1_type"), "passive\n"),
            (zone(0, "trip_point_1_temp"), "80000\n"),
            (zone(1, "type"), "gpu-thermal\n"),
            (zone(1, "temp"), "60000\n"),
            (zone(1, "trip_point_0_type"), "critical\n"),
            (zone(1, "trip_point_0_temp"), "95000\n"),
            (zone(2, "type"), "no-trip\n"),
            (zone(2, "temp"), "99000\n"),
        ];
        let root = Root::new("heat", &files.each_ref().map(|(file, content)| (file.as_str(), *content)));

        let heat = KernelBoard::new(&root.0).heat();

        assert_eq!(heat, Some(Gauge { now: 71_000, limit: 80_000, name: "cpu-thermal".into() }));
    }

    #[test]
    fn memory_is_that_of_the_own_group_against_the_limit_it_has() {
        let group = "sys/fs/cgroup/system.slice/parlor.service";
        let file = |name: &str| format!("{group}/{name}");
        let (high, max, current) = (file("memory.high"), file("memory.max"), file("memory.current"));
        let cgroup = ("proc/self/cgroup", "0::/system.slice/parlor.service\n");
        let root = Root::new("memory", &[cgroup, (&high, "max\n"), (&max, "200\n"), (&current, "150\n")]);

        let memory = KernelBoard::new(&root.0).memory();

        assert_eq!(memory.map(|memory| (memory.now, memory.limit)), Some((150, 200)));
    }

    #[test]
    fn a_board_that_measures_nothing_says_nothing() {
        let board = KernelBoard::new(Path::new("/nowhere"));

        assert_eq!((board.heat(), board.memory()), (None, None));
    }
}
