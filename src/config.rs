//! kiosk.toml → checked values with units; the one place of defaults.

mod broker;

use crate::geometry::{Rotation, Size};
use crate::room::Position;
use crate::room::capacity::Capacity;
use crate::room::message::MemberId;
use crate::secret::Secret;
use anyhow::{Context, anyhow, bail, ensure};
pub use broker::{Broker, BrokerOptions, Tls};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A kiosk's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: MemberId,
    /// Topics begin with it; no slash at the end.
    pub prefix: String,
    pub broker: Broker,
    /// The cameras the kiosk has; their nodes are opened only while a room asks for them.
    pub cameras: BTreeMap<Position, Camera>,
    pub screen: Screen,
    pub sound: Sound,
    pub authorize: Authorize,
    pub room: Room,
    pub link: Link,
    pub codec: Codec,
    /// Why this is not what its owner wanted: settings that could not be used.
    pub problem: Option<String>,
}

/// What codes and decodes pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// The machine's own codec where it has one and as long as it works.
    #[default]
    Auto,
    /// The processor.
    Software,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// A path, a by-id link, a card name, or `sim`.
    pub device: String,
    #[serde(default = "defaults::width")]
    width: u32,
    #[serde(default = "defaults::height")]
    height: u32,
    #[serde(default = "defaults::rate_hz")]
    pub rate_hz: u32,
    /// Clockwise degrees that bring the picture upright.
    #[serde(default, deserialize_with = "degrees")]
    pub rotation: Rotation,
}

impl Camera {
    /// A camera that stands upright.
    pub fn upright(device: &str, size: Size, rate_hz: u32) -> Self {
        let (width, height, rotation) = (size.width, size.height, Rotation::None);
        Self { device: device.to_owned(), width, height, rate_hz, rotation }
    }

    /// The wanted size, before rotation.
    pub fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

/// The name of a device that is not there.
pub const SIMULATED: &str = "sim";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Screen {
    /// `/dev/fb0`, or `sim`.
    pub device: String,
    /// Clockwise degrees that bring the picture upright for the viewer.
    #[serde(deserialize_with = "degrees")]
    pub rotation: Rotation,
    /// Change pictures by page flip. Off by default: some drivers say yes and show nothing.
    pub flip: bool,
    /// Physical size of a simulated screen.
    pub width: u32,
    pub height: u32,
    /// A TrueType or OpenType file for labels; the built-in font where there is none.
    pub font: Option<PathBuf>,
}

impl Screen {
    pub fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            device: "/dev/fb0".into(),
            rotation: Rotation::None,
            flip: false,
            width: 1280,
            height: 720,
            font: None,
        }
    }
}

/// The microphone and the speaker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sound {
    /// ALSA PCMs as `aplay -L` lists them, `sim`, or `none`.
    pub microphone: String,
    pub speaker: String,
    /// Take out of the microphone's sound what comes from the speaker.
    pub echo_cancellation: bool,
    /// Take out steady noise.
    pub noise_suppression: bool,
    /// Bring quiet and loud voices to the same level.
    pub gain_control: bool,
}

/// The PCM that ALSA's configuration calls so: the machine's own card, if it has one.
pub const DEFAULT_PCM: &str = "default";
/// A microphone or a speaker that the kiosk is not to have.
pub const NONE: &str = "none";

impl Default for Sound {
    fn default() -> Self {
        Self {
            microphone: DEFAULT_PCM.into(),
            speaker: DEFAULT_PCM.into(),
            echo_cancellation: true,
            noise_suppression: true,
            gain_control: true,
        }
    }
}

/// What the kiosk may do at all, whatever a document says (WeChat: `scope.camera`, `scope.record`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authorize {
    /// If not, no camera is ever opened.
    pub camera: bool,
    /// If not, the microphone is never opened.
    pub microphone: bool,
}

impl Default for Authorize {
    fn default() -> Self {
        Self { camera: true, microphone: true }
    }
}

/// How the kiosk behaves in a room.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Room {
    /// Whether the own tile is a mirror where the document does not say.
    pub mirror: bool,
    #[serde(deserialize_with = "seconds", rename = "absent_grace_s")]
    pub absent_grace: Duration,
    #[serde(deserialize_with = "seconds", rename = "stats_interval_s")]
    pub stats_interval: Duration,
    /// Not of the file: what the board was measured to be able to.
    #[serde(skip)]
    pub capacity: Option<Capacity>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            mirror: true,
            absent_grace: Duration::from_secs(60),
            stats_interval: Duration::from_secs(10),
            capacity: None,
        }
    }
}

/// How other members are reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Local addresses for WebRTC, port 0 for any free one; none: every interface's.
    pub bind: Vec<SocketAddr>,
    pub ice_servers: Vec<IceServer>,
    /// Media goes over relays only, so that members do not learn each other's addresses.
    pub relay_only: bool,
    /// Of the video this kiosk sends to each member.
    pub bitrate_kbps: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { bind: Vec::new(), ice_servers: Vec::new(), relay_only: false, bitrate_kbps: 800 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// `stun:host`, `turn:host:port`, `turn:host?transport=tcp` or `turns:host:port`.
    pub url: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub credential: Secret,
    /// A file that holds the credential and nothing else; read into `credential`.
    pub credential_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust, these only; for `turns:`.
    pub ca_file: Option<PathBuf>,
}

impl IceServer {
    fn read(&mut self) -> anyhow::Result<()> {
        if let Some(file) = &self.credential_file {
            ensure!(
                self.credential == Secret::default(),
                "link: credential and credential_file exclude each other"
            );
            self.credential = broker::read_secret("link: credential_file", file)?;
        }
        Ok(())
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    #[serde(default = "defaults::prefix")]
    prefix: String,
    broker: BrokerOptions,
    #[serde(default)]
    camera: BTreeMap<Position, Camera>,
    #[serde(default)]
    screen: Screen,
    #[serde(default)]
    sound: Sound,
    #[serde(default)]
    authorize: Authorize,
    #[serde(default)]
    room: Room,
    #[serde(default)]
    link: Link,
    #[serde(default)]
    codec: Codec,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file's name, line, and what is wrong with it, for people.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let named = || format!("read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(named)?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(""))).with_context(named)
    }

    /// What a kiosk is that cannot read its configuration: nobody, alone, with a screen to say so.
    pub fn unreadable() -> Self {
        Self::parse(include_str!("config/unreadable.toml"), Path::new("")).expect("a good configuration")
    }

    /// Files that it names are in `folder`, unless their names begin with `/`.
    fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let mut file: File = toml::from_str(text).map_err(|error| without_source(text, &error))?;
        let BrokerOptions { ca_file, certificate_file, key_file, password_file, .. } = &mut file.broker;
        let servers = file.link.ice_servers.iter_mut();
        let of_servers = servers.flat_map(|server| [&mut server.credential_file, &mut server.ca_file]);
        [ca_file, certificate_file, key_file, password_file, &mut file.screen.font]
            .into_iter()
            .chain(of_servers)
            .flatten()
            .for_each(|file| *file = folder.join(&file));
        let Some(id) = MemberId::parse(&file.id) else {
            bail!("id = {:?}: 1 to 64 of A-Z a-z 0-9 _ - are allowed", file.id);
        };
        let prefix = file.prefix.trim_end_matches('/').to_owned();
        ensure!(
            !prefix.is_empty() && !prefix.contains(['+', '#', '\0']) && prefix.len() <= 128,
            "prefix = {:?}: 1 to 128 bytes, no + and no #",
            file.prefix
        );
        let broker = file.broker.check()?;
        file.link.ice_servers.iter_mut().try_for_each(IceServer::read)?;
        ensure!(file.link.ice_servers.len() <= 8, "link: at most 8 ice_servers");
        for (position, camera) in &file.camera {
            let named = || format!("camera.{position:?}").to_lowercase();
            ensure!((16..=4096).contains(&camera.width), "{}: width is 16 to 4096", named());
            ensure!((16..=4096).contains(&camera.height), "{}: height is 16 to 4096", named());
            ensure!((1..=120).contains(&camera.rate_hz), "{}: rate_hz is 1 to 120", named());
            ensure!(!camera.device.is_empty(), "{}: device is empty", named());
        }
        ensure!((100..=20_000).contains(&file.link.bitrate_kbps), "link: bitrate_kbps is 100 to 20000");
        ensure!(!file.sound.microphone.is_empty(), "sound: microphone is empty; `none` is none");
        ensure!(!file.sound.speaker.is_empty(), "sound: speaker is empty; `none` is none");
        ensure!((16..=8192).contains(&file.screen.width), "screen: width is 16 to 8192");
        ensure!((16..=8192).contains(&file.screen.height), "screen: height is 16 to 8192");
        Ok(Self {
            id,
            prefix,
            broker,
            cameras: file.camera,
            screen: file.screen,
            sound: file.sound,
            authorize: file.authorize,
            room: file.room,
            link: file.link,
            codec: file.codec,
            problem: None,
        })
    }
}

/// The error with its line's number and without the line itself, which may hold a credential.
fn without_source(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => anyhow!("line {}: {}", before.matches('\n').count() + 1, error.message()),
        None => anyhow!("{}", error.message()),
    }
}

fn degrees<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Rotation, D::Error> {
    let degrees = u32::deserialize(deserializer)?;
    Rotation::from_degrees(degrees).ok_or_else(|| {
        serde::de::Error::custom(format!("{degrees}: a rotation is 0, 90, 180 or 270 degrees"))
    })
}

fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(Duration::from_secs(u32::deserialize(deserializer)?.into()))
}

mod defaults {
    pub fn prefix() -> String {
        "parlor/1".into()
    }
    pub fn width() -> u32 {
        640
    }
    pub fn height() -> u32 {
        480
    }
    pub fn rate_hz() -> u32 {
        30
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Config> {
        Config::parse(text, Path::new("/etc/parlor"))
    }

    #[test]
    fn files_lie_beside_the_configuration_unless_it_says_where() {
        let config = parse(
            "id = 'a'\nbroker.address = 'mqtts://b'\nbroker.ca_file = 'ours.crt'\nscreen.font = '/usr/share/a.ttf'",
        )
        .expect("valid");

        let authority = config.broker.tls.and_then(|tls| tls.ca_file);
        assert_eq!(authority.as_deref(), Some(Path::new("/etc/parlor/ours.crt")));
        assert_eq!(config.screen.font.as_deref(), Some(Path::new("/usr/share/a.ttf")));
    }

    #[test]
    fn a_kiosk_without_a_configuration_looks_and_listens_at_nothing() {
        let config = Config::unreadable();

        assert!(config.cameras.is_empty() && !config.authorize.camera && !config.authorize.microphone);
    }

    #[test]
    fn four_lines_are_enough() {
        let config = parse("id = 'lobby'\nbroker.address = 'broker'\ncamera.front.device = '/dev/video0'")
            .expect("valid");

        assert_eq!((config.broker.host.as_str(), config.broker.port), ("broker", 1883));
        assert_eq!(config.prefix, "parlor/1");
        assert_eq!(config.cameras[&Position::Front].size(), Size::new(640, 480));
        assert_eq!(config.screen.device, "/dev/fb0");
        assert_eq!(config.codec, Codec::Auto);
    }

    #[test]
    fn a_typo_is_named_with_its_line() {
        let error =
            parse("id = 'lobby'\nbroker.address = 'b'\n[screen]\nrotate = 90").expect_err("unknown key");

        let said = format!("{error:#}");
        assert!(said.contains("line 4") && said.contains("rotate"), "{said}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (text, word) in [
            ("id = 'a b'\nbroker.address = 'b'", "id"),
            ("id = 'a'\nbroker.address = 'b:x'", "port"),
            ("id = 'a'\nbroker.address = 'http://b'", "broker"),
            ("id = 'a'\nbroker.address = 'b'\nscreen.rotation = 45", "45"),
            ("id = 'a'\nbroker.address = 'b'\ncamera.back = { device = 'x', rate_hz = 0 }", "camera.back"),
            ("id = 'a'\nbroker.address = 'b'\nprefix = 'a/#'", "prefix"),
            ("id = 'a'\nbroker.address = 'b'\ncodec = 'vp8'", "vp8"),
        ] {
            let said = format!("{:#}", parse(text).expect_err(text));
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_line_that_may_hold_a_credential() {
        let server = "{ url = 'turn:t', credential = 'open sesame', typo = 1 }";

        for line in [format!("ice_servers = [{server}]"), "ice_servers = [{ credential = 4711 }]".into()] {
            let error =
                parse(&format!("id = 'a'\nbroker.address = 'b'\n[link]\n{line}")).expect_err("a typo");

            let said = format!("{error:#} {error:?}");
            assert!(said.contains("line 4") && !said.contains("sesame") && !said.contains("4711"), "{said}");
        }
    }
    #[test]
    fn a_configuration_can_be_printed_without_its_secrets() {
        let server = "{ url = 'turn:t', credential = 'open sesame' }";
        let config = format!("id = 'a'\nbroker.address = 'b'\nlink.ice_servers = [{server}]");

        let printed = format!("{:?}", parse(&config).expect("valid"));

        assert!(printed.contains("turn:t") && !printed.contains("sesame"), "{printed}");
    }
}
