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
        sections(sdp).any(|section| {
            let receives = !section.says("a=sendonly") && !section.says("a=inactive");
            section.media == media && section.lives() && receives && section.knows(codec)
        })
    }
}

/// What the writer of this SDP has instead of our video, in words; `None` if it has ours, or sends none.
pub(super) fn foreign_video(sdp: &str) -> Option<String> {
    let section = sections(sdp).find(|section| section.media == "video")?;
    if !section.lives() {
        return Some("H.264 is refused".into());
    }
    let sends = !section.says("a=recvonly") && !section.says("a=inactive");
    // Retransmissions and redundancy are no codecs of pictures.
    let codecs = section.codecs().map(|name| name.split('/').next().unwrap_or_default());
    let codecs = codecs.filter(|name| !["rtx", "red", "ulpfec", "flexfec-03"].contains(name));
    // What a stranger writes is kept short.
    let codecs = codecs.filter(|name| name.len() <= 16).take(4).collect::<Vec<_>>();
    (sends && !section.knows("H264/90000")).then(|| format!("only {} is offered", codecs.join(", ")))
}

/// A media section of an SDP.
struct Section<'a> {
    media: &'a str,
    port: &'a str,
    text: &'a str,
}

fn sections(sdp: &str) -> impl Iterator<Item = Section<'_>> {
    sdp.split("\nm=").skip(1).map(|text| {
        let mut words = text.split_ascii_whitespace();
        let (media, port) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Section { media, port, text }
    })
}

impl<'a> Section<'a> {
    fn lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.lines().map(str::trim_end)
    }

    fn says(&self, line: &str) -> bool {
        self.lines().any(|own| own == line)
    }

    /// Port 0 rejects a section (RFC 3264, section 6), except where it only means "bundled" (RFC 9143, section 6).
    fn lives(&self) -> bool {
        self.port != "0" || self.says("a=bundle-only")
    }

    fn codecs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let maps = self.lines().filter_map(|line| line.strip_prefix("a=rtpmap:"));
        maps.filter_map(|map| map.split_once(' ')).map(|(_, name)| name)
    }

    fn knows(&self, codec: &str) -> bool {
        self.codecs().any(|name| name.eq_ignore_ascii_case(codec))
    }
}

/// Whether the section `mid` of this SDP is for nobody's media.
pub(super) fn is_inactive(sdp: &str, mid: &str) -> bool {
    let is_it = |section: &Section| section.lines().any(|line| line.strip_prefix("a=mid:") == Some(mid));
    sections(sdp).any(|section| is_it(&section) && section.says("a=inactive"))
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

    #[test]
    fn video_that_is_not_ours_is_named() {
        let others = "a=rtpmap:102 H265/90000\r\na=rtpmap:103 rtx/90000\r\na=rtpmap:104 VP8/90000";
        let foreign = BOTH.replace("a=rtpmap:102 H264/90000", others);

        assert_eq!(foreign_video(&foreign).as_deref(), Some("only H265, VP8 is offered"));
        assert_eq!(foreign_video(&BOTH.replace("video 9", "video 0")).as_deref(), Some("H.264 is refused"));
        for fine in [BOTH.to_owned(), foreign + "a=recvonly\r\n", "v=0\r\n".into()] {
            assert_eq!(foreign_video(&fine), None, "{fine}");
        }
    }
}
