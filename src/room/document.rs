//! The `desired` document, checked: what is wrong is named by code and JSON pointer, what is right is kept.

use super::clock;
use super::fault::{Code, Part};
use super::message::{self, MemberId, Name, Refusal, RoomId, Unread};
use super::{Mode, Position};
use crate::geometry::Fit;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

/// Of more members than this, the first take part.
pub const MOST_MEMBERS: usize = 16;
/// Of more things wrong than this, the first are listed.
pub const MOST_REJECTED: usize = 32;

/// A kiosk's `desired` document, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The controller's own number or text (at most 64 bytes) for this document: echoed, never compared.
    pub rev: Option<Value>,
    pub room: RoomId,
    /// In document order, each once.
    pub members: heapless::Vec<Member, MOST_MEMBERS>,
    pub mute: Mute,
    pub layout: Layout,
    /// When the room closes itself, since the Unix epoch.
    pub until: Option<Duration>,
    /// What was left out; more than [`MOST_REJECTED`] are not listed.
    pub rejected: heapless::Vec<Rejected, MOST_REJECTED>,
}

/// One `<voip-room>` of the document, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub mode: Mode,
    pub position: Position,
    pub fit: Fit,
    /// `None`: as the kiosk is configured.
    pub mirror: Option<bool>,
    /// Empty: the id is shown.
    pub name: Name,
    pub pin: bool,
}

/// What the kiosk must not send or play.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mute {
    pub microphone: bool,
    pub earphone: bool,
    pub camera: bool,
}

/// How the tiles are arranged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Equal tiles.
    #[default]
    Grid,
    /// The first tile large, the others in a strip.
    Speaker,
    /// The first other member large, the own tile last in the strip.
    Pip,
}

/// Something in a document that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// RFC 6901.
    pub pointer: String,
    pub code: Code,
}

/// Reads a document for the kiosk `own`.
///
/// # Errors
/// A broken root: not JSON, too large, too deep, not an object, without a room or without a list of members. The last
/// good document stands.
pub fn read(own: &MemberId, payload: &[u8]) -> Result<Document, Box<Refusal>> {
    let refuse = |code, pointer: &str, reason: String| {
        Box::new(Refusal {
            part: Part::Document,
            code,
            pointer: Some(pointer.to_owned()),
            reason,
            reply_to: None,
        })
    };
    let root = match message::read_json(payload) {
        Ok(Value::Object(root)) => root,
        Ok(_) => return Err(refuse(Code::DocumentInvalid, "", "not a JSON object".into())),
        Err(unread) => {
            let too_large = unread == Unread::TooLarge;
            let code = if too_large { Code::DocumentTooLarge } else { Code::DocumentInvalid };
            return Err(refuse(code, "", unread.to_string()));
        }
    };
    let room = root
        .get("room")
        .and_then(Value::as_str)
        .and_then(RoomId::parse)
        .ok_or_else(|| refuse(Code::DocumentInvalid, "/room", "not a room id".into()))?;
    let listed = root
        .get("members")
        .and_then(Value::as_array)
        .ok_or_else(|| refuse(Code::DocumentInvalid, "/members", "not a list of members".into()))?;

    let mut document = Document {
        rev: None,
        room,
        members: heapless::Vec::new(),
        mute: Mute::default(),
        layout: Layout::default(),
        until: None,
        rejected: heapless::Vec::new(),
    };
    document.read_root(&root);
    let fit = known(&root, "object-fit").unwrap_or_default().unwrap_or_default();
    for (index, entry) in listed.iter().enumerate() {
        document.read_member(own, index, entry, fit);
    }
    Ok(document)
}

impl Document {
    /// The entry of this member.
    pub fn member(&self, id: &MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == *id)
    }

    /// All but the members. What cannot be read counts as absent, but for what guards somebody's privacy: an
    /// unreadable `mute` or `until` mutes.
    fn read_root(&mut self, root: &Map<String, Value>) {
        match root.get("rev") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.len() > 64 => self.reject("/rev", Code::DocumentInvalid),
            Some(Value::Array(_) | Value::Object(_)) => self.reject("/rev", Code::DocumentInvalid),
            Some(rev) => self.rev = Some(rev.clone()),
        }
        if known::<Fit>(root, "object-fit").is_err() {
            self.reject("/object-fit", Code::DocumentInvalid);
        }
        match known(root, "layout") {
            Ok(layout) => self.layout = layout.unwrap_or_default(),
            Err(Unknown) => self.reject("/layout", Code::DocumentInvalid),
        }
        match root.get("mute") {
            None => {}
            Some(Value::Object(mute)) => {
                let mut muted = |name| {
                    known(mute, name).map(Option::unwrap_or_default).unwrap_or_else(|Unknown| {
                        self.reject(&format!("/mute/{name}"), Code::DocumentInvalid);
                        true
                    })
                };
                self.mute = Mute {
                    microphone: muted("microphone"),
                    earphone: muted("earphone"),
                    camera: muted("camera"),
                };
            }
            Some(_) => {
                self.reject("/mute", Code::DocumentInvalid);
                self.mute = Mute { microphone: true, earphone: true, camera: true };
            }
        }
        match root.get("until") {
            None | Some(Value::Null) => {}
            Some(until) => match until.as_str().and_then(clock::from_text) {
                Some(until) => self.until = Some(until),
                None => {
                    self.reject("/until", Code::DocumentInvalid);
                    self.mute.microphone = true;
                    self.mute.camera = true;
                }
            },
        }
    }

    fn read_member(&mut self, own: &MemberId, index: usize, entry: &Value, fit: Fit) {
        let pointer = format!("/members/{index}");
        let member = match read_member(own, entry, fit) {
            Ok(member) => member,
            Err(field) => return self.reject(&format!("{pointer}{field}"), Code::MemberInvalid),
        };
        if self.member(&member.id).is_some() {
            return self.reject(&pointer, Code::MemberDuplicate);
        }
        if self.members.push(member).is_err() {
            self.reject(&pointer, Code::RoomFull);
        }
    }

    fn reject(&mut self, pointer: &str, code: Code) {
        // When full, the rest is not listed: the first say enough.
        let _ = self.rejected.push(Rejected { pointer: pointer.to_owned(), code });
    }
}

/// One entry of `members`; the error is the pointer to what is wrong, below the entry.
fn read_member(own: &MemberId, entry: &Value, fit: Fit) -> Result<Member, &'static str> {
    let short;
    let fields = match entry {
        Value::Object(fields) => fields,
        Value::String(_) => {
            short = Map::from_iter([("openid".to_owned(), entry.clone())]);
            &short
        }
        _ => return Err(""),
    };
    // The short form has no field to point at.
    let openid_at = if entry.is_string() { "" } else { "/openid" };
    let id = fields.get("openid").and_then(Value::as_str).and_then(MemberId::parse).ok_or(openid_at)?;
    let only_mode = if id == *own { Mode::Camera } else { Mode::Video };
    let mode = known(fields, "mode").map_err(|Unknown| "/mode")?.unwrap_or(only_mode);
    if mode != only_mode {
        return Err("/mode");
    }
    let name = match fields.get("name") {
        None => Name::new(),
        Some(name) => name.as_str().and_then(|name| Name::try_from(name).ok()).ok_or("/name")?,
    };
    Ok(Member {
        id,
        mode,
        position: known(fields, "device-position").map_err(|Unknown| "/device-position")?.unwrap_or_default(),
        fit: known(fields, "object-fit").map_err(|Unknown| "/object-fit")?.unwrap_or(fit),
        mirror: known(fields, "mirror").map_err(|Unknown| "/mirror")?,
        name,
        pin: known(fields, "pin").map_err(|Unknown| "/pin")?.unwrap_or_default(),
    })
}

/// A value that is not one of those the contract names.
#[derive(Debug)]
struct Unknown;

/// A field's value, `None` if the field is absent.
fn known<'a, T: Deserialize<'a>>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<T>, Unknown> {
    fields.get(name).map(|value| T::deserialize(value).map_err(|_| Unknown)).transpose()
}
