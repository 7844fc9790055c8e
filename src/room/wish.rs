//! What a receiver needs of a sender's pictures, and how it says so over the data channel.

use super::budget::Share;
use super::message::MemberId;
use super::{Picture, Scene};
use crate::geometry::{Fit, Size};
use serde::{Deserialize, Serialize};

/// Label of the data channel, and the one version of what is said on it.
pub const LABEL: &str = "parlor";
const VERSION: u32 = 1;
/// The longest message that is read, in bytes.
pub const LONGEST: usize = 256;
/// No screen is wider or higher.
const LARGEST_SIDE: u32 = 16_384;

/// What a receiver needs of the pictures of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// None: they are not shown.
    Hidden,
    /// Pictures that are enough for a tile of `size`, in pixels of its screen.
    Shown { size: Size, fit: Fit },
}

#[derive(Serialize, Deserialize)]
struct Message {
    version: u32,
    #[serde(default)]
    hidden: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(rename = "object-fit", default)]
    fit: Fit,
}

impl Wish {
    /// What this screen needs of `member`.
    pub fn of(picture: &Picture, member: &MemberId) -> Self {
        let Scene::Grid { tiles } = &picture.scene else { return Self::Hidden };
        let shown = |tile: &&super::Tile| tile.share != Share::None && !tile.area.is_empty();
        match tiles.iter().find(|tile| tile.member == *member).filter(shown) {
            Some(tile) => Self::Shown { size: tile.area.size(), fit: tile.fit },
            None => Self::Hidden,
        }
    }

    /// The message: `{"version":1,"hidden":false,"width":320,"height":180,"object-fit":"cover"}`.
    ///
    /// # Panics
    /// Never: numbers and words are always JSON.
    pub fn write(&self) -> String {
        let message = match *self {
            Self::Hidden => {
                Message { version: VERSION, hidden: true, width: None, height: None, fit: Fit::default() }
            }
            Self::Shown { size, fit } => Message {
                version: VERSION,
                hidden: false,
                width: Some(size.width),
                height: Some(size.height),
                fit,
            },
        };
        serde_json::to_string(&message).expect("numbers and words")
    }

    /// Reads a message; unknown fields are passed over. `None`: of another version, too long, or not a wish.
    pub fn read(message: &[u8]) -> Option<Self> {
        if message.len() > LONGEST {
            return None;
        }
        let message: Message = serde_json::from_slice(message).ok()?;
        if message.version != VERSION {
            return None;
        }
        if message.hidden {
            return Some(Self::Hidden);
        }
        let size = Size::new(message.width?, message.height?);
        let sides = [size.width, size.height];
        let is_screen = sides.into_iter().all(|side| (1..=LARGEST_SIDE).contains(&side));
        is_screen.then_some(Self::Shown { size, fit: message.fit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_said_is_understood() {
        for fit in [Fit::Fill, Fit::Contain, Fit::Cover] {
            let wish = Wish::Shown { size: Size::new(320, 180), fit };
            assert_eq!(Wish::read(wish.write().as_bytes()), Some(wish));
        }
        assert_eq!(Wish::read(Wish::Hidden.write().as_bytes()), Some(Wish::Hidden));
        assert!(Wish::Hidden.write().len() < LONGEST);
    }

    #[test]
    fn unknown_fields_are_passed_over_and_everything_else_that_is_no_wish_is_ignored() {
        let read = |text: &str| Wish::read(text.as_bytes());
        let shown = Wish::Shown { size: Size::new(8, 6), fit: Fit::Fill };

        assert_eq!(read(r#"{"version":1,"width":8,"height":6,"hue":3}"#), Some(shown));
        for wrong in [
            "",
            "{",
            "[]",
            r#"{"version":2,"hidden":true}"#,
            r#"{"hidden":true}"#,
            r#"{"version":1}"#,
            r#"{"version":1,"width":8}"#,
            r#"{"version":1,"width":0,"height":6}"#,
            r#"{"version":1,"width":8,"height":16385}"#,
            r#"{"version":1,"width":-8,"height":6}"#,
            r#"{"version":1,"width":8,"height":6,"object-fit":"round"}"#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read(&format!(r#"{{"version":1,"hidden":true,"x":"{}"}}"#, "x".repeat(LONGEST))), None);
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Wish::read(&message);
        }
    }
}
