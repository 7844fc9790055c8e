//! Arguments, log, configuration; then the kiosk, the demo, the soak, or the operator's hand.

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use parlor::config::{Config, SIMULATED};
use parlor::device::console;
use parlor::kiosk::End;
use parlor::machine::Simulation;
use parlor::media::canvas::PixelLayout;
use parlor::{bench, ctl, demo, kiosk, machine, provision, soak};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
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
        /// Where `parlor provision` leaves word of settings it refused. With it, a configuration that cannot be used is
        /// said on the screen, too, and does not end the daemon.
        #[arg(long, value_name = "FILE")]
        problem: Option<PathBuf>,
        /// What `parlor bench --sweep` measured of this board; it need not be there.
        #[arg(long, value_name = "FILE", default_value = bench::budget::FILE)]
        budget: PathBuf,
    },
    /// Takes settings over from a partition that a laptop can write to, if they can be used; the unit of images calls it.
    Provision {
        /// The folder with kiosk.toml and the files it names.
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// Where the daemon reads them: a link that is made or replaced, beside two folders that take turns.
        #[arg(long, value_name = "LINK")]
        to: PathBuf,
        /// Leaves word here of settings that cannot be used, for `parlor run` to show.
        #[arg(long, value_name = "FILE")]
        problem: Option<PathBuf>,
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

fn main() -> ExitCode {
    let task = Arguments::parse().command;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if matches!(task, Task::Run { .. } | Task::Bench(_)) {
        // The connections of a room are a few hundredths of a core. Shared among as many workers as cores, each packet
        // wakes one that sleeps, which looks for work at the others: a sixth to two fifths more CPU, three times the
        // wake-ups.
        runtime.worker_threads(1);
    }
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(work(task)),
        Err(error) => {
            eprintln!("parlor: start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn work(task: Task) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,rtc=error,rtc_dtls=error,rtc_ice=error,webrtc=error,rumqttd=off".into());
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    let done = match task {
        Task::Run { config, check: true, .. } => check(&config),
        Task::Run { config, problem, budget, .. } => run(&config, problem.as_deref(), &budget).await,
        Task::Provision { from, to, problem } => provision(&from, &to, problem.as_deref()),
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

fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let Config { id, broker, .. } = load(path)?;
    println!("{}: kiosk {id}, broker {}:{}", path.display(), broker.host, broker.port);
    Ok(ExitCode::SUCCESS)
}

/// The configuration, if it and the files that it names can be used.
fn load(path: &Path) -> anyhow::Result<Config> {
    let config = Config::load(path)?;
    kiosk::check(&config)?;
    Ok(config)
}

fn provision(from: &Path, to: &Path, problem: Option<&Path>) -> anyhow::Result<ExitCode> {
    let outcome = provision::provision(from, to);
    if let Some(file) = problem {
        match &outcome {
            Ok(_) => drop(std::fs::remove_file(file)),
            Err(reason) => std::fs::write(file, format!("{reason:#}\n"))
                .with_context(|| format!("write {}", file.display()))?,
        }
    }
    println!("{}: {:?}", to.display(), outcome?);
    Ok(ExitCode::SUCCESS)
}

async fn run(path: &Path, problem: Option<&Path>, budget: &Path) -> anyhow::Result<ExitCode> {
    // Before they are read, so that no change is missed.
    let before = changes([Some(path), problem]);
    let mut config = match (load(path), problem) {
        (Err(reason), None) => return Err(reason),
        (Err(reason), Some(_)) => Config { problem: Some(format!("{reason:#}")), ..Config::unreadable() },
        (Ok(config), None) => config,
        // Two lines of a screen at most are read by anybody.
        (Ok(config), Some(file)) => {
            let refused = std::fs::read_to_string(file).ok();
            Config { problem: refused.map(|text| text.trim().chars().take(300).collect()), ..config }
        }
    };
    if let Some(reason) = &config.problem {
        tracing::error!(reason, "the settings cannot be used");
    }
    config.room.capacity = bench::budget::read(budget);
    let simulation = Simulation::new(&config, PixelLayout::XRGB8888);
    let devices = machine::devices(&config, &simulation);
    // Dropped after the kiosk has ended, by a panic as well.
    let console = (config.screen.device != SIMULATED).then(console::Console::take);
    let unusable = config.problem.is_some();
    let ended = async {
        tokio::select! {
            () = stopped() => {}
            () = until_changed([Some(path), problem], before), if unusable => tracing::info!("the settings have changed"),
        }
    };
    let end = kiosk::run(config, devices, ended).await.context("start the kiosk")?;
    drop(console);
    if end == End::Restart {
        tracing::info!("restart asked for");
    }
    Ok(ExitCode::SUCCESS)
}

/// When each was changed last; `None` is not there.
fn changes(files: [Option<&Path>; 2]) -> [Option<SystemTime>; 2] {
    files.map(|file| std::fs::metadata(file?).and_then(|file| file.modified()).ok())
}

/// Resolves when one of the files is another than `before`: settings that were mended, or came late from a slow disk, are
/// read without anybody's help, for whoever starts the daemon starts it again.
async fn until_changed(files: [Option<&Path>; 2], before: [Option<SystemTime>; 2]) {
    while changes(files) == before {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
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
