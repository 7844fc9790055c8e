//! Moments as text: RFC 3339 in, ISO 8601 in UTC out. The arithmetic is the proleptic Gregorian calendar's, by
//! 400-year eras that begin on 1 March, so that the leap day is an era's last.

use std::time::Duration;

const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_TO_EPOCH: i64 = 719_468;

/// A moment since the Unix epoch as `2026-11-22T20:41:07.312Z`.
pub fn to_text(wall: Duration) -> String {
    let seconds = wall.as_secs();
    let (year, month, day) = date((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", wall.subsec_millis())
}

/// Reads an RFC 3339 `date-time`; `None` if it is none, or lies before 1970. A leap second counts as the next second.
pub fn from_text(text: &str) -> Option<Duration> {
    let text = text.is_ascii().then_some(text)?;
    let (date_part, rest) = (text.get(..10)?, text.get(10..)?);
    let time_part = rest.get(..9)?;
    let mut rest = rest.get(9..)?;
    let date_part = numbers(date_part, [(0, 4), (5, 7), (8, 10)], [(4, b'-'), (7, b'-')])?;
    let time_part = match time_part.as_bytes()[0] {
        b'T' | b't' | b' ' => numbers(&time_part[1..], [(0, 2), (3, 5), (6, 8)], [(2, b':'), (5, b':')])?,
        _ => return None,
    };
    let mut fraction = Duration::ZERO;
    if let Some(after) = rest.strip_prefix('.') {
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 || digits > 9 {
            return None;
        }
        fraction = Duration::from_nanos(after[..digits].parse::<u64>().ok()? * 10_u64.pow(9 - digits as u32));
        rest = &after[digits..];
    }
    let offset_minutes = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = match rest.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let offset = rest.get(1..).filter(|offset| offset.len() == 5 && offset.as_bytes()[2] == b':')?;
            let (hours, minutes) = (number(&offset[..2])?, number(&offset[3..])?);
            (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))?
        }
    };
    let [year, month, day] = date_part;
    let [hour, minute, second] = time_part;
    if hour > 23 || minute > 59 || second > 60 || !(1..=12).contains(&month) {
        return None;
    }
    let days = days(year, month, day);
    // A day that the month does not have comes back as another one.
    if date(days) != (year, month, day) {
        return None;
    }
    let seconds = days * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    Some(Duration::from_secs(u64::try_from(seconds).ok()?) + fraction)
}

/// Year, month and day of a day since the epoch.
fn date(days_since_epoch: i64) -> (i64, i64, i64) {
    let days = days_since_epoch + DAYS_TO_EPOCH;
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (DAYS_PER_ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// Days since the epoch of a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * DAYS_PER_ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - DAYS_TO_EPOCH
}

/// Three numbers of fixed width, with the separators between them. `text` is ASCII.
fn numbers(text: &str, fields: [(usize, usize); 3], separators: [(usize, u8); 2]) -> Option<[i64; 3]> {
    let separated = separators.iter().all(|&(at, byte)| text.as_bytes().get(at) == Some(&byte));
    separated.then_some(())?;
    let [a, b, c] = fields.map(|(from, to)| text.get(from..to).and_then(number));
    Some([a?, b?, c?])
}

/// Digits only: `str::parse` would take a sign.
fn number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        assert_eq!(to_text(Duration::from_millis(1_795_380_067_312)), "2026-11-22T20:41:07.312Z");
        assert_eq!(to_text(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        assert_eq!(to_text(Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn an_offset_is_taken_off() {
        assert_eq!(from_text("1970-01-01T08:00:30+08:00"), Some(Duration::from_secs(30)));
        assert_eq!(from_text("1970-01-01T00:00:00.25Z"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "tomorrow",
            "2027-02-29T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-01-01",
            "2027-01-01T00:00:00",
            "2027-01-01T24:00:00Z",
            "+027-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2027-01-01T00:00:00.Z",
            "2027-01-01T00:00:00+8:00",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ms in 0..253_402_300_800_000_u64) {
            prop_assert_eq!(from_text(&to_text(Duration::from_millis(ms))), Some(Duration::from_millis(ms)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", nearly in "[0-9TZ:+.-]{15,32}") {
            let _ = (from_text(&text), from_text(&nearly));
        }
    }
}
