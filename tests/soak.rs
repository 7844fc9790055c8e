//! The soak: a minute of it with a fixed seed, that it can fail, and two hundred unplugged cameras.

use std::process::{Command, Output};

fn soak(arguments: &[&str]) -> (Output, String) {
    let program = env!("CARGO_BIN_EXE_parlor");
    let output = Command::new(program).arg("soak").args(arguments).output().expect("the program starts");
    let said =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn a_minute_of_steps_breaks_no_promise() {
    let (output, said) = soak(&["--minutes", "1", "--seed", "7", "--kiosks", "3"]);

    assert!(output.status.success(), "{said}");
    assert!(said.contains("every promise was kept") && said.contains("all healed at once"), "{said}");
}

#[test]
fn a_kiosk_that_ends_in_silence_is_a_broken_promise_with_its_seed() {
    let (output, said) = soak(&["--minutes", "1", "--seed", "7", "--kiosks", "2", "--stop-kiosk", "lobby"]);

    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("A PROMISE IS BROKEN. Step 2"), "{said}");
    assert!(said.contains("lobby") && said.contains("--seed 7 --kiosks 2"), "{said}");
}

#[test]
fn two_hundred_unplug_cycles_leave_threads_and_file_descriptors_flat_and_memory_within_noise() {
    let (output, said) = soak(&["--unplug", "200"]);

    assert!(output.status.success(), "{said}");
    assert!(said.contains("after 200 cycles") && said.contains("nothing grows"), "{said}");
}

#[test]
fn wrong_arguments_are_named() {
    for (arguments, word) in [
        (&["--kiosks", "9"][..], "1..=4"),
        (&["--minutes", "0"], "0.1"),
        (&["--kiosks", "2", "--stop-kiosk", "nobody"], "depot, lobby"),
    ] {
        let (output, said) = soak(arguments);

        assert!(!output.status.success() && said.contains(word), "{said}");
    }
}
