//! How many tiles this board can show: what `parlor bench --sweep` measured, as its file holds it and `info.limits`
//! repeats it.

use super::document::MOST_MEMBERS;
use serde::{Deserialize, Serialize};

/// A longer file is none of ours, in bytes.
pub const LARGEST_FILE: usize = 4 * 1024;

/// Measured on this board with pictures of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Of the program that measured.
    pub version: heapless::String<32>,
    /// Width and height of each picture.
    pub size: [u32; 2],
    /// Pictures a second of each tile.
    pub rate_hz: u32,
    /// Width and height of the screen.
    pub screen: [u32; 2],
    /// The most tiles that all kept their rate, the own camera's included; 0: not even one.
    pub tiles: u8,
    /// The most that was tried.
    pub tried: u8,
    /// Of one core, in seconds a second.
    pub cpu: Share,
    /// Proportional set size in MiB.
    pub pss_mib: Share,
}

/// `base + tile * n` is what n tiles take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    pub base: f64,
    pub tile: f64,
}

impl Capacity {
    /// Reads what a file holds.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        if file.len() > LARGEST_FILE {
            return Err(format!("longer than {LARGEST_FILE} bytes"));
        }
        let capacity: Self = serde_json::from_slice(file).map_err(|error| error.to_string())?;
        let sides = [capacity.size, capacity.screen].concat();
        let sane = sides.iter().all(|side| (16..=8192).contains(side))
            && (1..=240).contains(&capacity.rate_hz)
            && capacity.tiles <= capacity.tried
            && usize::from(capacity.tried) <= MOST_MEMBERS;
        // JSON has no number that is not finite.
        if sane { Ok(capacity) } else { Err("a number is out of its range".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity() -> Capacity {
        Capacity {
            version: "0.1.0".try_into().expect("short"),
            size: [640, 480],
            rate_hz: 30,
            screen: [1920, 1080],
            tiles: 9,
            tried: 16,
            cpu: Share { base: 0.25, tile: 0.0625 },
            pss_mib: Share { base: 32.5, tile: 6.0 },
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let file = serde_json::to_vec(&capacity()).expect("numbers and a string");

        assert_eq!(Capacity::parse(&file), Ok(capacity()));
    }

    #[test]
    fn a_file_that_is_damaged_too_long_or_out_of_range_is_refused() {
        let text = |capacity: &Capacity| serde_json::to_string(capacity).expect("numbers and a string");
        let good = text(&capacity());
        let wrong = [
            String::new(),
            good[..good.len() / 2].into(),
            good.replace("\"tiles\":9", "\"tiles\":17"),
            good.replace("\"tiles\":9", "\"tiles\":-1"),
            good.replace("\"tried\":16", "\"tried\":17"),
            good.replace("1080", "0"),
            good.replace("0.25", "1e999"),
            good.replace("\"version\"", "\"from\""),
            good.replace("0.1.0", &"0".repeat(33)),
            format!("{good}{}", " ".repeat(LARGEST_FILE)),
        ];

        for file in wrong {
            assert!(Capacity::parse(file.as_bytes()).is_err(), "{file}");
        }
    }
}
