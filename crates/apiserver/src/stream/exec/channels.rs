//! A running command behind channels, whatever carries them.

use crate::pods::{Execution, Reader};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;

/// After the command's end its output is read until it ends, too; what its orphans still hold open is given up then.
const DRAIN: Duration = Duration::from_secs(2);

/// What a client sends.
#[derive(Debug, PartialEq)]
pub(super) enum Input {
    Stdin(Bytes),
    StdinClosed,
    /// Columns and rows.
    Resize(u16, u16),
}

/// A message on a channel; absent for channels that clients do not write to.
pub(super) fn input(channel: u8, bytes: Bytes) -> Option<Input> {
    match channel {
        STDIN if bytes.is_empty() => None,
        STDIN => Some(Input::Stdin(bytes)),
        RESIZE => {
            let size: Value = serde_json::from_slice(&bytes).ok()?;
            let side = |key: &str| size[key].as_u64().and_then(|side| u16::try_from(side).ok());
            Some(Input::Resize(side("Width")?, side("Height")?))
        }
        _ => None,
    }
}

/// Moves bytes until the command ends, then tells how on the error channel. Ends early, and thereby kills the
/// command, when the client is gone (`inlet` ends or nobody takes from `outlet`).
pub(super) async fn run(
    execution: Execution,
    inlet: mpsc::Receiver<Input>,
    outlet: mpsc::Sender<(u8, Bytes)>,
) {
    let Execution {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = execution;
    let feed = feed(stdin, resize, inlet);
    let output = async {
        tokio::join!(pump(stdout, STDOUT, &outlet), async {
            if let Some(stderr) = stderr {
                pump(stderr, STDERR, &outlet).await;
            }
        });
    };
    let ended = async {
        let mut output = std::pin::pin!(output);
        let mut exit = exit;
        tokio::select! {
            code = &mut exit => {
                let _ = tokio::time::timeout(DRAIN, output).await;
                code
            }
            () = &mut output => exit.await,
        }
    };
    tokio::select! {
        code = ended => {
            let _ = outlet.send((ERROR, Bytes::from(status(code).to_string()))).await;
        }
        () = feed => {}
        () = outlet.closed() => {}
    }
}

async fn feed(
    mut stdin: Option<crate::pods::Writer>,
    resize: mpsc::Sender<(u16, u16)>,
    mut inlet: mpsc::Receiver<Input>,
) {
    while let Some(input) = inlet.recv().await {
        match (input, &mut stdin) {
            (Input::Stdin(bytes), Some(writer)) => {
                let written = async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                };
                if written.await.is_err() {
                    // The command closed its stdin; what else comes is of no use.
                    stdin = None;
                }
            }
            (Input::StdinClosed, Some(writer)) => {
                let _ = writer.shutdown().await;
                stdin = None;
            }
            (Input::Resize(columns, rows), _) => {
                let _ = resize.try_send((columns, rows));
            }
            (Input::Stdin(_) | Input::StdinClosed, None) => {}
        }
    }
}

async fn pump(mut reader: Reader, channel: u8, outlet: &mpsc::Sender<(u8, Bytes)>) {
    let mut buffer = vec![0; super::super::CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            Ok(count) if count > 0 => {
                if outlet
                    .send((channel, Bytes::copy_from_slice(&buffer[..count])))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            // A terminal reports an error (EIO) when its last user closes it: the end, all the same.
            Ok(_) | Err(_) => return,
        }
    }
}

/// The last word (Kubernetes: `remotecommand` v4, `Status` with an ExitCode cause).
fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}
