//! Everything of a kiosk that the kernel can take away: what is said of it, when, and that it heals without help.
//!
//! ```text
//!  lobby: /dev/video0, /dev/video20, /dev/fb0 ─┬─ UDP on lo (netem) ─┬─ ward: /dev/video1
//!                                              └─ broker ─ test      ┘
//! ```
//! Each fault becomes a row of `faults.md` in the folder that outlives the machine. Times are upper bounds: from before
//! its cause to the moment the test hears of it. Limits are five times the product's: everything is emulated.

mod camera;
mod case;
mod display;
mod network;
mod usb;

use crate::bed::{BLUE, GREEN, Picture, RED, pattern};
use crate::house::{House, tile};
use parlor::geometry::Rect;
use parlor::media::canvas::Rgb;
use serde_json::{Value, json};
use std::time::Duration;

const FRONT: &str = "/dev/video0";
const WARDS: &str = "/dev/video1";
/// The node of v4l2loopback: a camera fed by the test.
const BACK: &str = "/dev/video20";

/// How soon a fault is to be said, and a picture back once it can be: 1 s and 2 s, five times.
const SAID_WITHIN: Duration = Duration::from_secs(5);
const BACK_WITHIN: Duration = Duration::from_secs(10);

const PICTURE: &str = "width = 320, height = 180, rate_hz = 5";
const SILENT: &str = "[sound]\nmicrophone = 'none'\nspeaker = 'none'\n";

impl House {
    /// The kiosk with the real screen and two real cameras.
    fn lobby(&mut self) {
        self.lobby_with(FRONT);
    }

    fn lobby_with(&mut self, front: &str) {
        let lines = format!(
            "screen.device = '/dev/fb0'\ncamera.front = {{ device = '{front}', {PICTURE} }}\n\
             camera.back = {{ device = '{BACK}', {PICTURE} }}\n{SILENT}"
        );
        self.kiosk("lobby", &lines);
    }

    /// The kiosk far away. Its camera at the back is none of the kernel's.
    fn ward(&mut self) {
        let lines = format!(
            "screen = {{ device = 'sim', width = 320, height = 240 }}\n\
             camera.front = {{ device = '{WARDS}', {PICTURE} }}\ncamera.back = {{ device = 'sim', {PICTURE} }}\n{SILENT}"
        );
        self.kiosk("ward", &lines);
    }

    /// Says which camera a kiosk is to show to all in the room.
    async fn show(&mut self, id: &str, position: &str) {
        self.desire(id, position, json!({})).await;
    }

    async fn desire(&mut self, id: &str, position: &str, mute: Value) {
        let member = |other: &&str| match *other == id {
            true => {
                json!({ "openid": id, "device-position": position, "object-fit": "contain", "mirror": false })
            }
            false => json!({ "openid": other, "object-fit": "contain" }),
        };
        let members: Vec<_> = self.kiosks.iter().map(|(id, ..)| *id).collect();
        let members: Vec<_> = members.iter().map(member).collect();
        let document = json!({ "rev": position, "room": "faults", "members": members, "mute": mute });
        self.controller.publish(&format!("{id}/desired"), true, &document.to_string()).await;
    }

    /// Whether lobby says that this member's tile is live.
    fn is_live(&self, member: &str) -> bool {
        tile(self.now("lobby/reported"), member)["state"] == "live"
    }

    /// Waits until lobby shows this camera of its own, and all is well.
    async fn all_well(&mut self, position: &str) {
        let own = |house: &Self| tile(house.now("lobby/reported"), "lobby")["device-position"] == position;
        let members: Vec<_> = self.kiosks.iter().map(|(id, ..)| *id).collect();
        let live = |house: &Self| members.iter().all(|member| house.is_live(member));
        self.until("all is well", |house| own(house) && live(house) && house.faults().is_empty()).await;
    }

    /// Whether the middle of this member's tile is of the pattern's colour, on the glass.
    fn shows(&self, member: &str, colour: u32) -> bool {
        let area = &tile(self.now("lobby/reported"), member)["area"];
        let [x, y, width, height] = [0, 1, 2, 3].map(|index| area[index].as_u64().unwrap_or(0) as u32);
        let middle = Rect::new(x + width / 2, y + height / 2, 8, 8);
        let glass = Picture::of_glass();
        let inside = Rect::of(glass.size).contains(middle);
        let pixels =
            (middle.y..middle.bottom()).flat_map(|y| (middle.x..middle.right()).map(move |x| (x, y)));
        inside && width > 0 && pixels.into_iter().all(|(x, y)| is_near(glass.at(x, y), colour))
    }
}

/// Whether it is this pattern's colour after it was coded and decoded.
fn is_near(found: Rgb, colour: u32) -> bool {
    let wanted = match colour {
        RED => Rgb::new(255, 0, 0),
        GREEN => Rgb::new(0, 255, 0),
        BLUE => Rgb::new(0, 0, 255),
        other => panic!("no colour is known of pattern {other}"),
    };
    let near = |found: u8, wanted: u8| found.abs_diff(wanted) <= 40;
    near(found.red, wanted.red) && near(found.green, wanted.green) && near(found.blue, wanted.blue)
}

/// Red is lobby's front camera, blue is ward's.
fn patterns() {
    pattern(FRONT, RED);
    pattern(WARDS, BLUE);
}
