//! Changes to a kiosk's `desired` document. Works on the JSON as it is, so that fields this version does not know
//! survive. Pure.

use serde_json::{Map, Value, json};

/// A member as the command line names it: `ID` or `ID=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub name: Option<String>,
}

/// The room that the document is for.
pub fn room(document: &Value) -> Option<&str> {
    document.get("room")?.as_str()
}

/// The openids that the document lists, in its order.
pub fn members(document: &Value) -> Vec<String> {
    entries(document).iter().filter_map(|entry| openid(entry).map(str::to_owned)).collect()
}

/// Makes this the document of a room of exactly these members. What it says of members that stay, and of how to show
/// them, is kept; `until` is not, it was the old room's.
pub fn set_room(document: &mut Value, room: &str, members: &[Member]) {
    let old = entries(document).to_vec();
    let entries =
        members.iter().map(|member| match old.iter().find(|entry| openid(entry) == Some(&member.id)) {
            Some(entry) => named(entry.clone(), member.name.as_deref()),
            None => entry(member),
        });
    let entries = entries.collect();
    let fields = fields(document);
    fields.insert("room".into(), room.into());
    fields.insert("members".into(), entries);
    fields.remove("until");
}

/// Adds a member, or renames one that is listed.
pub fn add_member(document: &mut Value, member: &Member) {
    match find_member(document, &member.id) {
        Some(entry) => *entry = named(entry.take(), member.name.as_deref()),
        None => list(document).push(entry(member)),
    }
}

/// Takes a member off the list. False if it was not on it.
pub fn remove_member(document: &mut Value, id: &str) -> bool {
    let members = list(document);
    let before = members.len();
    members.retain(|entry| openid(entry) != Some(id));
    members.len() < before
}

/// Sets the camera of the kiosk's own entry. False if the kiosk is not listed.
pub fn set_camera(document: &mut Value, own: &str, position: &str) -> bool {
    set_on_member(document, own, "device-position", position)
}

/// Sets the fit of one member's tile. False if it is not listed.
pub fn set_fit_of(document: &mut Value, id: &str, fit: &str) -> bool {
    set_on_member(document, id, "object-fit", fit)
}

/// Sets the fit of every tile: the document's, and no member says otherwise.
pub fn set_fit_of_all(document: &mut Value, fit: &str) {
    for entry in list(document) {
        if let Some(fields) = entry.as_object_mut() {
            fields.remove("object-fit");
        }
    }
    fields(document).insert("object-fit".into(), fit.into());
}

/// Mutes or unmutes `microphone`, `earphone` or `camera`.
pub fn set_mute(document: &mut Value, device: &str, muted: bool) {
    let mute = fields(document).entry("mute").or_insert_with(|| json!({}));
    fields(mute).insert(device.into(), muted.into());
}

/// Arranges the tiles: `grid`, `speaker` or `pip`.
pub fn set_layout(document: &mut Value, layout: &str) {
    fields(document).insert("layout".into(), layout.into());
}

/// Gives the document its next `rev`: one more, or `now_ms` where it had no number. Answers it.
pub fn revise(document: &mut Value, now_ms: u64) -> Value {
    let next = document.get("rev").and_then(Value::as_u64).and_then(|rev| rev.checked_add(1));
    let rev = Value::from(next.unwrap_or(now_ms));
    fields(document).insert("rev".into(), rev.clone());
    rev
}

/// The list of a kiosk that joins: everybody's openid and name, but not how another kiosk shows them.
pub fn invitation(document: &Value) -> Vec<Member> {
    let member = |entry: &Value| {
        let name = entry.get("name").and_then(Value::as_str).map(str::to_owned);
        Some(Member { id: openid(entry)?.to_owned(), name })
    };
    entries(document).iter().filter_map(member).collect()
}

fn set_on_member(document: &mut Value, id: &str, field: &str, value: &str) -> bool {
    let Some(entry) = find_member(document, id) else { return false };
    if entry.is_string() {
        *entry = json!({ "openid": id });
    }
    fields(entry).insert(field.into(), value.into());
    true
}

fn find_member<'a>(document: &'a mut Value, id: &str) -> Option<&'a mut Value> {
    list(document).iter_mut().find(|entry| openid(entry) == Some(id))
}

/// `"ward-3"` is short for `{ "openid": "ward-3" }`.
fn openid(entry: &Value) -> Option<&str> {
    entry.as_str().or_else(|| entry.get("openid")?.as_str())
}

fn entry(member: &Member) -> Value {
    match &member.name {
        Some(name) => json!({ "openid": member.id, "name": name }),
        None => json!(member.id),
    }
}

fn named(entry: Value, name: Option<&str>) -> Value {
    match (name, entry) {
        (None, entry) => entry,
        (Some(name), Value::String(id)) => json!({ "openid": id, "name": name }),
        (Some(name), mut entry) => {
            fields(&mut entry).insert("name".into(), name.into());
            entry
        }
    }
}

fn entries(document: &Value) -> &[Value] {
    document.get("members").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list of members; made where there is none.
fn list(document: &mut Value) -> &mut Vec<Value> {
    let members = fields(document).entry("members").or_insert_with(|| json!([]));
    if !members.is_array() {
        *members = json!([]);
    }
    members.as_array_mut().expect("it has just been made an array")
}

/// The fields of an object; what is none becomes an empty one.
fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it has just been made an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_made_from_nothing() {
        let mut document = Value::Null;

        set_room(&mut document, "consult-12", &[member("lobby"), named_member("dr-wang", "王医生")]);
        let rev = revise(&mut document, 1000);

        assert_eq!(rev, 1000);
        assert_eq!(
            document,
            json!({ "rev": 1000, "room": "consult-12",
                    "members": ["lobby", { "openid": "dr-wang", "name": "王医生" }] })
        );
    }

    #[test]
    fn a_new_room_keeps_what_is_not_its_business_and_drops_the_old_end() {
        let mut document = json!({
            "rev": 7, "room": "old", "until": "2020-01-01T00:00:00Z", "x-site": [1, 2], "mute": { "camera": true },
            "members": [{ "openid": "lobby", "mirror": true, "x-own": 1 }, "ward-3"],
        });

        set_room(&mut document, "new", &[named_member("lobby", "Lobby"), member("nurse")]);
        revise(&mut document, 0);

        assert_eq!(
            document,
            json!({ "rev": 8, "room": "new", "x-site": [1, 2], "mute": { "camera": true },
                    "members": [{ "openid": "lobby", "mirror": true, "x-own": 1, "name": "Lobby" }, "nurse"] })
        );
    }

    #[test]
    fn members_are_added_once_and_removed_in_either_spelling() {
        let mut document = json!({ "members": ["lobby", { "openid": "ward-3", "pin": true }] });

        add_member(&mut document, &member("nurse"));
        add_member(&mut document, &named_member("ward-3", "Ward"));
        assert!(remove_member(&mut document, "lobby"));
        assert!(!remove_member(&mut document, "lobby"));

        assert_eq!(
            document,
            json!({ "members": [{ "openid": "ward-3", "pin": true, "name": "Ward" }, "nurse"] })
        );
    }

    #[test]
    fn the_camera_is_the_own_entrys() {
        let mut document = json!({ "members": ["lobby", "ward-3"] });

        assert!(set_camera(&mut document, "lobby", "back"));
        assert!(!set_camera(&mut document, "nurse", "back"));

        let own = json!({ "openid": "lobby", "device-position": "back" });
        assert_eq!(document, json!({ "members": [own, "ward-3"] }));
    }

    #[test]
    fn a_fit_is_one_tiles_or_everyones() {
        let mut document =
            json!({ "members": ["lobby", { "openid": "ward-3", "object-fit": "fill", "pin": true }] });

        assert!(set_fit_of(&mut document, "lobby", "cover"));
        assert_eq!(document["members"][0], json!({ "openid": "lobby", "object-fit": "cover" }));
        set_fit_of_all(&mut document, "contain");

        assert_eq!(
            document,
            json!({ "object-fit": "contain",
                    "members": [{ "openid": "lobby" }, { "openid": "ward-3", "pin": true }] })
        );
    }

    #[test]
    fn muting_one_device_leaves_the_others_alone() {
        let mut document = json!({ "mute": { "microphone": true } });

        set_mute(&mut document, "camera", true);
        set_mute(&mut document, "microphone", false);

        assert_eq!(document, json!({ "mute": { "microphone": false, "camera": true } }));
    }

    #[test]
    fn a_rev_that_is_no_number_is_replaced_by_the_time() {
        for rev in [json!("seven"), json!(-1), json!(1.5), json!(u64::MAX)] {
            let mut document = json!({ "rev": rev });

            assert_eq!(revise(&mut document, 42), 42);
        }
    }

    #[test]
    fn who_joins_gets_the_names_but_not_another_kiosks_way_to_show_them() {
        let document =
            json!({ "members": ["lobby", { "openid": "ward-3", "name": "Ward", "object-fit": "cover" }] });

        assert_eq!(invitation(&document), [member("lobby"), named_member("ward-3", "Ward")]);
    }

    #[test]
    fn nonsense_is_replaced_and_never_a_panic() {
        for mut document in [json!(null), json!([1]), json!("x"), json!({ "members": 3, "mute": [] })] {
            add_member(&mut document, &member("lobby"));
            set_mute(&mut document, "camera", true);
            set_layout(&mut document, "pip");

            assert_eq!(members(&document), ["lobby"]);
            assert_eq!(document["mute"], json!({ "camera": true }));
        }
    }

    fn member(id: &str) -> Member {
        Member { id: id.into(), name: None }
    }

    fn named_member(id: &str, name: &str) -> Member {
        Member { id: id.into(), name: Some(name.into()) }
    }
}
