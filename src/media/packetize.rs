//! Cuts a coded picture into RTP payloads: RFC 6184, packetization mode 1 (single NAL units and FU-A).

use super::Packet;
use bytes::{BufMut, Bytes, BytesMut};

/// One RTP payload and the header's marker bit: true on the last payload of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    pub data: Bytes,
    pub marker: bool,
}

/// NAL unit type of fragments (RFC 6184, section 5.8).
pub(crate) const FU_A: u8 = 28;

/// The payloads of `packet`, in order, each of at most `mtu` bytes (at least 3). NAL units that fit are sent as
/// they are without a copy. Nothing for a packet without NAL units.
pub fn packetize(packet: &Packet, mtu: usize) -> Vec<Payload> {
    let mtu = mtu.max(3);
    let mut payloads = Vec::with_capacity(packet.data.len() / mtu + 4);
    for unit in nal_units(&packet.data) {
        if unit.len() <= mtu {
            payloads.push(Payload { data: packet.data.slice_ref(unit), marker: false });
            continue;
        }
        let (header, body) = (unit[0], &unit[1..]);
        let fragments = body.len().div_ceil(mtu - 2);
        for (index, fragment) in body.chunks(mtu - 2).enumerate() {
            let start = u8::from(index == 0) << 7;
            let end = u8::from(index + 1 == fragments) << 6;
            let mut data = BytesMut::with_capacity(fragment.len() + 2);
            data.put_u8((header & 0xe0) | FU_A);
            data.put_u8(start | end | (header & 0x1f));
            data.put_slice(fragment);
            payloads.push(Payload { data: data.freeze(), marker: false });
        }
    }
    if let Some(last) = payloads.last_mut() {
        last.marker = true;
    }
    payloads
}

/// The NAL units of an Annex B byte stream, without start codes and trailing zeros; none is empty.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = start_code(stream).map_or(&[][..], |(_, after)| &stream[after..]);
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (end, after) = start_code(rest).unwrap_or((rest.len(), rest.len()));
            let unit = &rest[..end];
            rest = &rest[after..];
            let used = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                return Some(&unit[..used]);
            }
        }
        None
    })
}

/// Where the first start code `00 00 01` begins and ends.
fn start_code(stream: &[u8]) -> Option<(usize, usize)> {
    stream.windows(3).position(|bytes| bytes == [0, 0, 1]).map(|at| (at, at + 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_both_part_units() {
        let stream = [0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 3];

        let units: Vec<_> = nal_units(&stream).collect();

        assert_eq!(units, [&[0x67, 1][..], &[0x68, 2], &[0x65, 3]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_payload_is_longer_than_the_mtu(data in proptest::collection::vec(0..4u8, 0..600), mtu in 3..64usize) {
            let packet = Packet { data: data.into(), keyframe: false, time: 0 };

            let payloads = packetize(&packet, mtu);

            prop_assert!(payloads.iter().all(|payload| payload.data.len() <= mtu));
            prop_assert_eq!(payloads.iter().filter(|payload| payload.marker).count(), payloads.len().min(1));
        }
    }
}
