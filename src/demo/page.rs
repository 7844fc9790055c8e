//! The live page: each screen as a stream of JPEG pictures, made only while somebody looks.

use crate::media::snapshot::Picture;
use crate::sim::screen::Glass;
use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Pixels across of a screen on the page.
const WIDTH: u32 = 640;
/// Time between two pictures.
const PERIOD: Duration = Duration::from_millis(66);
const QUALITY: u8 = 80;

type Glasses = Arc<BTreeMap<String, Glass>>;

/// Serves the page on loopback from now on, at `port` or the next free one. Says its address.
///
/// # Errors
/// None of a hundred ports is free.
pub async fn serve(port: u16, glasses: Vec<(String, Glass)>) -> anyhow::Result<String> {
    let order: Vec<_> = glasses.iter().map(|(id, _)| id.clone()).collect();
    let page = page(&order);
    let app = Router::new()
        .route("/", get(move || std::future::ready(Html(page.clone()))))
        .route("/screen/:id", get(screen))
        .with_state(Arc::new(glasses.into_iter().collect::<BTreeMap<_, _>>()));
    let listener = listen(port).await?;
    let address = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    for port in port..port.saturating_add(100) {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("no free port from {port} on"))
}

fn page(ids: &[String]) -> String {
    let screens: String = ids
        .iter()
        .map(|id| format!("<figure><img src=\"/screen/{id}\" alt=\"screen of {id}\"><figcaption>{id}</figcaption></figure>"))
        .collect();
    format!(
        "<!doctype html><meta charset=utf-8><title>Parlor demo</title>\
         <style>body{{margin:2vmin;background:#101418;color:#c8d0d8;font:16px sans-serif;display:grid;\
         grid-template-columns:repeat(auto-fit,minmax(560px,1fr));gap:2vmin}}figure{{margin:0}}\
         img{{width:100%;display:block;border-radius:6px}}figcaption{{padding:.4em 0}}</style>{screens}"
    )
}

/// One screen as `multipart/x-mixed-replace`.
async fn screen(Path(id): Path<String>, State(glasses): State<Glasses>) -> Response {
    let Some(glass) = glasses.get(&id).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (pictures, stream) = tokio::sync::mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let mut changes = glass.changes();
        loop {
            let glass = glass.clone();
            let Ok(Some(part)) = tokio::task::spawn_blocking(move || part(&glass)).await else { return };
            // Who looks slowly gets fewer pictures; who left ends it.
            if pictures.send(part).await.is_err() {
                return;
            }
            tokio::time::sleep(PERIOD).await;
            let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
        }
    });
    let stream = Parts(stream);
    ([(header::CONTENT_TYPE, "multipart/x-mixed-replace; boundary=picture")], Body::from_stream(stream))
        .into_response()
}

fn part(glass: &Glass) -> Option<Bytes> {
    let picture = glass.look(|canvas| Picture::of(canvas, WIDTH));
    let (width, height) = (picture.size.width as u16, picture.size.height as u16);
    let mut part = b"--picture\r\nContent-Type: image/jpeg\r\n\r\n".to_vec();
    let encoder = jpeg_encoder::Encoder::new(&mut part, QUALITY);
    encoder.encode(&picture.rgb, width, height, jpeg_encoder::ColorType::Rgb).ok()?;
    part.extend_from_slice(b"\r\n");
    Some(part.into())
}

/// The parts as the stream that a body wants.
struct Parts(tokio::sync::mpsc::Receiver<Bytes>);

impl futures_core::Stream for Parts {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|part| part.map(Ok))
    }
}
