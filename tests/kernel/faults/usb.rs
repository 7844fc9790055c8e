//! USB cameras: two that are too much for their bus, and one whose cable is pulled.

use super::case::Case;
use super::patterns;
use crate::bed::GREEN;
use crate::house::House;
use crate::usb::UsbCamera;
use parlor::device::camera::{Choice, list, open};
use parlor::geometry::Size;
use serde_json::json;

const OWN: u16 = 1;
const OTHER: u16 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_usb_camera_without_room_on_its_bus_or_without_cable_is_said_and_shown_again() {
    patterns();
    let camera = UsbCamera::plugged("usb1", OWN);
    let _other = UsbCamera::plugged("usb2", OTHER);
    let mut house = House::start().await;
    let there = |product| list().iter().any(|found| found.card == UsbCamera::card(product));
    house.until("the kernel has both cameras", |_| there(OWN) && there(OTHER)).await;
    let choice = Choice { device: UsbCamera::card(OTHER), size: Size::new(160, 120), rate_hz: 5 };
    let other = open(&choice).expect("the other camera streams");
    house.lobby_with(&UsbCamera::card(OWN));
    house.ward();
    house.show("ward", "front").await;
    house.desire("lobby", "front", json!({ "camera": true })).await;
    house.until("ward is there", |house| house.is_live("ward")).await;

    let what = "two USB cameras on one bus";
    let mut case =
        Case::new(&mut house, "camera-front", what, "uvcvideo: another camera streams (ENOSPC)").await;
    case.house().show("lobby", "front").await;
    case.is_said("CAMERA_NO_BANDWIDTH").await;
    drop(other);
    case.can_heal();
    case.heals().await;
    house.until("it is on the glass", |house| house.shows("lobby", GREEN)).await;

    let how = "USB device disconnected, then connected";
    let mut case = Case::new(&mut house, "camera-front", "USB cable pulled", how).await;
    camera.unplug();
    case.is_said("CAMERA_GONE").await;
    case.is_said("CAMERA_NOT_FOUND").await;
    camera.plug();
    case.house().until("the kernel has it", |_| there(OWN)).await;
    case.can_heal();
    case.heals().await;
    house.until("it is on the glass", |house| house.shows("lobby", GREEN)).await;
}
