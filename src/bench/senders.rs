//! Who sends, in a process of its own: what it costs is not counted.

use super::shared::SharedEncoder;
use super::{Options, RECEIVER};
use crate::config;
use crate::demo::room::{Real, SimKiosk, configuration};
use crate::geometry::Size;
use crate::machine::{self, Simulation};
use crate::media::canvas::PixelLayout;
use crate::sim::camera::Camera;
use anyhow::Context;
use std::io::Read;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use tokio::process::{Child, Command};

/// What the process is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    pub port: u16,
    #[arg(long)]
    pub tiles: u8,
    #[arg(long, value_parser = super::size)]
    pub size: Size,
    #[arg(long)]
    pub rate: u32,
    #[arg(long)]
    pub grain: u8,
}

/// A sender sees nobody closely.
const SCREEN: Size = Size::new(320, 240);

/// The openid of the sender of this number.
pub fn name(number: u8) -> String {
    format!("{RECEIVER}-{number}")
}

/// Starts the process; it ends with this value, and with this process.
///
/// # Errors
/// The program cannot be started.
pub async fn start(port: u16, tiles: u8, options: &Options) -> anyhow::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["bench-senders", "--port", &port.to_string(), "--tiles", &tiles.to_string()])
        .args(["--size", &options.size.to_string(), "--rate", &options.rate.to_string()])
        .args(["--grain", &options.grain.to_string()])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start the senders' process")
}

/// What the senders' process does: a kiosk each, until its standard input ends.
///
/// # Errors
/// Standard input cannot be waited for.
pub async fn serve(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let camera = (arguments.size, arguments.rate);
    let encoder = Arc::new(SharedEncoder::default());
    let mut kiosks = Vec::new();
    for number in 0..arguments.tiles {
        let mut config = configuration(&name(number), arguments.port, SCREEN, camera, &Real::default());
        // Nobody hears what they play, and what they say is clean.
        config.sound.speaker = config::NONE.into();
        (config.sound.echo_cancellation, config.sound.noise_suppression) = (false, false);
        config.sound.gain_control = false;
        let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
        simulation.front.set_grain(arguments.grain);
        let mut devices = machine::devices(&config, &simulation);
        devices.codecs = Some(encoder.clone());
        // All of one colour, and so of one picture.
        let (cable, (size, rate)) = (simulation.front.clone(), camera);
        devices.camera =
            Arc::new(move |_| Ok(Box::new(Camera::open("sender", size, rate, 0, cable.clone())?)));
        kiosks.push(SimKiosk::start_on(devices, config, simulation));
    }
    // Whatever ends it, the other end is gone.
    tokio::task::spawn_blocking(|| drop(std::io::stdin().read(&mut [0])))
        .await
        .context("wait for the end")?;
    Ok(ExitCode::SUCCESS)
}
