//! Holds the files beside the code to the code and to each other: cross.toml, the example configuration, the units,
//! the package list, the Debian package, the README. Runs nothing but the package script, with stand-ins for apt,
//! systemd's judge of units, and `parlor manual`.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, process};

use toml::{Table, Value};

#[test]
fn cross_finds_the_same_in_both_of_its_files() {
    let manifest = table("Cargo.toml");

    let inside = &manifest["package"]["metadata"]["cross"];

    assert_eq!(inside.as_table(), Some(&table("cross.toml")));
}

#[test]
fn every_dockerfile_that_cross_names_is_there() {
    let cross = table("cross.toml");

    let targets = cross["target"].as_table().expect("targets are tables");
    let dockerfiles: Vec<&str> =
        targets.values().map(|target| target["dockerfile"]["file"].as_str().expect("a path")).collect();

    assert!(!dockerfiles.is_empty());
    for dockerfile in dockerfiles {
        assert!(read(dockerfile).contains("\nFROM debian:"), "{dockerfile}");
    }
}

#[test]
fn the_example_configuration_is_toml_with_its_comments_and_without() {
    let example = read("board/kiosk.example.toml");

    let as_it_stands: Table = example.parse().expect("the example parses");
    let everything_on: Table = uncomment(&example).parse().expect("the example parses with every key set");

    assert_eq!(as_it_stands["screen"]["device"].as_str(), Some("/dev/fb0"));
    assert_eq!(everything_on["room"]["absent_grace_s"].as_integer(), Some(60));
    assert_eq!(everything_on["link"]["ice_servers"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_daemon_takes_the_example_configuration() {
    let file = root().join("board/kiosk.example.toml");

    let config = parlor::config::Config::load(&file).expect("a good example");

    assert_eq!(config.cameras.len(), 2);
}

#[test]
fn the_readme_speaks_of_every_key_of_the_configuration() {
    let everything_on: Table =
        uncomment(&read("board/kiosk.example.toml")).parse().expect("the example parses");
    let readme = read("README.md");

    let missing: Vec<String> =
        keys(&everything_on).into_iter().filter(|key| !readme.contains(&format!("`{key}`"))).collect();

    assert!(missing.is_empty(), "README.md does not explain {missing:?}");
}

#[test]
fn the_unit_starts_the_binary_with_the_file_it_protects() {
    let unit = read("systemd/parlor.service");
    let manifest = table("Cargo.toml");
    let binary = manifest["package"]["default-run"].as_str().expect("a name");

    let start = setting(&unit, "ExecStart");

    let problem = "--problem /run/parlor-provision/problem";
    assert_eq!(start, [format!("/usr/bin/{binary} run --config /etc/parlor/kiosk.toml {problem}")]);
    assert!(read("systemd/parlor.tmpfiles").contains("\nd /etc/parlor 0750 root parlor"));
}

#[test]
fn the_unit_is_watched_and_comes_back_for_ever() {
    let unit = read("systemd/parlor.service");

    assert_eq!(setting(&unit, "Type"), ["notify"]);
    assert_eq!(setting(&unit, "WatchdogSec"), ["30"]);
    assert_eq!(setting(&unit, "Restart"), ["always"]);
    assert_eq!(setting(&unit, "StartLimitIntervalSec"), ["0"]);
    // Where the daemon looks for the budget by itself.
    assert_eq!(setting(&unit, "StateDirectory"), ["parlor"]);
    // Word of a hang outlives the restart.
    assert_eq!(setting(&unit, "RuntimeDirectory"), ["parlor"]);
    assert_eq!(setting(&unit, "RuntimeDirectoryPreserve"), ["restart"]);
}

#[test]
fn the_units_user_and_groups_are_the_ones_that_are_made() {
    let unit = read("systemd/parlor.service");
    let sysusers = read("systemd/parlor.sysusers");

    let user = setting(&unit, "User").concat();
    let groups = setting(&unit, "SupplementaryGroups").concat();

    assert!(sysusers.contains(&format!("\nu {user} ")), "{sysusers}");
    for group in groups.split(' ') {
        assert!(sysusers.contains(&format!("\nm {user} {group}\n")), "{group} in {sysusers}");
    }
    assert_eq!(groups, "video tty audio");
    // Of all that these groups own, udev by itself lets none of them open the console.
    let rules = read("systemd/parlor.rules");
    let rule = rules.lines().find(|line| !line.starts_with('#')).expect("a rule");
    assert_eq!(rule, r#"SUBSYSTEM=="tty", KERNEL=="tty0", GROUP="tty", MODE="0620""#);
}

#[test]
fn what_the_unit_leaves_open_is_little() {
    let report = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "systemd/parlor.service"])
        .current_dir(root())
        .output()
        .expect("systemd-analyze is there: board/install-packages test");

    let report = text(&report);
    let exposure = report
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for parlor.service: "))
        .and_then(|(_, level)| level.split_whitespace().next()?.parse::<f32>().ok())
        .unwrap_or_else(|| panic!("no level in {report}"));
    assert!((0.1..=1.8).contains(&exposure), "{report}");
}

#[test]
fn the_readme_lists_every_fault_code_and_no_other() {
    let source = read("src/room/fault.rs");
    let (_, rest) = source.split_once("pub enum Code {").expect("the codes are an enum");
    let (body, _) = rest.split_once("\n}").expect("the enum ends");

    let in_code: BTreeSet<String> = body
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with('#'))
        .map(|line| screaming(line.trim_end_matches(',')))
        .collect();
    let in_readme: BTreeSet<String> = section("README.md", "## Errors")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(String::from))
        .collect();

    assert_eq!(in_code, in_readme);
}

#[test]
fn the_readme_begins_with_the_two_commands_and_the_makefile_has_them() {
    let readme = read("README.md");
    let makefile = read("Makefile");

    let commands: Vec<&str> = readme.lines().filter(|line| line.starts_with("make ")).take(2).collect();

    assert_eq!(commands.len(), 2);
    for (command, target) in commands.iter().zip(["demo", "test"]) {
        assert!(command.starts_with(&format!("make {target}")), "{command}");
        assert!(makefile.contains(&format!("\n{target}: ")), "{target}");
    }
    assert!(read(".ci/run").contains("make test"));
}

#[test]
fn every_file_the_readme_points_to_is_there() {
    for page in ["README.md", "board/README.md"] {
        let text = read(page);
        let folder = root().join(page).parent().expect("a page lies in a folder").to_path_buf();

        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let local = links.filter(|link| !link.is_empty() && !link.contains("://"));
        let missing: Vec<&str> = local.filter(|link| !folder.join(link).exists()).collect();

        assert!(missing.is_empty(), "{page} points to {missing:?}");
    }
}

#[test]
fn the_debian_package_is_made_of_files_that_are_there_or_are_made_for_it() {
    let manifest = table("Cargo.toml");
    let build = read("board/debian/build");

    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("a list");
    let (made, kept): (Vec<&str>, Vec<&str>) =
        assets.iter().filter_map(|asset| asset[0].as_str()).partition(|path| path.starts_with("target/"));

    assert!(build.contains("pages=$PWD/target/debian/pages"));
    assert!(
        made.iter().all(|path| path.starts_with("target/debian/pages/") || *path == "target/release/parlor")
    );
    let missing: Vec<&str> =
        kept.into_iter().filter(|path| !root().join(path.trim_end_matches('*')).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn debians_changelog_begins_with_this_version() {
    let manifest = table("Cargo.toml");

    let version = manifest["package"]["version"].as_str().expect("a version");

    assert!(read("board/debian/changelog").starts_with(&format!("parlor ({version}-1) ")));
}

#[test]
fn the_manual_has_a_page_for_each_command_and_all_completions() {
    let folder = env::temp_dir().join(format!("parlor-manual-{}", process::id()));
    let parlor = env!("CARGO_BIN_EXE_parlor");

    let help = Command::new(parlor).arg("--help").output().expect("it starts");
    let written = Command::new(parlor).arg("manual").arg(&folder).output().expect("it starts");
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .expect("it is made")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    fs::remove_dir_all(&folder).expect("a folder of our own");

    assert!(written.status.success(), "{}", text(&written));
    let help = text(&help);
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let commands = commands.expect("a list").lines().filter_map(|line| line.split_whitespace().next());
    let pages = commands.filter(|name| *name != "help").map(|name| format!("parlor-{name}.1"));
    let expected: BTreeSet<String> =
        pages.chain(["parlor.1", "parlor.bash", "_parlor", "parlor.fish"].map(String::from)).collect();
    assert!(expected.len() > 7 && expected.is_subset(&files), "{expected:?} in {files:?}");
}

/// The Debian packages of a group without commands of their own.
fn group(name: &str) -> Vec<String> {
    let packages = read("board/packages");
    let line = packages.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.expect("the group is there").split_whitespace().map(str::to_owned).collect()
}

#[test]
fn only_what_is_missing_is_installed() {
    let packages = group("build");
    let (missing, installed) = packages.split_at(2);
    let stage = Stage::new("missing").user(0).installed(installed);

    let output = stage.run(&["build"]);

    let missing = missing.join(" ");
    assert!(output.status.success(), "{output:?}");
    let install = format!("-q install -y --no-install-recommends {missing}");
    assert_eq!(stage.apt_calls(), ["-q update", &install]);
    assert!(text(&output).contains(&format!("not installed: {missing}")), "{output:?}");
}

#[test]
fn nothing_is_touched_where_nothing_is_missing() {
    let stage = Stage::new("complete").user(1000).installed(&group("build"));

    let output = stage.run(&["build"]);

    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output), "");
    assert_eq!(stage.apt_calls(), [""; 0]);
}

#[test]
fn a_command_from_elsewhere_stands_for_its_package() {
    let with = Stage::new("node").user(0).command("node", "true").command("npm", "true");
    let without = Stage::new("nonode").user(0);

    with.run(&["test"]);
    without.run(&["test"]);

    assert!(!with.apt_calls().concat().contains("nodejs"), "{:?}", with.apt_calls());
    assert!(without.apt_calls().concat().contains("nodejs npm"), "{:?}", without.apt_calls());
}

#[test]
fn a_user_goes_through_sudo_and_without_it_is_told_what_to_run() {
    let with = Stage::new("sudo").user(1000).command("sudo", "exec \"$@\"");
    let without = Stage::new("nosudo").user(1000);

    let installed = with.run(&["build"]);
    let told = without.run(&["build"]);

    assert!(installed.status.success(), "{installed:?}");
    assert_eq!(with.apt_calls().len(), 2);
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told).contains("apt-get install --no-install-recommends build-essential"), "{told:?}");
    assert_eq!(without.apt_calls(), [""; 0]);
}

#[test]
fn a_group_that_is_not_there_is_refused() {
    let output = Stage::new("group").user(0).run(&["bild"]);

    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("no group `bild`"), "{output:?}");
}

#[test]
fn debians_old_qemu_is_never_installed() {
    let packages = read("board/packages");

    let named: Vec<&str> =
        packages.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();

    assert!(named.contains(&"mosquitto"));
    assert!(!named.iter().any(|package| package.starts_with("qemu-system")), "{named:?}");
}

/// A folder of stand-ins that is all of PATH while the package script runs.
struct Stage {
    folder: PathBuf,
}

impl Stage {
    /// `name` is one word, another for each stage of this file.
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("parlor-packaging-{}-{name}", process::id()));
        fs::create_dir_all(&folder).expect("make a folder for the stand-ins");
        let stage = Self { folder };
        for tool in ["bash", "sh", "sed", "dirname", "env", "xargs"] {
            let real = ["/usr/bin", "/bin"].iter().map(|bin| Path::new(bin).join(tool));
            let real = real.into_iter().find(|path| path.exists()).expect("a Debian has it");
            std::os::unix::fs::symlink(real, stage.folder.join(tool)).expect("link a tool");
        }
        let log = stage.folder.join("log");
        stage.installed(&[""; 0]).command("apt-get", &format!("echo \"$@\" >>{}", log.display()))
    }

    fn command(self, name: &str, body: &str) -> Self {
        let path = self.folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("write a stand-in");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
        self
    }

    fn user(self, id: u32) -> Self {
        self.command("id", &format!("echo {id}"))
    }

    fn installed(self, packages: &[impl std::fmt::Display]) -> Self {
        let cases: String = packages.iter().map(|name| format!("{name}) printf installed;;\n")).collect();
        self.command("dpkg-query", &format!("case $4 in\n{cases}*) exit 1;;\nesac"))
    }

    fn run(&self, groups: &[&str]) -> Output {
        Command::new("/bin/bash")
            .arg(root().join("board/install-packages"))
            .args(groups)
            .env_clear()
            .env("PATH", &self.folder)
            .env("CI", "true")
            .output()
            .expect("run the package script")
    }

    /// What apt-get was asked, a line a call.
    fn apt_calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines().map(String::from).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

fn table(path: &str) -> Table {
    read(path).parse().unwrap_or_else(|error| panic!("parse {path}: {error}"))
}

/// Standard output and error, one after the other.
fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// Every value of a setting of a unit.
fn setting(unit: &str, name: &str) -> Vec<String> {
    let assigned = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(String::from);
    unit.lines().filter_map(assigned).collect()
}

/// From a heading to the next of its rank.
fn section(path: &str, heading: &str) -> String {
    let text = read(path);
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).expect("the heading is there");
    rest.split("\n## ").next().unwrap_or_default().to_string()
}

/// The example with its commented keys switched on: lines of `# key = …` and what belongs to them.
fn uncomment(example: &str) -> String {
    let is_code = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            || line.trim_start().starts_with('{')
            || line == "]"
    };
    let open = |line: &str| match line.strip_prefix("# ") {
        Some(code) if is_code(code) => code.to_string(),
        _ => line.to_string(),
    };
    example.lines().map(|line| open(line) + "\n").collect()
}

/// The names of all keys that are not tables, at any depth.
fn keys(table: &Table) -> BTreeSet<String> {
    let inner = |(key, value): (&String, &Value)| match value {
        Value::Table(table) => keys(table),
        Value::Array(list) => {
            let within = list.iter().filter_map(Value::as_table).flat_map(keys);
            within.chain([key.clone()]).collect()
        }
        _ => BTreeSet::from([key.clone()]),
    };
    table.iter().flat_map(inner).collect()
}

/// `CameraNoBandwidth` as `CAMERA_NO_BANDWIDTH`.
fn screaming(name: &str) -> String {
    let mut word = String::new();
    for (place, letter) in name.chars().enumerate() {
        if place > 0 && letter.is_uppercase() {
            word.push('_');
        }
        word.extend(letter.to_uppercase());
    }
    word
}
