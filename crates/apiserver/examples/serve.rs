//! Runs the API server alone, in memory or in a directory, with pods that are not real: for trying it with kubectl.
//! Usage: `serve PORT KUBECONFIG [DIRECTORY]`.

use futures::future::BoxFuture;
use lateen_apiserver::pods::{
    ExecOptions, Execution, LogOptions, PodAccess, PodError, Reader, Target, Writer,
};
use lateen_apiserver::{Options, Server};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

struct Pretended;

impl PodAccess for Pretended {
    fn logs(
        &self,
        target: Target,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<Reader, PodError>> {
        Box::pin(async move {
            let text = format!("log of {} {options:?}\n", target.pod);
            Ok(Box::new(std::io::Cursor::new(text.into_bytes())) as Reader)
        })
    }

    fn exec(
        &self,
        _: Target,
        options: ExecOptions,
    ) -> BoxFuture<'static, Result<Execution, PodError>> {
        Box::pin(async move {
            let (resize, mut sizes) = tokio::sync::mpsc::channel(4);
            tokio::spawn(async move { while sizes.recv().await.is_some() {} });
            let (input, mut received) = tokio::io::duplex(4096);
            let (mut output, stdout) = tokio::io::duplex(4096);
            let code = i32::from(options.command.first().is_some_and(|word| word == "false"));
            let done = tokio::spawn(async move {
                use tokio::io::AsyncWriteExt;
                let _ = output
                    .write_all(format!("{:?}\n", options.command).as_bytes())
                    .await;
                if options.stdin {
                    let mut all = Vec::new();
                    let _ = received.read_to_end(&mut all).await;
                    let _ = output.write_all(&all).await;
                }
                code
            });
            Ok(Execution {
                stdin: options.stdin.then(|| Box::new(input) as Writer),
                stdout: Box::new(stdout),
                stderr: None,
                resize,
                exit: Box::pin(async move { done.await.unwrap_or(1) }),
            })
        })
    }

    fn connect(
        &self,
        _: Target,
        port: u16,
    ) -> BoxFuture<'static, Result<(Reader, Writer), PodError>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            let (read, write) = stream
                .map_err(|error| PodError::Failed(error.to_string()))?
                .into_split();
            Ok((Box::new(read) as Reader, Box::new(write) as Writer))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("give a port")?.parse()?;
    let kubeconfig = arguments.next().ok_or("give a file for the kubeconfig")?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    let port = listener.local_addr()?.port();
    let server = Server::start(Options {
        listeners: vec![listener],
        dir: arguments.next().map(Into::into),
        names: Vec::new(),
        pods: Arc::new(Pretended),
        service_cidr: "10.96.0.0/16".to_owned(),
    })
    .await?;
    std::fs::write(
        &kubeconfig,
        server.kubeconfig(&format!("https://127.0.0.1:{port}"))?,
    )?;
    println!("serving on 127.0.0.1:{port}, kubeconfig in {kubeconfig}");
    std::future::pending::<()>().await;
    Ok(())
}
