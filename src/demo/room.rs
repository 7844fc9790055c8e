//! What a room in one process is made of: a kiosk on simulated devices and its configuration. The demo and the soak
//! stand on it.

use crate::config::{self, Config};
use crate::geometry::{Fit, Rect, Rotation, Size};
use crate::kiosk::{self, Devices, End};
use crate::machine::{self, Simulation};
use crate::room::message::MemberId;
use crate::room::{Position, Publication};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the machine has.
#[derive(Default)]
pub struct Real {
    /// Front and back.
    pub cameras: Vec<String>,
    pub sound: bool,
}

/// A kiosk on simulated devices, as a task of this process.
pub struct SimKiosk {
    pub id: MemberId,
    pub simulation: Simulation,
    /// Set, it ends the kiosk.
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<anyhow::Result<()>>,
}

impl SimKiosk {
    /// Starts a kiosk on the devices of this simulation, and starts it anew as often as it asks for that.
    pub fn start(config: Config, simulation: Simulation) -> Self {
        let devices = machine::devices(&config, &simulation);
        Self::start_on(devices, config, simulation)
    }

    /// The same with other devices.
    pub fn start_on(devices: Devices, config: Config, simulation: Simulation) -> Self {
        let (id, (stop, stopped)) = (config.id.clone(), watch::channel(false));
        let task = tokio::spawn(async move {
            loop {
                let mut stopped = stopped.clone();
                let stop = async move {
                    // Whoever is gone stops its kiosks too.
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                if kiosk::run(config.clone(), devices.clone(), stop).await? == End::Stopped {
                    return Ok(());
                }
            }
        });
        Self { id, simulation, stop, task }
    }
}

/// A kiosk without a file: simulated devices but for the `real` ones, cameras of this size and rate in hertz.
pub fn configuration(
    id: &str,
    broker_port: u16,
    screen: Size,
    (size, rate_hz): (Size, u32),
    real: &Real,
) -> Config {
    let camera = |device: &str| config::Camera::upright(device, size, rate_hz);
    let [front, back] =
        [0, 1].map(|index| camera(real.cameras.get(index).map_or(config::SIMULATED, String::as_str)));
    let pcm = if real.sound { config::DEFAULT_PCM } else { config::SIMULATED };
    let font = FONTS.iter().map(PathBuf::from).find(|font| font.exists());
    Config {
        id: MemberId::parse(id).expect("the names are ids"),
        prefix: "parlor/1".into(),
        broker: config::Broker::plain("127.0.0.1", broker_port),
        cameras: BTreeMap::from([(Position::Front, front), (Position::Back, back)]),
        screen: config::Screen {
            device: config::SIMULATED.into(),
            rotation: Rotation::None,
            flip: false,
            width: screen.width,
            height: screen.height,
            font,
        },
        sound: config::Sound { microphone: pcm.into(), speaker: pcm.into(), ..Default::default() },
        authorize: config::Authorize::default(),
        room: config::Room::default(),
        codec: config::Codec::default(),
        problem: None,
        link: config::Link { bind: vec![([127, 0, 0, 1], 0).into()], ..Default::default() },
    }
}

/// Where Debian puts fonts that have Chinese; the built-in one serves where there is none.
const FONTS: [&str; 2] = [
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
];

/// A tile of `reported`: whose, where, and how it is fitted.
pub fn place(tile: &Value) -> Option<(String, Rect, Fit)> {
    let side = |index: usize| tile["area"][index].as_u64().and_then(|side| u32::try_from(side).ok());
    let area = Rect::new(side(0)?, side(1)?, side(2)?, side(3)?);
    let fit = serde_json::from_value(tile["object-fit"].clone()).ok()?;
    Some((tile["openid"].as_str()?.to_owned(), area, fit))
}

/// A retained message, the prefix of its topic left out.
pub fn retained(topic: &str, document: Value) -> Publication {
    Publication {
        topic: topic.into(),
        payload: document.to_string().into(),
        retained: true,
        qos: 1,
        expiry_s: None,
        correlation: None,
    }
}
