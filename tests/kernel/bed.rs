//! The virtual machine around the test: its display, its cameras' controls, which screen it has.

use parlor::geometry::{Rect, Size};
use parlor::media::canvas::{Canvas, Rgb};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The longest wait for anything: emulation on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The screen this machine was started with (`board/testbed/run -d`).
pub fn display() -> String {
    std::env::var("PARLOR_DISPLAY").expect("these tests are run by board/testbed/test-kernel")
}

/// The folder that outlives the machine.
pub fn out() -> PathBuf {
    std::env::var_os("OUT").expect("these tests are run by board/testbed/test-kernel").into()
}

/// Sets controls of a camera, as `v4l2-ctl -c`; the test patterns of vivid among them.
pub fn control(node: &str, controls: &str) {
    let done =
        Command::new("v4l2-ctl").args(["-d", node, "-c", controls]).output().expect("v4l2-ctl is there");
    assert!(done.status.success(), "{controls} on {node}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Patterns of vivid (`v4l2-ctl --list-ctrls-menus`).
pub const COLOUR_BARS: u32 = 0;
pub const HORIZONTAL_BARS: u32 = 3;
pub const COLOUR_SQUARES: u32 = 4;
pub const RED: u32 = 7;
pub const GREEN: u32 = 8;
pub const BLUE: u32 = 9;

/// Lets a camera show a pattern that stands still, without text on it.
pub fn pattern(node: &str, pattern: u32) {
    control(node, &format!("test_pattern={pattern},osd_text_mode=2"));
}

/// A picture of the glass.
#[derive(Clone, PartialEq)]
pub struct Picture {
    pub size: Size,
    /// Red, green, blue; rows without padding.
    pixels: Vec<u8>,
}

impl Picture {
    /// What is on the glass now.
    pub fn of_glass() -> Self {
        let path = out().join("glass.ppm");
        qmp("screendump", &format!(r#"{{"filename":"{}"}}"#, path.display()));
        let picture = Self::read(&path);
        fs::remove_file(&path).expect("the picture can be removed");
        picture
    }

    /// What a screen shows of a canvas.
    pub fn of(canvas: &Canvas) -> Self {
        let layout = canvas.layout();
        let pixels = canvas
            .data()
            .chunks_exact(layout.bytes_per_pixel)
            .flat_map(|bytes| {
                let mut word = [0; 4];
                word[..bytes.len()].copy_from_slice(bytes);
                let Rgb { red, green, blue } = layout.unpack(u32::from_le_bytes(word));
                [red, green, blue]
            })
            .collect();
        Self { size: canvas.physical_size(), pixels }
    }

    pub fn at(&self, x: u32, y: u32) -> Rgb {
        let index = 3 * (y as usize * self.size.width as usize + x as usize);
        Rgb::new(self.pixels[index], self.pixels[index + 1], self.pixels[index + 2])
    }

    /// A binary PPM, as QEMU writes it: `P6`, size, 255, each followed by one white space.
    fn read(path: &Path) -> Self {
        let file = fs::read(path).expect("QEMU wrote the picture");
        let mut lines = file.splitn(4, |&byte| byte == b'\n');
        let mut line = || lines.next().expect("a PPM has three lines and pixels");
        assert_eq!(line(), b"P6");
        let size = String::from_utf8_lossy(line()).into_owned();
        let (width, height) = size.split_once(' ').expect("width and height");
        let size = Size::new(width.parse().expect("a width"), height.parse().expect("a height"));
        assert_eq!(line(), b"255");
        let pixels = line().to_vec();
        assert_eq!(pixels.len() as u64, size.area() * 3);
        Self { size, pixels }
    }
}

/// Waits until `finished` likes what is on the glass; panics with its complaint when it never does.
pub fn await_glass(mut finished: impl FnMut(&Picture) -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let glass = Picture::of_glass();
        let Err(complaint) = finished(&glass) else { return };
        if Instant::now() > deadline {
            let path = out().join("glass-failed.ppm");
            let header = format!("P6\n{} {}\n255\n", glass.size.width, glass.size.height);
            fs::write(&path, [header.as_bytes(), &glass.pixels].concat()).expect("the failure can be kept");
            panic!("{complaint} (see {})", path.display());
        }
    }
}

/// Waits until the glass is the canvas, pixel by pixel.
pub fn await_canvas(canvas: &Canvas) {
    let wanted = Picture::of(canvas);
    await_glass(|glass| differences(glass, &wanted));
}

fn differences(glass: &Picture, wanted: &Picture) -> Result<(), String> {
    if glass.size != wanted.size {
        return Err(format!("the glass is {} and not {}", glass.size, wanted.size));
    }
    let pairs = glass.pixels.chunks_exact(3).zip(wanted.pixels.chunks_exact(3));
    let wrong =
        pairs.enumerate().filter(|(_, (glass, wanted))| glass != wanted).map(|(index, _)| index as u32);
    let wrong = wrong.collect::<Vec<_>>();
    let Some(first) = wrong.first() else { return Ok(()) };
    let (x, y) = (first % glass.size.width, first / glass.size.width);
    Err(format!(
        "{} pixels differ, the first at {x},{y}: {:?} and not {:?}",
        wrong.len(),
        glass.at(x, y),
        wanted.at(x, y)
    ))
}

/// A canvas on which every pixel tells where it is, as far as 16 bits can.
pub fn test_canvas(mut canvas: Canvas, seed: u32) -> Canvas {
    let whole = Rect::of(canvas.physical_size());
    paint(&mut canvas, whole, |x, y| {
        Rgb::new((x + seed) as u8, (y * 3 + seed) as u8, ((x ^ y) * 5 + seed * 7) as u8)
    });
    canvas
}

/// Writes the pixels of a physical rectangle.
pub fn paint(canvas: &mut Canvas, area: Rect, colour: impl Fn(u32, u32) -> Rgb) {
    let (layout, stride) = (canvas.layout(), canvas.stride());
    for y in area.y..area.bottom() {
        for x in area.x..area.right() {
            let at = y as usize * stride + x as usize * layout.bytes_per_pixel;
            let pixel = layout.pack(colour(x, y)).to_le_bytes();
            canvas.data_mut()[at..at + layout.bytes_per_pixel]
                .copy_from_slice(&pixel[..layout.bytes_per_pixel]);
        }
    }
}

/// A command to the machine this test runs in (QEMU Machine Protocol over a virtio port).
pub fn qmp(command: &str, arguments: &str) {
    let mut port = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/virtio-ports/qmp")
        .expect("the machine has a port to its monitor");
    let answers = BufReader::new(port.try_clone().expect("a descriptor is left")).lines();
    // The first is an error when it was said before, and just as good.
    for line in [
        r#"{"execute":"qmp_capabilities"}"#.to_owned(),
        format!(r#"{{"execute":"{command}","arguments":{arguments},"id":"this"}}"#),
    ] {
        port.write_all(line.as_bytes()).and_then(|()| port.write_all(b"\n")).expect("the monitor listens");
    }
    let answer = answers
        .map(|line| line.expect("the monitor answers"))
        .find(|line| line.contains(r#""id": "this""#))
        .expect("the monitor stays");
    assert!(!answer.contains(r#""error""#), "{command}: {answer}");
}
