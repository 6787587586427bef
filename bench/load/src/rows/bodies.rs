//! Large bodies down and up; a unit is a byte.

use std::io;
use std::net::SocketAddr;

use crate::args::Args;
use crate::http::{Wire, request};
use crate::meter::{Meter, spawn};

/// What an upload is written with.
const PART: usize = 256 << 10;
const BOUNDARY: &str = "----WebKitFormBoundaryq2w3e4r5t6y7u8i9";

/// Pictures of 4 MiB over `--connections`.
pub async fn download(args: &Args) -> io::Result<()> {
    async fn fetch(target: SocketAddr, number: u32, meter: Meter) -> io::Result<()> {
        let mut wire = Wire::connect(target).await?;
        let target = format!("/view?filename=a.png&type=output&clientId=view.{number}");
        let request = request("GET", &target, "", b"");
        loop {
            wire.write(&request).await?;
            let head = wire.head().await?;
            let head = head.filter(|head| head.status() == "200" && head.length != 0);
            let head = head.ok_or_else(|| io::Error::other("a picture was not answered"))?;
            wire.skip(head.length, |count| meter.add(count as u64)).await?;
        }
    }
    run(args, fetch).await
}

/// Pictures of 8 MiB over `--connections`.
pub async fn upload(args: &Args) -> io::Result<()> {
    async fn send(target: SocketAddr, number: u32, meter: Meter) -> io::Result<()> {
        let mut wire = Wire::connect(target).await?;
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; \
             filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"
        )
        .into_bytes();
        body.resize(body.len() + (8 << 20), 0xa5);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let target = format!("/upload/image?clientId=upload.{number}");
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let request = request("POST", &target, &kind, &body);
        loop {
            for part in request.chunks(PART) {
                wire.write(part).await?;
                meter.add(part.len() as u64);
            }
            wire.ask(b"").await?;
        }
    }
    run(args, send).await
}

async fn run<W: Future<Output = io::Result<()>> + 'static>(
    args: &Args,
    work: impl Fn(SocketAddr, u32, Meter) -> W,
) -> io::Result<()> {
    let local = tokio::task::LocalSet::new();
    let (target, meter) = (args.target()?, Meter::default());
    local
        .run_until(async {
            for number in 0..args.number("connections", 4)? {
                spawn(work(target, number, meter.clone()));
            }
            meter.run(args).await
        })
        .await
}
