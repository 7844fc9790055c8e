//! Holds the recipe of the images to itself: every board has all it needs, and disk, boot loader and updater speak of the same
//! partitions. `make image` and `make test-image` run it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../examples/splash.rs"]
#[expect(dead_code, reason = "its main() is for people")]
mod splash;

/// The folders of boards that images are made for.
fn boards() -> Vec<PathBuf> {
    let folders = fs::read_dir(path("board")).expect("a folder").filter_map(Result::ok);
    let boards: Vec<PathBuf> =
        folders.map(|entry| entry.path()).filter(|folder| folder.join("board").is_file()).collect();
    assert!(!boards.is_empty());
    boards
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The layout of a board's disk: its own, or that of all.
fn layout(board: &Path) -> String {
    let own = board.join("genimage.cfg");
    read(&if own.exists() { own } else { path("board/common/genimage.cfg") })
}

/// The words of a package list.
fn words(list: &str) -> Vec<&str> {
    list.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace()).collect()
}

#[test]
fn every_board_is_data_and_says_all_that_the_recipe_asks() {
    for board in boards() {
        let settings = read(&board.join("board"));
        for key in ["architecture", "firmware", "loader", "kernel_arguments", "early_modules"] {
            assert!(settings.lines().any(|line| line.starts_with(&format!("{key}="))), "{board:?}: {key}");
        }
        let arguments =
            settings.lines().find(|line| line.starts_with("kernel_arguments=")).unwrap_or_default();
        assert!(!arguments.contains("tty0"), "{board:?}: the screen is no console");
        let packages = read(&board.join("packages"));
        assert!(words(&packages).iter().any(|package| package.starts_with("linux-image-")), "{board:?}");
    }
    let common = read(&path("board/common/packages"));
    for package in ["rauc", "rauc-service", "grub-common", "libasound2t64", "ca-certificates"] {
        assert!(words(&common).contains(&package), "{package}");
    }
}

#[test]
fn disk_boot_loader_updater_and_mounts_speak_of_the_same_partitions() {
    let grub = read(&path("board/common/grub.cfg"));
    let updater = read(&path("board/common/root/etc/rauc/system.conf"));
    let mounts = read(&path("board/common/root/etc/fstab"));
    let growth = read(&path("board/common/root/etc/repart.d/50-data.conf"));
    for board in boards() {
        let disk = layout(&board);
        let partitions: Vec<&str> = disk
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("partition "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(partitions, ["boot", "root-a", "root-b", "settings", "data"], "{board:?}");
        let kind = growth.lines().find_map(|line| line.strip_prefix("Type=")).expect("a type");
        let grows: Vec<&str> = disk.lines().filter(|line| line.contains(kind)).collect();
        assert!(matches!(grows[..], [line] if line.contains("partition data")), "only data grows: {grows:?}");
    }
    // GRUB counts partitions, and names them to the kernel.
    for (number, slot) in [(2, "root-a"), (3, "root-b")] {
        assert!(grub.contains(&format!("gpt{number}\n\tset label={slot}")), "{slot}");
        assert!(updater.contains(&format!("device=/dev/disk/by-partlabel/{slot}\n")), "{slot}");
    }
    for (label, folder) in [("boot", "/boot/efi"), ("settings", "/settings"), ("data", "/data")] {
        let mount =
            mounts.lines().find(|line| line.starts_with(&format!("PARTLABEL={label} "))).expect(label);
        assert_eq!(mount.split_whitespace().nth(1), Some(folder));
        assert!(mount.contains("nofail"), "{label}: a start never waits for ever");
    }
    assert!(updater.contains("grubenv=/boot/efi/grub/grubenv\n"));
}

#[test]
fn a_raspberry_pi_starts_u_boot_which_starts_what_all_boards_start() {
    let folder = path("board/rpi4");
    let (settings, firmware) = (read(&folder.join("board")), read(&folder.join("boot/config.txt")));

    assert!(words(&firmware).contains(&"kernel=u-boot.bin") && words(&firmware).contains(&"arm_64bit=1"));
    assert!(settings.contains("rpi_arm64/u-boot.bin") && settings.contains("loader=BOOTAA64.EFI"));
    for file in ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"] {
        assert!(settings.contains(file), "{file}");
    }
    let unpacked = read(&folder.join("unpacked"));
    for package in ["raspi-firmware", "u-boot-rpi", "firmware-brcm80211"] {
        assert!(words(&unpacked).contains(&package), "{package}");
    }
}

#[test]
fn a_slot_that_cannot_be_started_gives_way_to_the_other() {
    let grub = read(&path("board/common/grub.cfg"));
    let commands: Vec<&str> =
        grub.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();

    // The mark is saved before the slot is tried, and what comes after `boot` is only reached when that failed.
    let at = |command: &str| commands.iter().position(|line| line.starts_with(command)).expect("it is there");
    assert!(at("save_env") < at("linux ") && at("linux ") < at("boot"));
    assert_eq!(commands.last(), Some(&"reboot"));
}

#[test]
fn the_splash_is_what_the_daemon_would_draw_today() {
    let stored = fs::read(path("board/common/splash.png")).expect("a picture");

    let drawn = splash::picture().expect("drawn");

    assert!(stored == drawn, "cargo run --example splash > board/common/splash.png");
}

#[test]
fn the_picture_comes_first_and_no_console_writes_over_it() {
    let grub = read(&path("board/common/grub.cfg"));
    let image = read(&path("board/image"));

    let at = |text: &str| grub.find(text).unwrap_or_else(|| panic!("{text}"));
    assert!(at("background_image") < at("load_env"), "the picture before anything that takes time");
    assert!(at("gfxpayload=keep") < at("linux /boot"));
    let kernel = &grub[at("linux /boot")..];
    let arguments = kernel.lines().next().unwrap_or_default();
    for argument in ["quiet", "fbcon=map:9", "systemd.show_status=false", "panic=10"] {
        assert!(arguments.split(' ').any(|word| word == argument), "{argument}");
    }
    for module in ["all_video", "gfxterm", "gfxterm_background", "png"] {
        assert!(image.split_whitespace().any(|word| word == module), "{module}");
    }
}

#[test]
fn nothing_that_may_be_missing_is_waited_for_before_the_first_picture() {
    let system = path("board/common/root/etc/systemd/system");
    let daemon = read(&path("systemd/parlor.service"));
    let settings = read(&path("systemd/parlor-provision.service"));

    for unit in [read(&system.join("parlor.service.d/early.conf")), settings.clone()] {
        assert!(unit.lines().any(|line| line == "DefaultDependencies=no"), "{unit}");
        assert!(unit.lines().any(|line| line == "Before=shutdown.target"), "{unit}");
    }
    for line in [&daemon, &settings].iter().flat_map(|unit| unit.lines()) {
        let waits = ["After=", "Requires=", "Wants=", "BindsTo="].iter().any(|key| line.starts_with(key));
        assert!(!waits || !line.contains("network") && !line.contains("time-sync"), "{line}");
    }
    // A unit that names a network interface waits a minute and a half for one that is not there.
    assert!(!read(&path("board/image")).contains("wpa_supplicant@"));
    let wireless = read(&path("board/common/root/etc/udev/rules.d/90-wireless.rules"));
    assert!(wireless.contains("wpa_supplicant@$name.service"));
    let joined = read(&system.join("wpa_supplicant@.service.d/parlor.conf"));
    assert!(joined.contains("-c/etc/parlor/wpa_supplicant.conf -i%I"));
}

#[test]
fn the_scripts_are_read_without_complaint() {
    let scripts = [
        "board/image",
        "board/bundle",
        "board/check",
        "board/private-apt",
        "board/flash",
        "board/common/root/usr/lib/parlor/confirm",
        "board/qemu-virt/test",
        "board/qemu-virt/guest/start",
        "board/qemu-virt/guest/update",
        "board/qemu-virt/guest/wifi",
        "board/qemu-virt/guest/work",
    ];
    let said: BTreeSet<String> = scripts
        .iter()
        .map(|script| Command::new("bash").arg("-n").arg(path(script)).output().expect("bash starts"))
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
        .collect();

    assert_eq!(said, BTreeSet::from([String::new()]));
}
