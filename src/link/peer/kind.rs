//! The two kinds of media of a connection, and which of them the other side takes.

/// A kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Video,
    Sound,
}

impl Kind {
    /// Whether the writer of this SDP wants to receive this kind in our codec: a media section that is not rejected,
    /// not one-way to us, and knows the codec. The codec's parameters are left to webrtc.
    pub(super) fn is_wanted(self, sdp: &str) -> bool {
        let (media, codec) = match self {
            Self::Video => ("video", "H264/90000"),
            Self::Sound => ("audio", "opus/48000/2"),
        };
        sdp.split("\nm=").skip(1).any(|section| {
            let mut words = section.split_ascii_whitespace();
            let is_media = words.next() == Some(media);
            let has_port = words.next() != Some("0");
            let mut lines = section.lines().map(str::trim_end);
            let says = |text| lines.clone().any(|line| line == text);
            // Port 0 rejects a section (RFC 3264, section 6), except where it only means "bundled" (RFC 9143, section 6).
            let lives = has_port || says("a=bundle-only");
            let receives = !says("a=sendonly") && !says("a=inactive");
            let knows = lines.any(|line| {
                let map = line.strip_prefix("a=rtpmap:").and_then(|map| map.split_once(' '));
                map.is_some_and(|(_, name)| name.eq_ignore_ascii_case(codec))
            });
            is_media && lives && receives && knows
        })
    }
}

/// Whether the section `mid` of this SDP is for nobody's media.
pub(super) fn is_inactive(sdp: &str, mid: &str) -> bool {
    sdp.split("\nm=").skip(1).any(|section| {
        let mut lines = section.lines().map(str::trim_end);
        let is_it = lines.clone().any(|line| line.strip_prefix("a=mid:") == Some(mid));
        is_it && lines.any(|line| line == "a=inactive")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=sendrecv\r\na=rtpmap:111 OPUS/48000/2\r\n\
                        m=video 9 UDP/TLS/RTP/SAVPF 102\r\na=rtpmap:102 H264/90000\r\n";

    #[test]
    fn a_section_that_receives_our_codec_is_wanted() {
        assert!(Kind::Sound.is_wanted(BOTH));
        assert!(Kind::Video.is_wanted(BOTH));
    }

    #[test]
    fn what_is_missing_rejected_one_way_or_in_another_codec_is_not_wanted() {
        let sound_gone = [
            BOTH.replace("m=audio", "m=text"),
            BOTH.replace("audio 9", "audio 0"),
            BOTH.replace("sendrecv", "sendonly"),
            BOTH.replace("sendrecv", "inactive"),
            BOTH.replace("OPUS/48000/2", "PCMU/8000"),
        ];
        for sdp in sound_gone {
            assert!(!Kind::Sound.is_wanted(&sdp), "{sdp}");
            assert!(Kind::Video.is_wanted(&sdp), "{sdp}");
        }
        assert!(!Kind::Sound.is_wanted(""));
    }

    #[test]
    fn a_bundled_section_without_a_port_is_wanted() {
        let bundled = BOTH.replace("audio 9", "audio 0").replace("a=sendrecv", "a=bundle-only");

        assert!(Kind::Sound.is_wanted(&bundled));
    }
}
