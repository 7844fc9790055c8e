//! The screen: absent, taken away, changed by somebody else.

use super::case::Case;
use super::{FRONT, patterns};
use crate::bed::{BLUE, GREEN, RED, pattern};
use crate::house::{House, tile};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCREEN: &str = "screen";
const DRIVER: &str = "/sys/bus/pci/drivers/bochs-drm";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_that_is_absent_or_changed_is_said_and_shown_on_again_while_the_call_goes_on() {
    patterns();
    let card = Card::find();
    let mut house = House::start().await;

    card.unbind();
    let mut case = Case::new(&mut house, SCREEN, "screen absent at start", "bochs-drm bound later (sysfs)")
        .await
        .at_start();
    case.house().lobby();
    case.is_said("SCREEN_OPEN").await;
    case.house().show("lobby", "front").await;
    card.bind();
    case.can_heal();
    case.heals_when(|house| house.shows("lobby", RED)).await;
    house.all_well("front").await;

    let mut case =
        Case::new(&mut house, SCREEN, "screen taken away", "bochs-drm unbound, then bound (sysfs)").await;
    card.unbind();
    case.is_said("SCREEN_OPEN").await;
    // So that what is seen is not what was seen before.
    pattern(FRONT, BLUE);
    card.bind();
    case.can_heal();
    case.heals_when(|house| house.shows("lobby", BLUE)).await;
    house.all_well("front").await;

    // Seen although nothing moves.
    house.desire("lobby", "front", json!({ "camera": true })).await;
    let paused = |house: &House| tile(house.now("lobby/reported"), "lobby")["state"] == "paused";
    house.until("nothing moves", paused).await;
    let how = "another process's FBIOPUT_VSCREENINFO";
    let mut case = Case::new(&mut house, SCREEN, "screen's mode changed", how).await;
    set_mode(480, 360);
    case.is_said("SCREEN_MODE_CHANGED").await;
    case.heals_when(|house| house.now("lobby/info")["screen"]["width"] == 480).await;
    house.show("lobby", "front").await;
    house.all_well("front").await;

    let mut case = Case::new(&mut house, SCREEN, "and changed back", "as before").await;
    set_mode(640, 480);
    case.is_said("SCREEN_MODE_CHANGED").await;
    pattern(FRONT, GREEN);
    case.heals_when(|house| house.shows("lobby", GREEN)).await;
    pattern(FRONT, RED);
}

/// The graphics card on its bus. Dropped, it is bound again: other tests need it.
struct Card(String);

impl Card {
    fn find() -> Self {
        let links = fs::read_dir(DRIVER).expect("bochs-drm is loaded");
        let names = links.map(|link| link.expect("readable").file_name().to_string_lossy().into_owned());
        Self(names.into_iter().find(|name| name.starts_with("0000:")).expect("a card"))
    }

    fn unbind(&self) {
        fs::write(format!("{DRIVER}/unbind"), &self.0).expect("unbound");
        assert!(!Path::new("/dev/fb0").exists());
    }

    fn bind(&self) {
        fs::write(format!("{DRIVER}/bind"), &self.0).expect("bound");
        assert!(Path::new("/dev/fb0").exists());
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if !PathBuf::from(DRIVER).join(&self.0).exists() {
            let _ = fs::write(format!("{DRIVER}/bind"), &self.0);
        }
    }
}

/// Sets visible and virtual resolution as any program may (linux/fb.h: FBIOGET_VSCREENINFO, FBIOPUT_VSCREENINFO).
fn set_mode(width: u32, height: u32) {
    let script = "my $mode = \"\\0\" x 160; my @size = @ARGV; open my $screen, '+<', '/dev/fb0' or die $!; \
                  ioctl $screen, 0x4600, $mode or die $!; substr($mode, 0, 16) = pack('L4', @size, @size); \
                  ioctl $screen, 0x4601, $mode or die $!;";
    let done = Command::new("perl")
        .args(["-e", script, &width.to_string(), &height.to_string()])
        .output()
        .expect("perl is there");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
