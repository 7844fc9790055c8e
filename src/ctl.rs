//! `parlor ctl`, the operator's hand: reads the retained documents, changes and publishes them, and waits until the
//! kiosks report what they show. Does nothing that `mosquitto_pub` could not do.

mod document;
mod operator;
mod view;

use crate::config::BrokerOptions;
use crate::room::message::MemberId;
use crate::secret::Secret;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
pub use document::Member;
use operator::{Message, Operator};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use view::{Outcome, View, describe, text};

/// First bytes of a PNG (RFC 2083 section 3.1).
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// `name` of a member, bytes.
const LONGEST_NAME: usize = 64;

/// Controls kiosks over MQTT and says what became of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub broker: BrokerOptions,
    /// Topic prefix, as in the kiosks' configuration
    #[arg(long, global = true, default_value = "parlor/1", value_parser = prefix)]
    pub prefix: String,
    /// User name; a broker that takes it for the client id allows one session for each name
    #[arg(long, global = true)]
    pub username: Option<String>,
    /// The password; others on this machine see it while the command runs, better is a --password-file
    #[arg(long, global = true, conflicts_with = "password_file")]
    pub password: Option<Secret>,
    /// How long to wait for the kiosks, seconds
    #[arg(long, global = true, default_value_t = 10)]
    pub timeout: u64,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make a room of exactly these members: writes each member's document; who was in it before leaves
    Room {
        #[arg(value_parser = id)]
        name: String,
        /// ID, or ID=NAME with a name for people
        #[arg(required = true, value_name = "MEMBER", value_parser = member)]
        members: Vec<Member>,
    },
    /// Add members to a room
    Add {
        #[arg(value_parser = id)]
        room: String,
        #[arg(required = true, value_name = "MEMBER", value_parser = member)]
        members: Vec<Member>,
    },
    /// Remove members from a room; they leave it
    Remove {
        #[arg(value_parser = id)]
        room: String,
        #[arg(required = true, value_name = "MEMBER", value_parser = id)]
        members: Vec<String>,
    },
    /// Switch to the other camera, without leaving the room
    Camera {
        #[arg(value_parser = id)]
        kiosk: String,
        #[arg(value_parser = ["front", "back"])]
        position: String,
    },
    /// Set how pictures sit in their tiles: all, or one member's
    Fit {
        #[arg(value_parser = id)]
        kiosk: String,
        #[arg(value_parser = ["fill", "contain", "cover"])]
        fit: String,
        #[arg(value_parser = id)]
        member: Option<String>,
    },
    /// Mute, or with `off` unmute
    Mute {
        #[arg(value_parser = id)]
        kiosk: String,
        #[arg(value_parser = ["microphone", "earphone", "camera"])]
        device: String,
        #[arg(value_parser = ["on", "off"], default_value = "on")]
        muted: String,
    },
    /// Arrange the tiles: all equal, or who speaks large and the others in a strip
    Layout {
        #[arg(value_parser = id)]
        kiosk: String,
        #[arg(value_parser = ["grid", "speaker", "pip"])]
        layout: String,
    },
    /// Leave the room: clears the kiosk's document
    Leave {
        #[arg(value_parser = id)]
        kiosk: String,
    },
    /// Save what is on the glass now as a PNG
    Snapshot {
        #[arg(value_parser = id)]
        kiosk: String,
        file: PathBuf,
        /// Width in pixels, 16 to 1920
        #[arg(long, value_parser = clap::value_parser!(u32).range(16..=1920))]
        width: Option<u32>,
    },
    /// Show the kiosk's id on its glass
    Identify {
        #[arg(value_parser = id)]
        kiosk: String,
    },
    /// Play a chirp and listen for it: is the kiosk heard, and does it hear?
    Selftest {
        #[arg(value_parser = id)]
        kiosk: String,
    },
    /// Print errors, faults, events and states as they come, until interrupted
    Watch {
        #[arg(value_parser = id)]
        kiosk: Option<String>,
    },
    /// Print who shows whom
    Show {
        #[arg(value_parser = id)]
        kiosk: Option<String>,
    },
}

/// Carries out one command.
///
/// # Errors
/// The broker cannot be reached or refuses, the input makes no sense, or a kiosk did not do what it was told: the
/// message says which, and the process should end with failure.
pub async fn run(args: Args) -> anyhow::Result<()> {
    run_into(args, &mut std::io::stdout()).await
}

/// [`run`] with its lines written to `out`.
pub async fn run_into(args: Args, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let mut operator = Operator::connect(&args).await?;
    let patience = Duration::from_secs(args.timeout);
    match &args.command {
        Command::Watch { kiosk } => return watch(&mut operator, kiosk.as_deref(), out).await,
        Command::Snapshot { kiosk, file, width } => {
            let view = look(&mut operator).await?;
            let picture = snapshot(&mut operator, &view, kiosk, *width, patience).await?;
            std::fs::write(file, &picture).with_context(|| format!("write {}", file.display()))?;
            say(out, &format!("{kiosk}: {} bytes in {}", picture.len(), file.display()))
        }
        Command::Identify { kiosk } => {
            let view = look(&mut operator).await?;
            request(&mut operator, &view, kiosk, "identify", Vec::new(), patience).await?;
            say(out, &format!("{kiosk}: shows its id"))
        }
        Command::Selftest { kiosk } => {
            let view = look(&mut operator).await?;
            let answer = request(&mut operator, &view, kiosk, "selftest", Vec::new(), patience).await?;
            let answer: Value = serde_json::from_slice(&answer).context("read the answer")?;
            if answer["ok"] != true {
                bail!("{kiosk}: {}", text(Some(&answer), "reason").unwrap_or("the test failed"));
            }
            let [loudness, delay, back] =
                ["loudness_db", "delay_ms", "echo_return_db"].map(|name| answer[name].clone());
            say(
                out,
                &format!(
                    "{kiosk}: heard at {loudness} dB of full scale after {delay} ms, {back} dB of what was played"
                ),
            )
        }
        Command::Show { kiosk } => {
            let view = look(&mut operator).await?;
            if let Some(kiosk) = kiosk {
                ensure_known(&view, kiosk)?;
            }
            say(out, view.table(kiosk.as_deref()).trim_end())
        }
        command => {
            let mut view = look(&mut operator).await?;
            let mut changes = plan(command, &view)?;
            let revs = revise(&mut changes);
            for (kiosk, document) in &changes {
                let payload =
                    document.as_ref().map_or_else(Vec::new, |document| document.to_string().into_bytes());
                operator.publish_retained(&format!("{kiosk}/desired"), payload).await?;
            }
            confirm(&mut operator, &mut view, revs, patience, out).await
        }
    }
}

/// A kiosk's new document by its id; `None`: cleared.
type Changes = BTreeMap<String, Option<Value>>;

/// What a command does to the documents. Pure.
fn plan(command: &Command, view: &View) -> anyhow::Result<Changes> {
    match command {
        Command::Room { name, members } => make_room(view, name, members),
        Command::Add { room, members } => add(view, room, members),
        Command::Remove { room, members } => remove(view, room, members),
        Command::Camera { kiosk, position } => change(view, kiosk, |document| {
            let listed = document::set_camera(document, kiosk, position);
            ensure!(listed, "{kiosk} is not a member of its own room, so it shows no camera");
            Ok(())
        }),
        Command::Fit { kiosk, fit, member: None } => change(view, kiosk, |document| {
            document::set_fit_of_all(document, fit);
            Ok(())
        }),
        Command::Fit { kiosk, fit, member: Some(member) } => change(view, kiosk, |document| {
            let listed = document::set_fit_of(document, member, fit);
            ensure!(listed, "{kiosk} shows no {member}: {}", document::members(document).join(", "));
            Ok(())
        }),
        Command::Mute { kiosk, device, muted } => change(view, kiosk, |document| {
            document::set_mute(document, device, muted == "on");
            Ok(())
        }),
        Command::Layout { kiosk, layout } => change(view, kiosk, |document| {
            document::set_layout(document, layout);
            Ok(())
        }),
        Command::Leave { kiosk } => {
            ensure_known(view, kiosk)?;
            Ok(Changes::from([(kiosk.clone(), None)]))
        }
        Command::Snapshot { .. }
        | Command::Identify { .. }
        | Command::Selftest { .. }
        | Command::Watch { .. }
        | Command::Show { .. } => Ok(Changes::new()),
    }
}

fn make_room(view: &View, room: &str, members: &[Member]) -> anyhow::Result<Changes> {
    let mut changes: Changes = view.in_room(room).into_iter().map(|kiosk| (kiosk, None)).collect();
    for (index, member) in members.iter().enumerate() {
        let twice = members[..index].iter().any(|earlier| earlier.id == member.id);
        ensure!(!twice, "{} is named twice", member.id);
        let mut document = desired(view, &member.id).cloned().unwrap_or_default();
        document::set_room(&mut document, room, members);
        changes.insert(member.id.clone(), Some(document));
    }
    Ok(changes)
}

fn add(view: &View, room: &str, members: &[Member]) -> anyhow::Result<Changes> {
    let kiosks = view.in_room(room);
    let host = kiosks.first().and_then(|kiosk| desired(view, kiosk));
    let host = host.with_context(|| format!("nobody is in the room {room}; {}", view.rooms()))?;
    let mut everyone = document::invitation(host);
    for member in members {
        everyone.retain(|other| other.id != member.id);
        everyone.push(member.clone());
    }
    let mut changes = Changes::new();
    for kiosk in &kiosks {
        let mut document = desired(view, kiosk).cloned().unwrap_or_default();
        for member in members {
            document::add_member(&mut document, member);
        }
        changes.insert(kiosk.clone(), Some(document));
    }
    for member in members.iter().filter(|member| !kiosks.contains(&member.id)) {
        let mut document = desired(view, &member.id).cloned().unwrap_or_default();
        document::set_room(&mut document, room, &everyone);
        changes.insert(member.id.clone(), Some(document));
    }
    Ok(changes)
}

fn remove(view: &View, room: &str, members: &[String]) -> anyhow::Result<Changes> {
    let kiosks = view.in_room(room);
    ensure!(!kiosks.is_empty(), "nobody is in the room {room}; {}", view.rooms());
    let mut changes = Changes::new();
    for id in members {
        let mut listed = kiosks.contains(id);
        for kiosk in &kiosks {
            let document = changes.entry(kiosk.clone()).or_insert_with(|| desired(view, kiosk).cloned());
            listed |= document.as_mut().is_some_and(|document| document::remove_member(document, id));
        }
        let others = || desired(view, &kiosks[0]).map(document::members).unwrap_or_default().join(", ");
        ensure!(listed, "{id} is not in the room {room}; its members are {}", others());
    }
    for id in members.iter().filter(|id| kiosks.contains(id)) {
        changes.insert(id.clone(), None);
    }
    Ok(changes)
}

/// Changes the document of one kiosk that is in a room.
fn change(
    view: &View,
    kiosk: &str,
    edit: impl FnOnce(&mut Value) -> anyhow::Result<()>,
) -> anyhow::Result<Changes> {
    ensure_known(view, kiosk)?;
    let document = desired(view, kiosk).with_context(|| format!("{kiosk} is in no room"))?;
    let mut document = document.clone();
    edit(&mut document)?;
    Ok(Changes::from([(kiosk.to_owned(), Some(document))]))
}

fn desired<'a>(view: &'a View, kiosk: &str) -> Option<&'a Value> {
    view.kiosks.get(kiosk)?.desired.as_ref()
}

fn ensure_known(view: &View, kiosk: &str) -> anyhow::Result<()> {
    ensure!(view.kiosks.contains_key(kiosk), "there is no kiosk {kiosk}; {}", view.known());
    Ok(())
}

/// Gives every document its next `rev`; answers what each kiosk has to report (`None`: no room).
fn revise(changes: &mut Changes) -> BTreeMap<String, Option<Value>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let rev =
        |document: &mut Option<Value>| document.as_mut().map(|document| document::revise(document, now_ms));
    changes.iter_mut().map(|(kiosk, document)| (kiosk.clone(), rev(document))).collect()
}

/// Reads what is retained, and keeps listening for the answers to come.
async fn look(operator: &mut Operator) -> anyhow::Result<View> {
    let topics = ["+/desired", "+/reported", "+/state", "+/error"].map(str::to_owned);
    operator.subscribe(&topics).await?;
    let mut view = View::default();
    for message in operator.retained().await? {
        view.apply(&message);
    }
    Ok(view)
}

/// Waits until each kiosk reports its `rev`, a line each; fails if one does not.
async fn confirm(
    operator: &mut Operator,
    view: &mut View,
    mut open: BTreeMap<String, Option<Value>>,
    patience: Duration,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    let mut failed = 0;
    loop {
        for (kiosk, rev) in std::mem::take(&mut open) {
            let line = match view.outcome(&kiosk, rev.as_ref()) {
                Outcome::Open => {
                    open.insert(kiosk, rev);
                    continue;
                }
                Outcome::Shown if rev.is_none() => format!("{kiosk}: has left"),
                Outcome::Shown => format!("{kiosk}: done"),
                Outcome::Rejected(parts) => {
                    failed += 1;
                    format!("{kiosk}: rejected {parts}")
                }
                Outcome::Offline if rev.is_none() => {
                    format!("{kiosk}: offline; it has no room when it comes back")
                }
                Outcome::Offline => {
                    failed += 1;
                    format!("{kiosk}: offline; the document waits for it")
                }
            };
            say(out, &line)?;
        }
        if open.is_empty() {
            break;
        }
        let Some(message) = operator.next(deadline).await? else { break };
        if let Some((kiosk, line)) = refusal(&message)
            && open.remove(kiosk).is_some()
        {
            failed += 1;
            say(out, &line)?;
        }
        view.apply(&message);
    }
    for kiosk in open.keys() {
        let seen = view.kiosks.get(kiosk).is_some_and(|kiosk| kiosk.state.is_some());
        let why = if seen { "" } else { " (never seen; the document waits for it)" };
        say(out, &format!("{kiosk}: no answer within {} s{why}", patience.as_secs()))?;
    }
    match failed + open.len() {
        0 => Ok(()),
        1 => bail!("one kiosk does not show what it was told"),
        failed => bail!("{failed} kiosks do not show what they were told"),
    }
}

/// A document that was refused as a whole leaves `reported` as it was; the error record tells.
fn refusal(message: &Message) -> Option<(&str, String)> {
    let kiosk = message.topic.strip_suffix("/error")?;
    let record: Value = serde_json::from_slice(&message.payload).ok()?;
    let code = text(Some(&record), "code").filter(|code| code.starts_with("DOCUMENT_"))?;
    let detail = [text(Some(&record), "pointer"), text(Some(&record), "hint")];
    let detail = detail.into_iter().flatten().collect::<Vec<_>>().join(" ");
    Some((kiosk, format!("{kiosk}: rejected {code} {detail}").trim_end().to_owned()))
}

/// The screen as a PNG.
async fn snapshot(
    operator: &mut Operator,
    view: &View,
    kiosk: &str,
    width: Option<u32>,
    patience: Duration,
) -> anyhow::Result<Bytes> {
    let arguments = width.map_or_else(|| "{}".to_owned(), |width| format!(r#"{{"width":{width}}}"#));
    let reply = request(operator, view, kiosk, "snapshot", arguments.into_bytes(), patience).await?;
    ensure!(reply.starts_with(PNG), "{kiosk} answered no PNG: {}", String::from_utf8_lossy(&reply));
    Ok(reply)
}

/// Sends a command and waits for its reply. An answer with a `code` is an error.
async fn request(
    operator: &mut Operator,
    view: &View,
    kiosk: &str,
    verb: &str,
    arguments: Vec<u8>,
    patience: Duration,
) -> anyhow::Result<Bytes> {
    ensure_known(view, kiosk)?;
    let state = text(view.kiosks.get(kiosk).and_then(|kiosk| kiosk.state.as_ref()), "state");
    ensure!(state != Some("offline"), "{kiosk} is offline");
    operator.subscribe(&[operator.reply_topic(kiosk)]).await?;
    let token = operator.command(kiosk, verb, arguments).await?;
    let topic = operator.reply_topic(kiosk);
    let deadline = Instant::now() + patience;
    loop {
        let message = operator.next(deadline).await?;
        let message =
            message.with_context(|| format!("{kiosk} did not answer within {} s", patience.as_secs()))?;
        if message.topic != topic || message.correlation.as_ref() != Some(&token) {
            continue;
        }
        let answer: Option<Value> = serde_json::from_slice(&message.payload).ok();
        if let Some(code) = text(answer.as_ref(), "code") {
            bail!("{kiosk} refused: {code} {}", String::from_utf8_lossy(&message.payload));
        }
        return Ok(message.payload);
    }
}

async fn watch(
    operator: &mut Operator,
    kiosk: Option<&str>,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let kiosk = kiosk.unwrap_or("+");
    let topics = ["error", "fault/+", "event", "state"].map(|topic| format!("{kiosk}/{topic}"));
    operator.subscribe(&topics).await?;
    loop {
        let an_hour = Instant::now() + Duration::from_secs(3600);
        tokio::select! {
            message = operator.next(an_hour) => {
                if let Some(line) = message?.as_ref().and_then(describe) {
                    say(out, &format!("{} {line}", time_of_day()))?;
                }
            }
            interrupted = tokio::signal::ctrl_c() => return interrupted.context("wait for an interrupt"),
        }
    }
}

/// `20:41:07Z`.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:02}:{:02}:{:02}Z", now / 3600 % 24, now / 60 % 60, now % 60)
}

fn say(out: &mut (dyn Write + Send), line: &str) -> anyhow::Result<()> {
    writeln!(out, "{line}").context("write to the terminal")
}

fn id(text: &str) -> Result<String, String> {
    match MemberId::parse(text) {
        Some(id) => Ok(id.as_str().to_owned()),
        None => Err("an id is 1 to 64 of A-Z a-z 0-9 _ -".into()),
    }
}

fn member(text: &str) -> Result<Member, String> {
    let (text, name) = match text.split_once('=') {
        Some((text, name)) => (text, Some(name)),
        None => (text, None),
    };
    if name.is_some_and(|name| name.is_empty() || name.len() > LONGEST_NAME) {
        return Err(format!("a name is 1 to {LONGEST_NAME} bytes of UTF-8"));
    }
    Ok(Member { id: id(text)?, name: name.map(str::to_owned) })
}

fn prefix(text: &str) -> Result<String, String> {
    match text.trim_end_matches('/') {
        "" => Err("empty".into()),
        text if text.contains(['+', '#']) => Err("no + and no # in a prefix".into()),
        text => Ok(text.to_owned()),
    }
}
