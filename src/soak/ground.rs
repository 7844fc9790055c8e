//! The real thing: a broker, kiosks on simulated devices with a line each, and the hand that carries steps out.

use super::broker::BrokerProcess;
use super::controller::Controller;
use super::step::{Device, Garbage, Step, Stranger};
use super::world::{IDS, ROOM, Stage, World};
use crate::demo::room::{Real, SimKiosk, configuration};
use crate::geometry::Size;
use crate::machine::Simulation;
use crate::media::canvas::PixelLayout;
use crate::sim::camera::Cable;
use crate::sim::line::Line;
use anyhow::Context;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const CAMERA: Size = Size::new(320, 240);
const RATE_HZ: u32 = 15;
const SCREEN: Size = Size::new(640, 360);
/// How long a document may be absent; here short, so that it is waited for.
const ABSENT_GRACE: Duration = Duration::from_secs(5);
/// How far away the end of a document is that is to pass.
const UNTIL: Duration = Duration::from_secs(2);

/// How the ids of those begin who are not listed.
pub const STRANGER: &str = "stranger";

/// All that runs.
pub struct Ground {
    broker: Option<BrokerProcess>,
    port: u16,
    pub controller: Controller,
    pub seats: Vec<Seat>,
}

/// A kiosk with its outside.
pub struct Seat {
    line: Line,
    config: crate::config::Config,
    pub simulation: Simulation,
    kiosk: Option<SimKiosk>,
}

impl Seat {
    pub fn cable(&self, device: Device) -> &Cable {
        match device {
            Device::Front => &self.simulation.front,
            Device::Back => &self.simulation.back,
            Device::Microphone => &self.simulation.air.microphone,
            Device::Speaker => &self.simulation.air.speaker,
        }
    }

    fn start(&mut self) {
        self.kiosk = Some(SimKiosk::start(self.config.clone(), self.simulation.clone()));
    }

    /// Ends the kiosk as SIGTERM does, and waits for it.
    async fn end(&mut self) -> anyhow::Result<()> {
        if let Some(kiosk) = self.kiosk.take() {
            kiosk.stop.send_replace(true);
            kiosk.task.await.context("a kiosk died")??;
        }
        Ok(())
    }
}

impl Ground {
    /// Starts a broker and `count` kiosks.
    ///
    /// # Errors
    /// No broker, no line.
    pub async fn start(count: usize) -> anyhow::Result<Self> {
        let broker = BrokerProcess::start(0).await?;
        let port = broker.port;
        let mut seats = Vec::new();
        for id in IDS.into_iter().take(count) {
            let line = Line::to(port).await.context("a line to the broker")?;
            let mut config = configuration(id, line.port, SCREEN, (CAMERA, RATE_HZ), &Real::default());
            config.room.absent_grace = ABSENT_GRACE;
            let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
            let mut seat = Seat { line, config, simulation, kiosk: None };
            seat.start();
            seats.push(seat);
        }
        let controller = Controller::connect(port);
        Ok(Self { broker: Some(broker), port, controller, seats })
    }

    /// Does a step that `world` has already taken on paper.
    ///
    /// # Errors
    /// A kiosk has died, the broker cannot be started.
    pub async fn carry_out(&mut self, step: &Step, world: &mut World) -> anyhow::Result<()> {
        match step {
            Step::Leave(of, Stage::Forgotten) => {
                self.seats[*of].line.set_whole(false);
                self.publish_documents(world).await;
                self.controller.publish(format!("{}/desired", IDS[*of]), String::new(), true).await;
                // The broker is to know it before the kiosk is back.
                tokio::time::sleep(Duration::from_millis(500)).await;
                self.mend(*of);
            }
            Step::Leave(of, Stage::Over) => {
                world.places[*of].until = now() + UNTIL;
                self.publish_documents(world).await;
            }
            Step::Leave(..) | Step::Join(_) | Step::Arrange(_) | Step::Mute(..) | Step::Switch(_) => {
                self.publish_documents(world).await;
            }
            Step::Twice(layout) => {
                let layouts = [crate::room::document::Layout::Grid, crate::room::document::Layout::Pip];
                for other in layouts.into_iter().filter(|other| other != layout).take(1) {
                    world.layout = other;
                    self.publish_documents(world).await;
                }
                world.layout = *layout;
                self.publish_documents(world).await;
            }
            Step::Unplug(of, device) => self.seats[*of].cable(*device).set_plugged(false),
            Step::Plug(of, device) => self.seats[*of].cable(*device).set_plugged(true),
            Step::BrokerKilled => {
                if let Some(broker) = self.broker.take() {
                    broker.kill().await;
                }
            }
            Step::BrokerStarted => {
                self.broker = Some(BrokerProcess::start(self.port).await?);
                self.controller = Controller::connect(self.port);
                self.publish_documents(world).await;
            }
            Step::LineCut(of) => self.seats[*of].line.set_whole(false),
            Step::LineMended(of) => self.mend(*of),
            Step::Restart(of) => {
                self.seats[*of].end().await?;
                self.controller.forget(&state(*of));
                self.seats[*of].start();
            }
            Step::Command(of) => {
                self.controller.forget(&state(*of));
                self.controller.publish(format!("{}/cmd/restart", IDS[*of]), String::new(), false).await;
            }
            Step::Spoil(of, garbage) => self.spoil(*of, *garbage).await,
            Step::Stranger(of, stranger) => self.intrude(*of, *stranger).await,
            Step::Rest => {
                for seat in &self.seats {
                    Device::ALL.into_iter().for_each(|device| seat.cable(device).set_plugged(true));
                }
                self.publish_documents(world).await;
            }
        }
        Ok(())
    }

    /// Who is back says its state anew.
    fn mend(&self, of: usize) {
        self.controller.forget(&state(of));
        self.seats[of].line.set_whole(true);
    }

    async fn publish_documents(&self, world: &mut World) {
        for (of, document) in world.documents() {
            let payload = document.map_or_else(String::new, |document| document.to_string());
            self.controller.publish(format!("{}/desired", IDS[of]), payload, true).await;
        }
    }

    async fn spoil(&self, of: usize, garbage: Garbage) {
        self.controller.publish(format!("{}/desired", IDS[of]), garbage.text(), true).await;
    }

    async fn intrude(&self, of: usize, stranger: Stranger) {
        let signal = |kind: &str, from: u32, seq: u32| {
            let session = format!("{from:032x}");
            let body = json!({
                "room": ROOM, "session": session, "seq": seq, "kind": kind, "sdp": "v=0\r\n",
                "candidate": { "candidate": "", "sdpMid": "0", "sdpMLineIndex": 0 },
            });
            (format!("{}/signal/{STRANGER}-{from}", IDS[of]), body.to_string())
        };
        let signals: Vec<(String, String)> = match stranger {
            Stranger::NoJson => vec![(format!("{}/signal/{STRANGER}-0", IDS[of]), "{".into())],
            Stranger::Offer => vec![signal("offer", 0, 1)],
            Stranger::Flood => (0..10)
                .flat_map(|from| {
                    (1..=35).map(move |seq| (if seq == 1 { "offer" } else { "candidate" }, from, seq))
                })
                .map(|(kind, from, seq)| signal(kind, from, seq))
                .collect(),
        };
        for (topic, payload) in signals {
            self.controller.publish(topic, payload, false).await;
        }
    }

    /// Ends a kiosk behind everybody's back.
    ///
    /// # Errors
    /// It has died before.
    pub async fn stop_silently(&mut self, id: &str) -> anyhow::Result<()> {
        for seat in self.seats.iter_mut().filter(|seat| seat.config.id.as_str() == id) {
            seat.end().await?;
        }
        Ok(())
    }

    /// Ends all, each kiosk with its goodbye.
    ///
    /// # Errors
    /// One has died.
    pub async fn end(mut self) -> anyhow::Result<()> {
        for seat in &mut self.seats {
            seat.end().await?;
        }
        Ok(())
    }
}

fn state(of: usize) -> String {
    format!("{}/state", IDS[of])
}

/// Since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
