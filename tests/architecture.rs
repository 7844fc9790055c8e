//! Holds the plan of the house: who may know whom, what pure code may not touch, how files begin and end.
//!
//! Reads `src/**/*.rs` as text (comments and literals taken out), so it also sees code that a feature or a
//! target leaves out of the build. It does not see through macros.

use std::fs;
use std::path::{Path, PathBuf};

/// Each file or folder of `src/` and what it may know besides itself. Levels ascend; a level knows only lower ones.
#[rustfmt::skip]
const MAY_KNOW: &[(&str, &[&str])] = &[
    // 0: nothing of ours
    ("geometry",  &[]),
    ("mailbox",   &[]),
    ("regression", &[]),
    ("secret",    &[]),
    // 1: pure
    ("room",      &["geometry"]),
    ("media",     &["geometry"]),
    // 2: the edges; they never meet
    ("config",    &["geometry", "secret", "room"]),
    ("device",    &["geometry", "media"]),
    ("link",      &["geometry", "secret", "media", "room"]),
    ("supervise", &["geometry", "room"]),
    ("clock",     &["room"]),
    // 3
    ("pipeline",  &["geometry", "mailbox", "room", "media", "device", "supervise", "clock"]),
    ("sim",       &["geometry", "mailbox", "room", "media", "device"]),
    // 4
    ("kiosk",     &["geometry", "mailbox", "room", "media", "config", "device", "link", "supervise", "clock", "pipeline", "sim"]),
    // 5: `machine` chooses between `device` and `sim`; `main` starts the others
    ("machine",   &["geometry", "room", "media", "config", "device", "sim", "kiosk"]),
    ("ctl",       &["geometry", "secret", "room", "config", "link"]),
    ("demo",      &["geometry", "mailbox", "room", "media", "config", "device", "link", "supervise", "pipeline", "sim", "kiosk", "machine"]),
    ("soak",      &["geometry", "regression", "room", "media", "config", "link", "sim", "kiosk", "machine", "demo"]),
    ("bench",     &["geometry", "regression", "room", "media", "config", "device", "link", "sim", "machine", "demo", "soak"]),
    ("provision", &["config", "kiosk"]),
    ("main",      &["provision", "geometry", "mailbox", "room", "media", "config", "device", "link", "supervise", "pipeline", "sim", "kiosk", "machine", "demo", "soak", "bench", "ctl"]),
];

/// Those who know a device by its trait, not by its driver.
const KNOW_TRAITS_ONLY: &[&str] = &["pipeline", "sim", "kiosk"];

/// Paths that would bring the world, the clock or chance into pure code.
const IMPURE: &[&[&str]] = &[
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "env"],
    &["std", "process"],
    &["Instant", "now"],
    &["SystemTime"],
    &["rand"],
    &["tokio"],
];

const LONGEST_FILE: usize = 600;

const TOP_LEVEL: &[&str] = &["Cargo.toml", "src", "board", "systemd", "cross.toml", "README.md"];

#[test]
fn the_code_keeps_to_the_plan_of_the_house() {
    let root = root();

    let broken: Vec<String> = rust_files(&root.join("src"))
        .iter()
        .flat_map(|file| {
            let name = file.strip_prefix(root.join("src")).expect("found below src");
            check(&name.to_string_lossy(), &read(file))
        })
        .map(|broken| format!("src/{broken}"))
        .collect();

    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_file_of_tests_and_benches_opens_with_what_it_is_for() {
    let root = root();

    let files = ["tests", "benches"].into_iter().flat_map(|folder| rust_files(&root.join(folder)));
    let silent: Vec<PathBuf> = files.filter(|file| !read(file).starts_with("//!")).collect();

    assert!(silent.is_empty(), "these do not open with `//!`: {silent:?}");
}

#[test]
fn the_top_level_is_where_people_look_for_it() {
    let missing: Vec<&&str> = TOP_LEVEL.iter().filter(|name| !root().join(name).exists()).collect();

    assert!(missing.is_empty(), "missing at the top level: {missing:?}");
}

#[test]
fn the_table_only_ever_looks_down() {
    let mut seen: Vec<&str> = Vec::new();

    for (who, known) in MAY_KNOW {
        let up: Vec<&&str> = known.iter().filter(|name| !seen.contains(name)).collect();
        assert!(up.is_empty(), "`{who}` is allowed to know {up:?}, which stand below it in the table");
        seen.push(who);
    }
}

/// A rule that a line breaks, as `room/mod.rs:12: …`.
type Broken = String;

/// Checks one file; `name` is its path below `src/`.
fn check(name: &str, text: &str) -> Vec<Broken> {
    let module = module_of(name);
    let area = module.first().map_or("lib", String::as_str);
    let tokens = tokens(text);
    let mut broken = Vec::new();
    let mut say = |line: usize, rule: String| broken.push(format!("{name}:{line}: {rule}"));

    if !text.starts_with("//!") {
        say(1, "a file opens with `//!`: what it is for and what it will not do".into());
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        say(
            lines,
            format!("a file has at most {LONGEST_FILE} lines; a second noun in it is the place to cut"),
        );
    }

    let may_know = MAY_KNOW.iter().find(|(who, _)| *who == area).map(|(_, known)| *known);
    if may_know.is_none() && area != "lib" {
        say(1, format!("`{area}` has no row in the table of tests/architecture.rs"));
    }
    let paths = paths(&tokens, &module);
    for path in &paths {
        let Some(target) = path.target() else { continue };
        let allowed = area == "lib" || target == area || may_know.is_none_or(|known| known.contains(&target));
        if !allowed {
            say(path.line, format!("`{area}` may not know `{target}`"));
        } else if target == "device" && KNOW_TRAITS_ONLY.contains(&area) && path.enters_a_file() {
            say(
                path.line,
                format!("`{area}` knows devices by their traits, not `{}`", path.words.join("::")),
            );
        }
    }

    let may_be_unsafe = area == "device" || module.starts_with(&["media".into(), "kernel".into()]);
    for (place, token) in tokens.iter().enumerate() {
        let called = tokens.get(place + 1).is_some_and(|next| next.word == "!");
        if token.word == "unsafe" && !may_be_unsafe {
            say(token.line, "`unsafe` lives in device/ and media/kernel/ only".into());
        }
        if called && ["todo", "unimplemented"].contains(&token.word.as_str()) {
            say(token.line, format!("`{}!` is not shipped", token.word));
        }
    }

    if ["room", "media", "geometry"].contains(&area) {
        let tests = tests_begin(&tokens);
        for path in paths.iter().filter(|path| path.line < tests) {
            if let Some(found) = IMPURE.iter().find(|impure| path.contains(impure)) {
                let found = found.join("::");
                say(path.line, format!("`{area}` is pure: no `{found}`; time and chance are parameters"));
            }
        }
    }
    broken
}

/// The module a file holds: `room/mod.rs` is `[room]`, `room/fault.rs` `[room, fault]`, `lib.rs` nothing.
fn module_of(name: &str) -> Vec<String> {
    let stem = name.strip_suffix(".rs").expect("only Rust files are checked");
    let mut module: Vec<String> = stem.split('/').map(String::from).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The line of `#[cfg(test)] mod …`, after which the rules of purity do not hold; past the end if there is none.
fn tests_begin(tokens: &[Token]) -> usize {
    let pattern = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let matches = |window: &&[Token]| window.iter().map(|token| &token.word).eq(pattern);
    tokens.windows(pattern.len()).find(matches).map_or(usize::MAX, |window| window[0].line)
}

/// A path as written, `super` and `self` resolved: our own begin with `crate`.
#[derive(Debug, PartialEq)]
struct CodePath {
    line: usize,
    words: Vec<String>,
}

impl CodePath {
    /// The file or folder of ours that the path leads to. What `lib.rs` itself defines belongs to nobody.
    fn target(&self) -> Option<&str> {
        match self.words.as_slice() {
            [root, target, ..] if root == "crate" => Some(target),
            _ => None,
        }
    }

    /// Whether it leads into a file of a folder, not to what the folder's `mod.rs` offers.
    fn enters_a_file(&self) -> bool {
        self.words.get(2).is_some_and(|word| word.starts_with(char::is_lowercase) && word != "self")
    }

    /// Whether `part` stands in the path; its first word, if there are no others, only at the head.
    fn contains(&self, part: &[&str]) -> bool {
        match part {
            [single] if single.chars().all(|c| c.is_lowercase()) => self.words[0] == *single,
            _ => self.words.windows(part.len()).any(|window| window == part),
        }
    }
}

/// Every path in the file; use-trees are spread out into one path a leaf.
fn paths(tokens: &[Token], file: &[String]) -> Vec<CodePath> {
    let mut found = Vec::new();
    let mut depth = 0;
    // Modules written inside the file, with the depth of the braces they stand in.
    let mut inner: Vec<(usize, String)> = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        let next = tokens.get(place + 1).map_or("", |next| &next.word);
        match token.word.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inner.last().is_some_and(|(outside, _)| *outside == depth) {
                    inner.pop();
                }
            }
            "mod" if tokens.get(place + 2).is_some_and(|after| after.word == "{") => {
                inner.push((depth, next.into()));
            }
            word if is_word(word) && is_head(tokens, place) && (next == "::" || word == "SystemTime") => {
                let module: Vec<String> =
                    file.iter().chain(inner.iter().map(|(_, name)| name)).cloned().collect();
                let mut leaves = Vec::new();
                spread(tokens, place, Vec::new(), &mut leaves);
                found.extend(leaves.into_iter().map(|mut path| {
                    path.words = resolve(path.words, &module);
                    path
                }));
            }
            _ => {}
        }
    }
    found
}

/// Whether a path begins here: nothing but a leading `::` stands before it.
fn is_head(tokens: &[Token], place: usize) -> bool {
    let before = |steps: usize| place.checked_sub(steps).map_or("", |at| &tokens[at].word);
    match before(1) {
        "." => false,
        "::" => !is_word(before(2)) && before(2) != ">" || before(2) == "use",
        // Inside a use-tree: spread out from its head.
        "{" | "," => !in_use_group(tokens, place),
        _ => true,
    }
}

/// Whether the braces around this place are those of a use-tree with a head before them (`a::{…}`).
fn in_use_group(tokens: &[Token], place: usize) -> bool {
    let mut closed = 0;
    for at in (0..place).rev() {
        match tokens[at].word.as_str() {
            "}" => closed += 1,
            "{" if closed > 0 => closed -= 1,
            "{" => return at > 0 && tokens[at - 1].word == "::",
            ";" => return false,
            _ => {}
        }
    }
    false
}

/// Follows a path or use-tree from `place`, collects its leaves and returns the place behind it.
fn spread(tokens: &[Token], mut place: usize, mut words: Vec<String>, leaves: &mut Vec<CodePath>) -> usize {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.word.as_str());
    let line = tokens[place].line;
    loop {
        if word(place) == "{" {
            place += 1;
            while !["}", ""].contains(&word(place)) {
                let before = place;
                place =
                    if word(place) == "," { place + 1 } else { spread(tokens, place, words.clone(), leaves) };
                place = place.max(before + 1);
            }
            return place + 1;
        }
        if is_word(word(place)) || word(place) == "*" {
            words.push(word(place).into());
            place += 1;
        }
        if word(place) != "::" || !(is_word(word(place + 1)) || ["{", "*"].contains(&word(place + 1))) {
            break;
        }
        place += 1;
    }
    if word(place) == "as" {
        place += 2;
    }
    leaves.push(CodePath { line, words });
    place
}

/// Turns `parlor::…`, `self::…` and `super::…` into `crate::…`.
fn resolve(words: Vec<String>, module: &[String]) -> Vec<String> {
    let supers = words.iter().take_while(|word| *word == "super").count();
    let (base, rest) = match words[0].as_str() {
        "crate" | "parlor" => (&module[..0], &words[1..]),
        "self" => (module, &words[1..]),
        "super" => (&module[..module.len().saturating_sub(supers)], &words[supers..]),
        _ => return words,
    };
    ["crate".to_string()].iter().chain(base).chain(rest).cloned().collect()
}

#[derive(Debug, PartialEq)]
struct Token {
    line: usize,
    word: String,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single signs; without comments, strings, characters and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let begins = |place: usize, sign: &str| sign.chars().enumerate().all(|(i, c)| at(place + i) == c);
    let is_inner = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut place = 0;
    while place < chars.len() {
        let start = place;
        let mut word = String::new();
        if begins(place, "//") {
            while place < chars.len() && at(place) != '\n' {
                place += 1;
            }
        } else if begins(place, "/*") {
            let mut depth = 0;
            loop {
                if begins(place, "/*") {
                    depth += 1;
                    place += 1;
                } else if begins(place, "*/") {
                    depth -= 1;
                    place += 1;
                }
                place += 1;
                if depth == 0 || place >= chars.len() {
                    break;
                }
            }
        } else if let Some(end) = raw_string_end(&chars, place) {
            place = end;
        } else if at(place) == '"' || begins(place, "b\"") || begins(place, "c\"") {
            place += if at(place) == '"' { 1 } else { 2 };
            while place < chars.len() && at(place) != '"' {
                place += if at(place) == '\\' { 2 } else { 1 };
            }
            place += 1;
        } else if at(place) == '\'' && at(place + 1) == '\\' {
            place += 3;
            while place < chars.len() && at(place) != '\'' {
                place += 1;
            }
            place += 1;
        } else if at(place) == '\'' && at(place + 2) == '\'' {
            place += 3;
        } else if at(place) == '\'' {
            place += 1;
            while is_inner(at(place)) {
                place += 1;
            }
        } else if begins(place, "::") {
            word = "::".into();
            place += 2;
        } else if is_inner(at(place)) {
            while is_inner(at(place)) {
                place += 1;
            }
            word = chars[start..place].iter().collect();
        } else {
            if !at(place).is_whitespace() {
                word.push(at(place));
            }
            place += 1;
        }
        if !word.is_empty() {
            tokens.push(Token { line, word });
        }
        line += chars[start..place.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Where the raw string that begins at `place` ends, if one does.
fn raw_string_end(chars: &[char], mut place: usize) -> Option<usize> {
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    if at(place) == 'b' {
        place += 1;
    }
    if at(place) != 'r' {
        return None;
    }
    let hashes = (1..).take_while(|i| at(place + i) == '#').count();
    place += 1 + hashes;
    if at(place) != '"' {
        return None;
    }
    let closes = |place: &usize| at(*place) == '"' && (1..=hashes).all(|i| at(place + i) == '#');
    (place + 1..chars.len()).find(closes).map(|end| end + 1 + hashes)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()))
}

/// All Rust files below `folder`, in order; none if it does not exist.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

mod the_checker {
    //! A check that cannot fail proves nothing: each rule is shown a line that breaks it and one that does not.

    use super::{check, rust_files};

    /// Complaints about a file of that name with this body, without the file's name.
    fn complaints(name: &str, body: &str) -> Vec<String> {
        let prefix = format!("{name}:");
        let cut = |broken: &String| broken.strip_prefix(&prefix).expect("names the file").to_string();
        check(name, &format!("//! A file.\n{body}")).iter().map(cut).collect()
    }

    #[test]
    fn finds_a_forbidden_neighbour_however_it_is_written() {
        let ways = [
            "use crate::link::peer::Peer;",
            "use crate::{media::frame::Frame, link::peer};",
            "use crate::{\nmedia,\nlink::{peer, mqtt as broker}};",
            "use {crate::link, std::io};",
            "use ::parlor::link;",
            "use super::super::link;",
            "fn open() -> crate::link::peer::Peer { crate::link::open() }",
            "fn open(peer: Option<crate::link::Peer>) {}",
            "mod tests { use super::super::super::link; }",
            "pub(crate) fn open() { parlor::link::open() }",
        ];

        for way in ways {
            let found = complaints("device/camera.rs", way);
            assert!(found.iter().any(|c| c.ends_with("`device` may not know `link`")), "{way}: {found:?}");
        }
    }

    #[test]
    fn says_the_line() {
        let found =
            complaints("media/compose.rs", "/* a\nb */ const A: &str = \"\n\";\nuse crate::room::Tile;");

        assert_eq!(found, ["5: `media` may not know `room`"]);
    }

    #[test]
    fn lets_pass_what_the_table_allows() {
        let fine = [
            ("device/camera.rs", "use crate::{geometry::Size, media::frame::{Frame, Picture}};"),
            ("device/camera.rs", "use super::{Camera, screen::Framebuffer}; mod tests { use super::*; }"),
            (
                "device/camera.rs",
                "/// Like [`crate::link`].\n// crate::link\nconst A: &str = \"crate::link\";",
            ),
            (
                "device/camera.rs",
                "const A: &str = r#\"\"crate::link\"#; const B: char = '\"'; fn f<'a>(a: &'a str) {}",
            ),
            ("link/peer.rs", "use crate::media::Packet; use crate::room::message::MemberId;"),
            (
                "room/fault.rs",
                "use super::Position; use std::time::{Duration, Instant}; pub(crate) struct A;",
            ),
            ("room/mod.rs", "use self::fault::Code; use crate::geometry::Rect;"),
            ("pipeline.rs", "use crate::device::{Camera, Screen};"),
            ("lib.rs", "pub mod room; pub use crate::room::Room;"),
            ("main.rs", "use parlor::{device, kiosk, sim};"),
        ];

        for (name, body) in fine {
            assert_eq!(complaints(name, body), Vec::<String>::new(), "{name}: {body}");
        }
    }

    #[test]
    fn finds_a_driver_where_only_traits_may_be_known() {
        for body in ["use crate::device::camera::V4l;", "use crate::device::{Camera, screen};"] {
            assert_eq!(complaints("pipeline.rs", body).len(), 1, "{body}");
        }
    }

    #[test]
    fn finds_a_file_without_a_place_in_the_table() {
        assert_eq!(
            complaints("utils.rs", ""),
            ["1: `utils` has no row in the table of tests/architecture.rs"]
        );
        assert_eq!(complaints("room/mod.rs", "use crate::utils::A;"), ["2: `room` may not know `utils`"]);
    }

    #[test]
    fn finds_the_world_the_clock_and_chance_in_pure_code() {
        let impure = [
            "use std::fs;",
            "use std::{collections::BTreeMap, net::UdpSocket};",
            "fn f() { ::std::thread::sleep(A) }",
            "fn f() -> u64 { std::time::Instant::now().a() }",
            "fn f() -> u64 { Instant::now().a() }",
            "use std::time::SystemTime;",
            "fn f(at: SystemTime) {}",
            "fn f() -> u32 { rand::random() }",
            "use rand::Rng;",
            "use tokio::time::sleep;",
            "fn f() { let home = std::env::var(A); }",
        ];

        for body in impure {
            for name in ["room/session.rs", "media/text.rs"] {
                let found = complaints(name, body);
                assert!(found.iter().any(|c| c.contains("is pure")), "{name}: {body}: {found:?}");
            }
            assert_eq!(complaints("link/peer.rs", body), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn leaves_tests_of_pure_code_their_files() {
        let body = "fn f() {}\n#[cfg(test)]\nmod tests {\nuse std::fs;\n}";

        assert_eq!(complaints("media/text.rs", body), Vec::<String>::new());
    }

    #[test]
    fn finds_unsafe_outside_its_two_rooms() {
        let body = "fn f() { unsafe { g() } }";

        for name in ["media/compose.rs", "link/peer.rs", "main.rs", "lib.rs"] {
            assert_eq!(
                complaints(name, body),
                ["2: `unsafe` lives in device/ and media/kernel/ only"],
                "{name}"
            );
        }
        for name in ["device/screen.rs", "media/kernel/neon.rs"] {
            assert_eq!(complaints(name, body), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn finds_what_is_not_finished_not_introduced_or_too_long() {
        assert_eq!(complaints("kiosk.rs", "fn f() { todo!() }"), ["2: `todo!` is not shipped"]);
        assert_eq!(
            complaints("kiosk.rs", "fn f() { unimplemented!() }"),
            ["2: `unimplemented!` is not shipped"]
        );
        assert_eq!(check("kiosk.rs", "fn f() {}").len(), 1);
        assert_eq!(complaints("kiosk.rs", &"\n".repeat(599)), Vec::<String>::new());
        assert_eq!(complaints("kiosk.rs", &"\n".repeat(600)).len(), 1);
    }

    #[test]
    fn reads_the_files_that_are_there() {
        let found = rust_files(&super::root().join("src"));

        assert!(found.iter().any(|file| file.ends_with("room/mod.rs")), "{found:?}");
    }
}
