//! (being written; this stands in until then) RTP payloads into access units, in order, losses to the next keyframe.

use crate::media::Packet;
use bytes::{Bytes, BytesMut};
use rtc::rtp::codec::h264::H264Packet;
use rtc::rtp::packetizer::Depacketizer;
use std::collections::BTreeMap;
use std::time::Duration;

struct Piece {
    time: u32,
    marker: bool,
    payload: Bytes,
    arrived: Duration,
}

pub struct Assembler {
    wait: Duration,
    pieces: BTreeMap<u64, Piece>,
    next: Option<u64>,
    newest: u64,
    broken: bool,
}

impl Assembler {
    const MOST: usize = 512;

    pub fn new(wait: Duration) -> Self {
        Self { wait, pieces: BTreeMap::new(), next: None, newest: 1 << 32, broken: true }
    }

    pub fn push(
        &mut self,
        sequence: u16,
        timestamp: u32,
        marker: bool,
        payload: impl Into<Bytes>,
        now: Duration,
    ) {
        let ahead = sequence.wrapping_sub(self.newest as u16) as i16;
        let index = self.newest.wrapping_add_signed(i64::from(ahead));
        self.newest = self.newest.max(index);
        let next = *self.next.get_or_insert(index);
        if index < next {
            return;
        }
        let piece = Piece { time: timestamp, marker, payload: payload.into(), arrived: now };
        self.pieces.entry(index).or_insert(piece);
        if self.pieces.len() > Self::MOST {
            self.skip();
        }
    }

    pub fn pop(&mut self, now: Duration) -> Option<Packet> {
        loop {
            let next = self.next?;
            let (first, piece) = self.pieces.first_key_value()?;
            if *first != next {
                if now < piece.arrived + self.wait {
                    return None;
                }
                self.skip();
                continue;
            }
            let mut end = next;
            while !self.pieces.get(&end)?.marker {
                end += 1;
                if !self.pieces.contains_key(&end) {
                    let late =
                        self.pieces.range(end..).next().is_some_and(|(_, p)| now >= p.arrived + self.wait);
                    if !late {
                        return None;
                    }
                    self.skip();
                    break;
                }
            }
            if self.next != Some(next) {
                continue;
            }
            self.next = Some(end + 1);
            let mut data = BytesMut::new();
            let mut depacketizer = H264Packet::default();
            let mut time = 0;
            for index in next..=end {
                let piece = self.pieces.remove(&index)?;
                time = piece.time;
                if piece.payload.len() < 2 {
                    continue;
                }
                match depacketizer.depacketize(&piece.payload) {
                    Ok(part) => data.extend_from_slice(&part),
                    Err(_) => self.broken = true,
                }
            }
            let keyframe = has_idr(&data);
            if data.is_empty() || (self.broken && !keyframe) {
                continue;
            }
            self.broken = false;
            return Some(Packet { data: data.freeze(), keyframe, time });
        }
    }

    pub fn needs_keyframe(&self) -> bool {
        self.broken
    }

    pub fn next_timeout(&self) -> Option<Duration> {
        self.pieces.values().next().map(|piece| piece.arrived + self.wait)
    }

    /// Gives up the frame at the head: everything to the first piece behind the gap's frame.
    fn skip(&mut self) {
        self.broken = true;
        let Some(next) = self.next else { return };
        let gap = (next..).find(|index| !self.pieces.contains_key(index)).unwrap_or(next);
        let mut resume = gap + 1;
        for (index, piece) in self.pieces.range(gap..) {
            resume = *index + 1;
            if piece.marker {
                break;
            }
        }
        self.pieces = self.pieces.split_off(&resume);
        self.next = Some(resume);
    }
}

fn has_idr(data: &[u8]) -> bool {
    data.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 5)
}
