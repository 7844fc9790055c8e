//! What the kiosk says of itself, as JSON on its own topics.

use super::document::{Document, Rejected};
use super::fault::Part;
use super::{
    CameraInfo, CodecInfo, Mode, Position, Publication, ScreenInfo, Settings, SoundInfo, Tile, TileState,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the broker says in the kiosk's name when the connection dies.
pub fn will(settings: &Settings) -> Publication {
    state(settings, "offline")
}

/// `{id}/state`.
pub(super) fn state(settings: &Settings, word: &str) -> Publication {
    let state = json!({ "state": word, "boot": settings.boot, "version": settings.version });
    retained(settings, "state", state)
}

/// `{id}/info`.
pub(super) fn info(
    settings: &Settings,
    cameras: &BTreeMap<Position, CameraInfo>,
    sounds: &BTreeMap<Part, SoundInfo>,
    (screen, codecs): (Option<&ScreenInfo>, Option<&CodecInfo>),
) -> Publication {
    let cameras: Vec<Value> = settings
        .cameras
        .iter()
        .map(|position| {
            cameras.get(position).map_or_else(|| json!({ "position": position }), |camera| json!(camera))
        })
        .collect();
    let info = json!({
        "boot": settings.boot,
        "version": settings.version,
        "contract": 1,
        "cameras": cameras,
        "microphone": sounds.get(&Part::Microphone),
        "speaker": sounds.get(&Part::Speaker),
        "screen": screen,
        "codecs": codecs,
        "limits": {
            "members": super::document::MOST_MEMBERS,
            "document_bytes": super::message::LARGEST_PAYLOAD,
            "document_depth": super::message::DEEPEST,
            "snapshot_width": super::message::SNAPSHOT_WIDTHS.end(),
            "capacity": settings.capacity,
        },
    });
    retained(settings, "info", info)
}

/// The content of `{id}/reported`.
pub(super) fn reported(
    settings: &Settings,
    stage: &str,
    document: Option<&Document>,
    tiles: &[Tile],
    broken: Option<&Rejected>,
) -> Value {
    let tiles: Vec<Value> = tiles
        .iter()
        .map(|tile| {
            let mut entry = json!({
                "openid": tile.member,
                "mode": tile.mode,
                "object-fit": tile.fit,
                "area": [tile.area.x, tile.area.y, tile.area.width, tile.area.height],
                "state": tile.state,
            });
            // Of the others only they themselves know what they muted.
            if let (Mode::Camera, Some(document)) = (tile.mode, document) {
                entry["device-position"] = json!(tile.position);
                entry["mirror"] = json!(tile.mirror);
                let mute = document.mute;
                entry["muted"] = json!({
                    "microphone": tile.microphone_muted,
                    "earphone": tile.earphone_muted,
                    "camera": mute.camera,
                });
            }
            entry
        })
        .collect();
    let rejected: Vec<&Rejected> =
        broken.into_iter().chain(document.iter().flat_map(|document| &document.rejected)).collect();
    json!({
        "rev": document.and_then(|document| document.rev.as_ref()),
        "room": document.map(|document| &document.room),
        "state": stage,
        "boot": settings.boot,
        "tiles": tiles,
        "rejected": rejected,
    })
}

/// Adds what was read of a document that is not followed: its revision and what was wrong with it.
pub(super) fn add_unfollowed(reported: &mut Value, document: Option<&Document>) {
    let Some(document) = document else {
        return;
    };
    reported["rev"] = json!(document.rev);
    if let Some(list) = reported["rejected"].as_array_mut() {
        list.extend(document.rejected.iter().map(|rejected| json!(rejected)));
    }
}

/// The ids of the tiles that show moving pictures.
pub(super) fn with_video(tiles: &[Tile]) -> Vec<&str> {
    tiles.iter().filter(|tile| tile.state == TileState::Live).map(|tile| tile.member.as_str()).collect()
}

pub(super) fn retained(settings: &Settings, below: &str, content: Value) -> Publication {
    let topic = format!("{}/{below}", settings.id);
    Publication {
        topic,
        payload: content.to_string().into(),
        retained: true,
        qos: 1,
        expiry_s: None,
        correlation: None,
    }
}

/// A record on `{id}/error` or `{id}/event`.
pub(super) fn unretained(settings: &Settings, below: &str, content: &Value) -> Publication {
    Publication { retained: false, ..retained(settings, below, content.clone()) }
}
