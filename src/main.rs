//! Arguments, log, configuration; then the kiosk, the demo, the soak, or the operator's hand.

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use parlor::config::{Config, SIMULATED};
use parlor::device::console;
use parlor::kiosk::End;
use parlor::machine::Simulation;
use parlor::media::canvas::PixelLayout;
use parlor::{bench, ctl, demo, kiosk, machine, soak};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// An ARM Linux board with cameras and a screen as an endpoint of a video room.
#[derive(Parser)]
#[command(
    version,
    after_long_help = "/etc/parlor/kiosk.toml has every key with its comment; parlor.service runs the kiosk. \
                       What MQTT carries and what each error code means is in /usr/share/doc/parlor."
)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs this board's kiosk.
    Run {
        /// The board's configuration.
        #[arg(long, default_value = "/etc/parlor/kiosk.toml")]
        config: PathBuf,
        /// Only reads and checks the configuration, and the files it names.
        #[arg(long)]
        check: bool,
    },
    /// Shows a room of four simulated kiosks: no broker, camera or screen needed.
    Demo(demo::Options),
    /// Shakes a room of simulated kiosks at random for minutes or days and looks after each step whether all is well.
    Soak(soak::Options),
    /// Measures what receiving so many streams costs here, from the camera to the glass.
    Bench(bench::Options),
    /// The senders of a bench, in a process of their own.
    #[command(hide = true)]
    BenchSenders(bench::Arguments),
    /// The broker of a soak or a bench, in a process of its own.
    #[command(hide = true)]
    Broker {
        #[arg(long)]
        port: u16,
    },
    /// Controls kiosks through the broker.
    Ctl(Box<ctl::Args>),
    /// Gives the text console back after a crash; the systemd unit calls it.
    RestoreConsole,
    /// Writes the man pages and the shells' completions; packages call it.
    #[command(hide = true)]
    Manual {
        /// Where to; made if it is not there.
        folder: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,rtc=error,rtc_dtls=error,rtc_ice=error,webrtc=error,rumqttd=off".into());
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    let done = match Arguments::parse().command {
        Task::Run { config, check } => run(config, check).await,
        Task::Demo(options) => demo::run(options, stopped()).await,
        Task::Soak(options) => soak::run(options, stopped()).await,
        Task::Bench(options) => bench::run(options, stopped()).await,
        Task::BenchSenders(arguments) => bench::serve(arguments).await,
        Task::Broker { port } => soak::serve(port),
        Task::Ctl(args) => ctl::run(*args).await.map(|()| ExitCode::SUCCESS),
        Task::RestoreConsole => restore_console(),
        Task::Manual { folder } => manual(&folder).with_context(|| format!("write to {}", folder.display())),
    };
    done.unwrap_or_else(|error| {
        eprintln!("parlor: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(path: PathBuf, check: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(&path)?;
    if check {
        kiosk::check(&config)?;
        println!(
            "{}: kiosk {}, broker {}:{}",
            path.display(),
            config.id,
            config.broker.host,
            config.broker.port
        );
        return Ok(ExitCode::SUCCESS);
    }
    let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
    let devices = machine::devices(&config, &simulation);
    // Dropped after the kiosk has ended, by a panic as well.
    let console = (config.screen.device != SIMULATED).then(console::Console::take);
    let end = kiosk::run(config, devices, stopped()).await.context("start the kiosk")?;
    drop(console);
    if end == End::Restart {
        tracing::info!("restart asked for");
    }
    Ok(ExitCode::SUCCESS)
}

/// After the daemon's end, whatever it was (`ExecStopPost=`).
fn restore_console() -> anyhow::Result<ExitCode> {
    // Both are tried, whatever becomes of the other.
    let restored = console::restore(console::FRONT).with_context(|| format!("restore {}", console::FRONT));
    if let (Ok(result), Some(directory)) =
        (std::env::var("SERVICE_RESULT"), std::env::var_os("RUNTIME_DIRECTORY"))
    {
        kiosk::health::leave_word(&result, Path::new(&directory)).context("leave word of a hang")?;
    }
    restored?;
    Ok(ExitCode::SUCCESS)
}

/// A subcommand and no build script: that would compile clap for the host as well, and a board's package takes these
/// files from the host's binary. They are the same for every processor.
fn manual(folder: &Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder)?;
    let program = Arguments::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut program.clone(), "parlor", folder)?;
    }
    clap_mangen::generate_to(program, folder)?;
    Ok(ExitCode::SUCCESS)
}

/// Resolves at SIGTERM or SIGINT.
async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
