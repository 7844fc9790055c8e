//! A real browser as a member of the room: runs the tests of `tests/browser` against this build.

use std::path::Path;
use std::process::Command;

/// What the tests need; `board/packages` names the Debian packages.
const TOOLS: [&str; 4] = ["node", "npm", "chromium", "mosquitto"];

#[test]
fn a_browser_and_the_kiosk_see_each_other() {
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    assert!(missing.is_empty(), "not installed: {missing:?}; `board/install-packages test` does it");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");

    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder));
    run(Command::new("npm").arg("test").current_dir(&folder).env("PARLOR", env!("CARGO_BIN_EXE_parlor")));
}

/// In the path, or where daemons lie.
fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(tool).is_file())
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        said(&output.stdout),
        said(&output.stderr)
    );
}
