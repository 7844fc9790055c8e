//! The machine a kiosk runs on: real devices, or simulated ones where the configuration says `sim`.

use crate::config::{Codec, Config, SIMULATED};
use crate::device::board::KernelBoard;
use crate::device::codec::{H264, Hardware};
use crate::device::{self, Camera, Microphone, Screen, Speaker};
use crate::kiosk::Devices;
use crate::media::canvas::PixelLayout;
use crate::media::codec::Codecs;
use crate::room::Position;
use crate::sim;
use std::path::Path;
use std::sync::Arc;

/// A simulated camera's and screen's outside: what a test or the demo holds in its hand.
#[derive(Clone)]
pub struct Simulation {
    pub glass: sim::screen::Glass,
    pub front: sim::camera::Cable,
    pub back: sim::camera::Cable,
    pub air: sim::sound::Air,
    /// `None`: the machine's own network.
    pub network: Option<sim::network::Network>,
}

impl Simulation {
    /// The outside of the simulated devices of this configuration. Before the microphone somebody talks.
    pub fn new(config: &Config, layout: PixelLayout) -> Self {
        let glass = sim::screen::Glass::new(config.screen.size(), layout, config.screen.rotation);
        let mut talker =
            sim::speech::Speech::new(100.0 + f32::from(hue(config.id.as_str(), Position::Front)));
        let air = sim::sound::Air::default();
        air.speak(move |block, _| talker.talk(block));
        Self { glass, front: Default::default(), back: Default::default(), air, network: None }
    }

    fn cable(&self, position: Position) -> sim::camera::Cable {
        match position {
            Position::Front => self.front.clone(),
            Position::Back => self.back.clone(),
        }
    }
}

pub use crate::device::board::{allocated_kib, give_memory_back};

/// The devices this configuration names; the simulated among them are those of `simulation`.
pub fn devices(config: &Config, simulation: &Simulation) -> Devices {
    let (cameras, id, cables) = (config.cameras.clone(), config.id.clone(), simulation.clone());
    let camera = move |position: Position| -> Result<Box<dyn Camera>, device::Error> {
        let Some(camera) = cameras.get(&position) else {
            let target = format!("camera.{position:?} of the configuration").to_lowercase();
            return Err(device::Error {
                kind: device::Kind::NotFound,
                operation: "open",
                errno: None,
                target,
            });
        };
        if camera.device == SIMULATED {
            let name = format!("{id}-{position:?}").to_lowercase();
            let hue = hue(id.as_str(), position);
            let camera =
                sim::camera::Camera::open(&name, camera.size(), camera.rate_hz, hue, cables.cable(position))?;
            return Ok(Box::new(camera));
        }
        let choice = device::camera::Choice {
            device: camera.device.clone(),
            size: camera.size(),
            rate_hz: camera.rate_hz,
        };
        Ok(Box::new(device::camera::open(&choice)?))
    };
    let (settings, glass) = (config.screen.clone(), simulation.glass.clone());
    let screen = move || -> Result<Box<dyn Screen>, device::Error> {
        if settings.device == SIMULATED {
            return Ok(Box::new(sim::screen::Screen::open(glass.clone())));
        }
        Ok(Box::new(device::screen::open(&settings.device, settings.flip)?))
    };
    let (pcm, air) = (config.sound.microphone.clone(), simulation.air.clone());
    let microphone = move || -> Result<Box<dyn Microphone>, device::Error> {
        if pcm == SIMULATED {
            return Ok(Box::new(sim::sound::Microphone::open(air.clone())?));
        }
        Ok(Box::new(device::sound::open_microphone(&pcm)?))
    };
    let (pcm, air) = (config.sound.speaker.clone(), simulation.air.clone());
    let speaker = move || -> Result<Box<dyn Speaker>, device::Error> {
        if pcm == SIMULATED {
            return Ok(Box::new(sim::sound::Speaker::open(air.clone())?));
        }
        Ok(Box::new(device::sound::open_speaker(&pcm)?))
    };
    Devices {
        camera: Arc::new(camera),
        screen: Arc::new(screen),
        microphone: Arc::new(microphone),
        speaker: Arc::new(speaker),
        network: simulation.network.as_ref().map(sim::network::Network::runtime),
        board: Arc::new(KernelBoard::new(Path::new("/"))),
        codecs: codecs(config.codec),
    }
}

/// The machine's own codecs, if they are wanted and there are any.
fn codecs(wanted: Codec) -> Option<Arc<dyn Codecs>> {
    let hardware = match wanted {
        Codec::Auto => Hardware::find(H264),
        Codec::Software => Hardware::default(),
    };
    (!hardware.is_empty()).then(|| -> Arc<dyn Codecs> { Arc::new(hardware) })
}

/// A colour of its own for each simulated camera.
pub fn hue(id: &str, position: Position) -> u8 {
    let sum = id.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    match position {
        Position::Front => sum,
        Position::Back => sum.wrapping_add(128),
    }
}
