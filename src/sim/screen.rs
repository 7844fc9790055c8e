//! A screen in memory, seen through its [`Glass`]: by tests, by snapshots, by the live page of the demo.

use crate::device::{self, Error, ScreenMode};
use crate::geometry::{Rotation, Size};
use crate::media::canvas::{Canvas, PixelLayout, Surface};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Sees the glass after each change, before the screen goes on.
type Eye = Box<dyn FnMut(&Canvas) + Send>;

/// What can be seen on a simulated screen.
#[derive(Clone)]
pub struct Glass {
    shown: Arc<Mutex<Canvas>>,
    eye: Arc<Mutex<Option<Eye>>>,
    /// How often something new was shown.
    presented: Arc<watch::Sender<u64>>,
}

impl Glass {
    /// The glass of a dark screen; `rotation` is how it is mounted.
    pub fn new(size: Size, layout: PixelLayout, rotation: Rotation) -> Self {
        let shown = Arc::new(Mutex::new(Canvas::new(size, layout, rotation)));
        Self { shown, eye: Arc::default(), presented: Arc::new(watch::Sender::new(0)) }
    }

    /// Looks at the glass.
    pub fn look<T>(&self, eye: impl FnOnce(&Canvas) -> T) -> T {
        eye(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets `eye` see each change from now on, none left out; it replaces the one before it.
    pub fn watch(&self, eye: impl FnMut(&Canvas) + Send + 'static) {
        *self.eye.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(eye));
    }

    /// Tells that there was a change; who is slow hears of the last one only.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.presented.subscribe()
    }
}

/// A simulated screen: its pixels go to the glass.
pub struct Screen {
    mode: ScreenMode,
    glass: Glass,
}

impl Screen {
    pub fn open(glass: Glass) -> Self {
        let (size, layout) = glass.look(|canvas| (canvas.physical_size(), canvas.layout()));
        Self { mode: ScreenMode { name: "sim".into(), size, layout, flip: false }, glass }
    }
}

impl device::Screen for Screen {
    fn mode(&self) -> &ScreenMode {
        &self.mode
    }

    fn present(&mut self, paint: &mut dyn FnMut(usize, Surface<'_>)) -> Result<(), Error> {
        let mut shown = self.glass.shown.lock().unwrap_or_else(PoisonError::into_inner);
        paint(0, shown.surface());
        if let Some(eye) = &mut *self.glass.eye.lock().unwrap_or_else(PoisonError::into_inner) {
            eye(&shown);
        }
        drop(shown);
        self.glass.presented.send_modify(|presented| *presented += 1);
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
