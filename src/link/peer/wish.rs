//! What each side needs of the other's pictures: said over a data channel, the latest counts.

use super::{Endless, Session, short};
use crate::room::wish::{LABEL, LONGEST, Wish};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::debug;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelState};

/// Between two messages of ours.
const INTERVAL: Duration = Duration::from_millis(100);

/// Our wish and theirs, as the handle and the task see them.
#[derive(Default)]
pub struct Wishes {
    ours: watch::Sender<Option<Wish>>,
    theirs: Mutex<Option<Wish>>,
}

impl Wishes {
    pub fn say(&self, wish: Wish) {
        self.ours.send_if_modified(|ours| ours.replace(wish) != Some(wish));
    }

    pub fn theirs(&self) -> Option<Wish> {
        *self.theirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, wish: Wish) {
        *self.theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(wish);
    }
}

impl Session {
    /// Opens the channel, which is to be in our offer.
    pub(super) async fn channel_for_wishes(&self) -> anyhow::Result<Arc<dyn DataChannel>> {
        Ok(self.connection.create_data_channel(LABEL, None).await?)
    }

    /// Tells the other side our wish, and hears its. A side that opens no such channel says and hears nothing.
    pub(super) async fn agree(
        &self,
        own: Option<Arc<dyn DataChannel>>,
        mut offered: mpsc::Receiver<Arc<dyn DataChannel>>,
    ) -> Endless {
        let channel = match own {
            Some(channel) => channel,
            None => loop {
                let Some(channel) = offered.recv().await else { std::future::pending().await };
                if channel.label().await.is_ok_and(|label| label == LABEL) {
                    break channel;
                }
            },
        };
        let mut wish = self.shared.wishes.ours.subscribe();
        wish.mark_changed();
        let mut open = channel.ready_state().await.is_ok_and(|state| state == RTCDataChannelState::Open);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                event = channel.poll() => match event {
                    Some(DataChannelEvent::OnOpen) => open = true,
                    Some(DataChannelEvent::OnMessage(message)) => match Wish::read(&message.data) {
                        Some(wish) => self.shared.wishes.heard(wish),
                        None => debug!(bytes = message.data.len(), most = LONGEST, "not a wish"),
                    },
                    Some(DataChannelEvent::OnClose) | None => return std::future::pending().await,
                    Some(_) => {}
                },
                () = due(&mut wish, next), if open => {
                    let Some(ours) = *wish.borrow_and_update() else { continue };
                    next = Instant::now() + INTERVAL;
                    // Full or closing: it is said again with the next change, or by the next connection.
                    if let Err(error) = channel.try_send_text(&ours.write()).await {
                        debug!(error = short(&error.into()), "say a wish");
                    }
                }
            }
        }
    }
}

/// When our wish has changed, and not before `next`.
async fn due(wish: &mut watch::Receiver<Option<Wish>>, next: Instant) {
    // As long as the session lives somebody can change it.
    if wish.has_changed().is_ok_and(|changed| !changed) {
        let _ = wish.changed().await;
        wish.mark_changed();
    }
    tokio::time::sleep_until(next).await;
}
