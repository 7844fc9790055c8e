//! The newcomer's first command: it shows that every tile moves, and it can fail.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Ports below those that the system hands out; each test its own.
fn demo(port: u16, arguments: &[&str]) -> Output {
    let ports = [format!("--port={port}"), format!("--broker-port={}", port + 500)];
    let program = env!("CARGO_BIN_EXE_parlor");
    Command::new(program).arg("demo").args(ports).args(arguments).output().expect("the program starts")
}

#[test]
fn every_tile_moves_and_the_screen_is_written() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("room.png");
    let _ = std::fs::remove_file(&file);

    // Moving is looked for, not how fast this machine is.
    let file_name = file.to_str().expect("UTF-8");
    let output = demo(18_080, &["--seconds", "15", "--enough-fps", "1", "--snapshot", file_name]);

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let png = std::fs::File::open(&file).expect("the snapshot was written");
    let reader = png::Decoder::new(std::io::BufReader::new(png)).read_info().expect("a PNG");
    assert_eq!((reader.info().width, reader.info().height), (1280, 720));
}

#[test]
fn a_kiosk_that_stops_is_a_failure() {
    let output = demo(19_080, &["--seconds", "16", "--enough-fps", "1", "--stop-kiosk", "ward-3"]);

    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("NOT every tile moves"), "{said}");
}

#[test]
fn wrong_arguments_are_named() {
    for (arguments, word) in [
        (&["--seconds", "2"][..], "watched for 5 s"),
        (&["--seconds", "20", "--stop-kiosk", "nobody"], "parcel-7"),
        (&["--screen", "12"], "WIDTHxHEIGHT"),
    ] {
        let output = demo(20_080, arguments);

        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(word), "{said}");
    }
}
