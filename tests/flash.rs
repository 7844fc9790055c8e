//! `board/flash` on files, which it may write, and on this machine's disks, which it must refuse. No test here can write to a
//! disk: none says `--yes` to one, and standard input is empty where its name would be typed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs, process};

#[test]
fn an_image_is_copied_and_read_back() {
    let place = Place::new("raw");
    let image = place.image();

    let output = flash(&[&image, &place.path("copy")], "");

    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("read back and compared"), "{}", text(&output));
    assert!(fs::read(place.path("copy")).unwrap() == fs::read(image).unwrap());
}

#[test]
fn a_packed_image_is_unpacked_on_the_way() {
    let place = Place::new("packed");
    let image = place.image();
    let packed = Command::new("xz").args(["-0", "-k"]).arg(&image).status().unwrap();
    assert!(packed.success());

    let output = flash(&[&place.path("image.xz"), &place.path("copy")], "");

    assert!(output.status.success(), "{}", text(&output));
    assert!(fs::read(place.path("copy")).unwrap() == fs::read(image).unwrap());
}

#[test]
fn a_damaged_archive_overwrites_nothing() {
    let place = Place::new("damaged");
    fs::write(place.path("image.xz"), b"no archive").unwrap();
    fs::write(place.path("old"), b"old").unwrap();

    let output = flash(&[Path::new("--yes"), &place.path("image.xz"), &place.path("old")], "");

    assert!(!output.status.success());
    assert!(text(&output).contains("cannot be unpacked"), "{}", text(&output));
    assert_eq!(fs::read(place.path("old")).unwrap(), b"old");
}

#[test]
fn what_is_there_is_overwritten_only_when_its_name_is_typed() {
    let place = Place::new("typed");
    let (image, old) = (place.image(), place.path("old"));
    fs::write(&old, b"old").unwrap();

    let wrong = flash(&[&image, &old], "yes\n");
    let kept = fs::read(&old).unwrap();
    let right = flash(&[&image, &old], &format!("{}\n", old.display()));

    assert!(text(&wrong).contains("nothing was written"), "{}", text(&wrong));
    assert_eq!(kept, b"old");
    assert!(right.status.success(), "{}", text(&right));
    assert!(fs::read(&old).unwrap() == fs::read(image).unwrap());
}

#[test]
fn the_image_a_folder_and_a_mistyped_disk_are_no_targets() {
    let place = Place::new("targets");
    let image = place.image();

    for (target, reason) in [
        (image.clone(), "is the image itself"),
        (place.0.clone(), "neither a disk nor a file"),
        (PathBuf::from("/dev/parlor-no-such-disk"), "is not a disk"),
        (PathBuf::from("/dev/null"), "is not a disk"),
    ] {
        let output = flash(&[&image, &target], "");

        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(reason), "{}: {}", target.display(), text(&output));
    }
}

#[test]
fn every_mounted_disk_of_this_machine_is_refused() {
    let place = Place::new("disks");
    let image = place.image();
    let listed = Command::new("lsblk").args(["-nrpo", "PATH,MOUNTPOINTS"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();

    for mounted in
        listed.lines().filter_map(|line| line.split_once(' ')).filter(|(_, mount)| !mount.is_empty())
    {
        let output = flash(&[&image, Path::new(mounted.0)], "");

        println!("{}", text(&output));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            !text(&output).contains("type its name"),
            "refused before anybody is asked: {}",
            text(&output)
        );
    }
}

/// A folder of its own, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("parlor-flash-{name}-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder.canonicalize().expect("it is there"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Nine million bytes and one, which no block size divides.
    fn image(&self) -> PathBuf {
        let bytes: Vec<u8> =
            (0..9_000_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(self.path("image"), bytes).expect("written");
        self.path("image")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn flash(arguments: &[&Path], typed: &str) -> Output {
    let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/board/flash"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("board/flash starts");
    // A refusal does not read it.
    let _ = child.stdin.take().expect("a pipe").write_all(typed.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
