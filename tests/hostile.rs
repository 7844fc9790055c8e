//! The fuzzer's targets, without the fuzzer: its seeds, and every input in `fuzz/regressions` that once broke one.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;
use std::{fs, panic};

#[test]
fn every_seed_is_understood_to_the_end() {
    // Pictures decoded, packets played and so on: a target that turns its seeds away looks at nothing.
    let least = |target: &str, name: &str| match (target, name) {
        ("room", "call") => 7,
        ("peer", _) => 6,
        // The first is broken, and what follows is only good from the next keyframe on: the last two.
        ("picture", "lossy") => 2,
        ("picture", _) => 6,
        ("voice", "speech") => 40,
        ("voice", _) => 30,
        _ => 1,
    };

    for (target, name, seed) in fuzz::seeds::all() {
        let understood = run(target, &seed);

        assert!(understood >= least(target, &name), "{target}, {name}: only {understood}");
    }
}

#[test]
fn nothing_that_once_broke_a_target_does_so_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    for (target, _) in fuzz::TARGETS {
        for file in fs::read_dir(folder.join(target)).into_iter().flatten() {
            let path = file.expect("a file").path();
            let input = fs::read(&path).expect("it can be read");

            let broken = panic::catch_unwind(|| run(target, &input)).is_err();

            assert!(!broken, "{}", path.display());
        }
    }
}

fn run(target: &str, input: &[u8]) -> usize {
    let (_, function) = fuzz::TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    function(input)
}
