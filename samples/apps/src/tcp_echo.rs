//! Tcp-echo: answers each line with a prefix and the line. In greeting mode it speaks first, as MySQL does.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Longest line that is echoed, in bytes.
const LINE_LIMIT: u64 = 64 << 10;

/// Serves every port of `ports` with `prefix`. With `greeting`, that line is sent before anything is read.
///
/// # Errors
/// A port cannot be bound.
pub async fn run(ports: &[u16], prefix: &str, greeting: Option<String>) -> Result<()> {
    for &port in ports {
        let listener = match TcpListener::bind(("::", port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind(("0.0.0.0", port))
                .await
                .with_context(|| {
                    format!("cannot listen on port {port}: is another process using it?")
                })?,
        };
        println!("listening on port {port}, prefix {prefix:?}");
        let (prefix, greeting) = (prefix.to_owned(), greeting.clone());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (prefix, greeting) = (prefix.clone(), greeting.clone());
                tokio::task::spawn_local(async move {
                    let _ = echo(stream, &prefix, greeting.as_deref()).await;
                });
            }
        });
    }
    crate::stop_signal()?.await;
    Ok(())
}

async fn echo(stream: TcpStream, prefix: &str, greeting: Option<&str>) -> Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    if let Some(greeting) = greeting {
        writer.write_all(format!("{greeting}\n").as_bytes()).await?;
    }
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        if (&mut reader)
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line)
            .await?
            == 0
        {
            return Ok(());
        }
        let mut out = format!("{prefix} ").into_bytes();
        out.append(&mut line);
        writer.write_all(&out).await?;
    }
}
