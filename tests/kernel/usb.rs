//! A USB camera played by the test: what speaks usbredir's protocol at a virtio port is plugged into the machine by QEMU's
//! `usb-redir` device, on a controller of 12 Mbit/s, and driven by the kernel's uvcvideo.
//!
//! Sources: usbredir protocol 0.7, without capabilities; USB 2.0 chapter 9; USB Video Class 1.0 (descriptors, probe and
//! commit, payload header).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const WIDTH: u16 = 160;
const HEIGHT: u16 = 120;
const PICTURE: u32 = WIDTH as u32 * HEIGHT as u32 * 2;
/// Pictures a second, and what lies between two, in 100 ns.
const RATE_HZ: u32 = 5;
const INTERVAL: u32 = 10_000_000 / RATE_HZ;
/// The most an isochronous endpoint carries in a millisecond at this speed: two of them are more than the bus has.
const PACKET: u16 = 1023;
const ENDPOINT: u8 = 0x81;

// Types of usbredir's packets.
const HELLO: u32 = 0;
const DEVICE_CONNECT: u32 = 1;
const DEVICE_DISCONNECT: u32 = 2;
const INTERFACE_INFO: u32 = 4;
const EP_INFO: u32 = 5;
const SET_CONFIGURATION: u32 = 6;
const GET_CONFIGURATION: u32 = 7;
const CONFIGURATION_STATUS: u32 = 8;
const SET_ALT_SETTING: u32 = 9;
const GET_ALT_SETTING: u32 = 10;
const ALT_SETTING_STATUS: u32 = 11;
const START_ISO_STREAM: u32 = 12;
const STOP_ISO_STREAM: u32 = 13;
const ISO_STREAM_STATUS: u32 = 14;
const CONTROL_PACKET: u32 = 100;
const ISO_PACKET: u32 = 102;

const SUCCESS: u8 = 0;
const STALL: u8 = 4;
const FULL_SPEED: u8 = 1;

/// A camera at a cable. The cable's end in the machine is held until the test's process ends.
pub struct UsbCamera(Arc<Camera>);

impl UsbCamera {
    /// Plugs a camera of this product number into `usb1` or `usb2`.
    pub fn plugged(port: &str, product: u16) -> Self {
        let path = format!("/dev/virtio-ports/{port}");
        let port = OpenOptions::new().read(true).write(true).open(path).expect("the machine has such a port");
        let camera = Arc::new(Camera {
            port: Mutex::new(port.try_clone().expect("a descriptor is left")),
            product,
            alternate: AtomicU8::new(0),
            streams: AtomicBool::new(false),
        });
        let (hears, feeds) = (camera.clone(), camera.clone());
        thread::spawn(move || hears.hear(port).expect("QEMU speaks usbredir"));
        thread::spawn(move || feeds.feed().expect("QEMU takes pictures"));
        Self(camera)
    }

    pub fn unplug(&self) {
        self.0.streams.store(false, Relaxed);
        self.0.alternate.store(0, Relaxed);
        self.0.send(DEVICE_DISCONNECT, 0, &[]).expect("QEMU listens");
    }

    pub fn plug(&self) {
        self.0.connect().expect("QEMU listens");
    }

    /// The name that the kernel gives it.
    pub fn card(product: u16) -> String {
        format!("UVC Camera (1209:{product:04x})")
    }
}

struct Camera {
    port: Mutex<File>,
    product: u16,
    /// The streaming interface's alternate setting.
    alternate: AtomicU8,
    streams: AtomicBool,
}

impl Camera {
    fn send(&self, kind: u32, id: u32, body: &[u8]) -> io::Result<()> {
        let header = [kind, body.len() as u32, id].map(u32::to_le_bytes).concat();
        self.port.lock().expect("nobody panics").write_all(&[&header, body].concat())
    }

    /// Does what QEMU asks for.
    fn hear(&self, mut port: File) -> io::Result<()> {
        let mut version = [0; 64];
        version[..6].copy_from_slice(b"parlor");
        self.send(HELLO, 0, &[&version[..], &[0; 4]].concat())?;
        loop {
            let mut header = [0; 12];
            port.read_exact(&mut header)?;
            let [kind, length, id] =
                [0, 4, 8].map(|at| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")));
            let mut body = vec![0; length as usize];
            port.read_exact(&mut body)?;
            match kind {
                HELLO => self.connect()?,
                SET_CONFIGURATION | GET_CONFIGURATION => {
                    self.send(CONFIGURATION_STATUS, id, &[SUCCESS, 1])?
                }
                SET_ALT_SETTING | GET_ALT_SETTING => {
                    if kind == SET_ALT_SETTING && body[0] == 1 {
                        self.alternate.store(body[1], Relaxed);
                        self.say_endpoints()?;
                    }
                    let alternate = if body[0] == 1 { self.alternate.load(Relaxed) } else { 0 };
                    self.send(ALT_SETTING_STATUS, id, &[SUCCESS, body[0], alternate])?;
                }
                START_ISO_STREAM | STOP_ISO_STREAM => {
                    self.streams.store(kind == START_ISO_STREAM, Relaxed);
                    self.send(ISO_STREAM_STATUS, id, &[SUCCESS, ENDPOINT])?;
                }
                CONTROL_PACKET => self.control(id, body)?,
                // Reset, and what is of no interest to a camera.
                _ => {}
            }
        }
    }

    fn connect(&self) -> io::Result<()> {
        let mut interfaces = [0; 4 + 4 * 32];
        interfaces[0] = 2;
        for (number, subclass) in [(0, 1), (1, 2)] {
            for (field, value) in [(0, number as u8), (1, 0x0e), (2, subclass)] {
                interfaces[4 + 32 * field + number] = value;
            }
        }
        self.send(INTERFACE_INFO, 0, &interfaces)?;
        self.say_endpoints()?;
        let [low, high] = self.product.to_le_bytes();
        // Its class: interfaces say so. Vendor: pid.codes, product: for tests.
        self.send(DEVICE_CONNECT, 0, &[FULL_SPEED, 0xef, 2, 1, 0x09, 0x12, low, high])
    }

    fn say_endpoints(&self) -> io::Result<()> {
        let mut endpoints = [0; 3 * 32];
        endpoints[..32].fill(255);
        (endpoints[0], endpoints[16]) = (0, 0);
        if self.alternate.load(Relaxed) == 1 {
            // Isochronous, each millisecond, of the streaming interface.
            (endpoints[17], endpoints[32 + 17], endpoints[64 + 17]) = (1, 1, 1);
        }
        self.send(EP_INFO, 0, &endpoints)
    }

    /// Answers a control transfer: endpoint, request, its type, status, value, index, length, data.
    fn control(&self, id: u32, mut body: Vec<u8>) -> io::Result<()> {
        body.truncate(10);
        let word = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
        let (kind, request, value, length) = (body[2], body[1], word(4), word(8));
        let answer = match (kind, request, value >> 8) {
            (0x80, 6, 1) => Some(self.device()),
            (0x80, 6, 2) => Some(configuration()),
            (0x80, 0, _) | (0x81, 0, _) => Some(vec![0, 0]),
            // GET_INFO of probe and commit: can be read and set; GET_LEN; all other gets.
            (0xa1, 0x86, 1 | 2) => Some(vec![3]),
            (0xa1, 0x85, 1 | 2) => Some(vec![26, 0]),
            (0xa1, 0x81..=0x87, 1 | 2) => Some(probe()),
            (0x21, 1, 1 | 2) => Some(Vec::new()),
            _ => None,
        };
        body[3] = if answer.is_some() { SUCCESS } else { STALL };
        let mut answer = answer.unwrap_or_default();
        answer.truncate(length.into());
        if kind & 0x80 != 0 {
            body[8..10].copy_from_slice(&(answer.len() as u16).to_le_bytes());
        }
        self.send(CONTROL_PACKET, id, &[body, answer].concat())
    }

    fn device(&self) -> Vec<u8> {
        let [low, high] = self.product.to_le_bytes();
        vec![18, 1, 0, 2, 0xef, 2, 1, 64, 0x09, 0x12, low, high, 0, 1, 0, 0, 0, 1]
    }

    /// Sends green pictures while the stream runs.
    fn feed(&self) -> io::Result<()> {
        // Green of limited BT.601: Y, U, Y, V.
        let picture = [145, 54, 145, 34].repeat(PICTURE as usize / 4);
        let mut frame = 0;
        loop {
            thread::sleep(Duration::from_millis(1000 / u64::from(RATE_HZ)));
            frame ^= 1;
            let mut parts = picture.chunks(usize::from(PACKET) - 2).peekable();
            while let Some(part) = parts.next().filter(|_| self.streams.load(Relaxed)) {
                // Length of the header; end of header, end of frame, which of two frames.
                let last = if parts.peek().is_none() { 2 } else { 0 };
                let length = (part.len() as u16 + 2).to_le_bytes();
                let head = [ENDPOINT, SUCCESS, length[0], length[1], 2, 0x80 | last | frame];
                self.send(ISO_PACKET, 0, &[&head[..], part].concat())?;
            }
        }
    }
}

/// Probe and commit (UVC 1.0, table 4-47): nothing can be chosen.
fn probe() -> Vec<u8> {
    let mut probe = vec![0, 0, 1, 1];
    probe.extend(INTERVAL.to_le_bytes());
    probe.extend([0; 10]);
    probe.extend(PICTURE.to_le_bytes());
    probe.extend(u32::from(PACKET).to_le_bytes());
    probe
}

fn configuration() -> Vec<u8> {
    let [packet_low, packet_high] = PACKET.to_le_bytes();
    // YUY2 as a GUID.
    let guid = [0x59, 0x55, 0x59, 0x32, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];
    let format = [&[27, 0x24, 4, 1, 1][..], &guid, &[16, 1, 0, 0, 0, 0]].concat();
    let rate = (PICTURE * 8 * RATE_HZ).to_le_bytes();
    let frame = [
        &[30, 0x24, 5, 1, 0][..],
        &WIDTH.to_le_bytes(),
        &HEIGHT.to_le_bytes(),
        &rate,
        &rate,
        &PICTURE.to_le_bytes(),
        &INTERVAL.to_le_bytes(),
        &[1],
        &INTERVAL.to_le_bytes(),
    ]
    .concat();
    let colour = [6, 0x24, 13, 1, 1, 4];
    let formats = [&format[..], &frame, &colour].concat();
    let camera = [17, 0x24, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0];
    let output = [9, 0x24, 3, 2, 1, 1, 0, 1, 0];
    let control_length = (13 + camera.len() + output.len()) as u8;
    let stream_length = (14 + formats.len()) as u8;
    let rest = [
        // Both interfaces are one camera.
        &[8, 11, 0, 2, 0x0e, 3, 0, 0][..],
        // Control: no endpoint; the camera's way out.
        &[9, 4, 0, 0, 0, 0x0e, 1, 0, 0],
        &[13, 0x24, 1, 0, 1, control_length, 0, 0, 0x6c, 0xdc, 2, 1, 1],
        &camera,
        &output,
        // Streaming: without, and with its endpoint.
        &[9, 4, 1, 0, 0, 0x0e, 2, 0, 0],
        &[14, 0x24, 1, 1, stream_length, 0, ENDPOINT, 0, 2, 0, 0, 0, 1, 0],
        &formats,
        &[9, 4, 1, 1, 1, 0x0e, 2, 0, 0],
        &[7, 5, ENDPOINT, 5, packet_low, packet_high, 1],
    ]
    .concat();
    let total = (9 + rest.len() as u16).to_le_bytes();
    [&[9, 2, total[0], total[1], 2, 1, 0, 0x80, 50][..], &rest].concat()
}
