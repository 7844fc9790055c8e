//! The broker in a process of its own, so that it can be killed.

use crate::sim;
use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// How often the port of a broker that was killed is asked for again; the system may hold it for a moment.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A running broker; it dies with this value, and with this process.
pub struct BrokerProcess {
    pub port: u16,
    child: Child,
}

impl BrokerProcess {
    /// Starts it on `port`; 0 is any free one.
    ///
    /// # Errors
    /// The program cannot be started, or the port stays taken.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            let mut child = Command::new(std::env::current_exe()?)
                .args(["broker", "--port", &port.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .context("start the broker's process")?;
            let mut said = String::new();
            if let Some(mut stdout) = child.stdout.take() {
                // One short line; it is read until it is whole or the process has ended.
                let mut byte = [0];
                while !said.ends_with('\n') && matches!(stdout.read(&mut byte).await, Ok(1)) {
                    said.push(char::from(byte[0]));
                }
            }
            if let Ok(port) = said.trim().parse() {
                return Ok(Self { port, child });
            }
            let _ = child.wait().await;
            tokio::time::sleep(PAUSE).await;
        }
        bail!("the broker does not start on port {port}")
    }

    /// SIGKILL: no goodbye, and its memory is gone.
    pub async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the broker cannot be killed");
        }
    }
}

/// What the broker's process does: says its port and serves until its standard input ends.
///
/// # Errors
/// The port is taken.
pub fn serve(port: u16) -> anyhow::Result<ExitCode> {
    let broker = sim::broker::start(port)?;
    println!("{}", broker.port);
    std::io::stdout().flush()?;
    // Whatever ends it, the other end is gone.
    let _ = std::io::stdin().read(&mut [0]);
    Ok(ExitCode::SUCCESS)
}
