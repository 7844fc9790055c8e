//! What composing costs: nanoseconds of CPU time per written pixel, median of 9 rounds of 100 pictures (Linux only).
//! With a directory as argument it draws sample screens there instead; a second argument is a font file.

use parlor::geometry::{Fit, Orientation, Rect, Rotation, Size};
use parlor::media::canvas::{Canvas, PixelLayout, Rgb};
use parlor::media::compose::{Compositor, Shot};
use parlor::media::frame::Frame;
use parlor::media::glazing::fill;
use parlor::media::overlay::Overlay;
use parlor::media::signs::{self, Badge};
use parlor::media::text::Fonts;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first() {
        Some(directory) => samples(Path::new(directory), arguments.get(1)),
        None => costs(),
    }
}

fn costs() -> Result<(), Box<dyn Error>> {
    let frame = gradient(Size::new(640, 480));
    for (name, layout) in [("XRGB8888", PixelLayout::XRGB8888), ("RGB565", PixelLayout::RGB565)] {
        for rotation in [Rotation::None, Rotation::Quarter] {
            for tile in [Size::new(960, 540), Size::new(480, 270)] {
                let mut canvas = Canvas::new(rotation.size(Size::new(1920, 1080)), layout, rotation);
                let mut compositor = Compositor::default();
                let area = Rect::new(480, 270, tile.width, tile.height);
                let mut times = Vec::new();
                for _ in 0..9 {
                    let begin = cpu_nanoseconds()?;
                    for _ in 0..100 {
                        compositor.draw(&mut canvas.surface(), area, &Shot::of(&frame), &[]);
                    }
                    times.push(cpu_nanoseconds()? - begin);
                }
                times.sort_unstable();
                let each = times[times.len() / 2] as f64 / (100 * tile.area()) as f64;
                println!("640x480 -> {tile} {name} {rotation:?}: {each:.2} ns per pixel");
            }
        }
    }
    Ok(())
}

/// CPU time of this thread (kernel: scheduler/sched-stats); some kernels count whole ticks, hence rounds of many.
fn cpu_nanoseconds() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("empty schedstat")?.parse()?)
}

fn gradient(size: Size) -> Frame {
    let mut frame = Frame::new(size);
    let width = size.width as usize;
    let [y, u, v] = frame.planes_mut();
    for (at, sample) in y.iter_mut().enumerate() {
        *sample = (60 + at % width * 120 / width + (at / width / 16 % 2) * 20) as u8;
    }
    for (at, (u, v)) in u.iter_mut().zip(v).enumerate() {
        (*u, *v) = ((90 + at % (width / 2) * 80 / width) as u8, (170 - at / width * 200 / width) as u8);
    }
    frame
}

fn samples(directory: &Path, font: Option<&String>) -> Result<(), Box<dyn Error>> {
    let mut fonts = match font {
        Some(path) => Fonts::new(std::fs::read(path)?.into())?,
        None => Fonts::built_in(),
    };
    let mut compositor = Compositor::default();
    for (name, size) in [("grid", Size::new(1920, 1080)), ("grid-small", Size::new(320, 180))] {
        let mut canvas = Canvas::new(size, PixelLayout::XRGB8888, Rotation::None);
        let (w, h) = (size.width / 2, size.height / 2);
        let picture = gradient(Size::new(640, 480));
        for (index, fit) in [Fit::Cover, Fit::Contain].into_iter().enumerate() {
            let area = Rect::new(index as u32 * w, 0, w, h);
            let mirrored = Orientation { mirror: true, ..Orientation::default() };
            let background = signs::palette::GROUND;
            let shot = Shot { fit, orientation: mirrored, background, ..Shot::of(&picture) };
            compositor.draw(&mut canvas.surface(), area, &shot, &[]);
            signs::label(&mut canvas, &mut fonts, area, ["Lobby – entrance west", "王医生"][index]);
        }
        signs::badges(&mut canvas, Rect::new(w, 0, w, h), &[Badge::MicrophoneOff, Badge::CameraOff]);
        signs::placeholder(&mut canvas, &mut fonts, Rect::new(0, h, w, h), "ward-3", "Connecting …");
        let reason = "摄像头已断开,重新连接后将自动恢复。The camera was unplugged; it is opened again when it returns.";
        signs::placeholder(&mut canvas, &mut fonts, Rect::new(w, h, w, h), "李娜 Li Na", reason);
        if size.width > 1000 {
            let area = signs::notice_area(size);
            let notice = Overlay::of(size, Rotation::None, area, |strip| {
                signs::notice(strip, &mut fonts, "No connection to the broker since 12:04");
            });
            fill(&mut canvas.surface(), area, signs::palette::GROUND, &[&notice]);
        }
        save(&directory.join(format!("media-{name}.png")), &canvas)?;
    }
    let mut canvas = Canvas::new(Size::new(1280, 720), PixelLayout::RGB565, Rotation::None);
    signs::idle(&mut canvas, &mut fonts, "lobby-west", "Waiting for a room  等待会议");
    save(&directory.join("media-idle.png"), &canvas)?;
    signs::identify(&mut canvas, &mut fonts, "lobby-west", "192.0.2.17");
    save(&directory.join("media-identify.png"), &canvas)
}

fn save(path: &Path, canvas: &Canvas) -> Result<(), Box<dyn Error>> {
    let layout = canvas.layout();
    let mut pixels = Vec::new();
    for bytes in canvas.data().chunks_exact(layout.bytes_per_pixel) {
        let mut value = [0; 4];
        value[..bytes.len()].copy_from_slice(bytes);
        let Rgb { red, green, blue } = layout.unpack(u32::from_le_bytes(value));
        pixels.extend([red, green, blue]);
    }
    let size = canvas.physical_size();
    let mut encoder = png::Encoder::new(std::fs::File::create(path)?, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}
