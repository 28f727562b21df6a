//! Drives the sandbox without the command line: `sandbox up|detach|down|status`. For trying things out while
//! working on this crate; users have `lateen sandbox`.

use std::path::PathBuf;

use lateen_sandbox::{Home, Publish, Target, UpOptions};

fn main() {
    lateen_sandbox::maybe_run_stage();
    let action = std::env::args().nth(1).unwrap_or_default();
    let home =
        std::env::var_os("LATEEN_HOME").map_or_else(|| "/tmp/lateen-home".into(), PathBuf::from);
    let home = Home::new(home);
    let outcome = match action.as_str() {
        "up" | "detach" => up(home, action == "detach"),
        "down" => lateen_sandbox::down(&home),
        "status" => lateen_sandbox::status(&home).map(|status| println!("{status:#?}")),
        other => {
            eprintln!("unknown action {other:?}: use up, detach, down or status");
            std::process::exit(2);
        }
    };
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn up(home: Home, detach: bool) -> Result<(), lateen_sandbox::UpError> {
    let port = |name: &str, default: u16| {
        std::env::var(name)
            .ok()
            .and_then(|p| p.parse().ok())
            .unwrap_or(default)
    };
    let options = UpOptions {
        home,
        api: ([127, 0, 0, 1], port("API_PORT", 6443)).into(),
        publish: vec![Publish {
            listen: ([127, 0, 0, 1], port("INGRESS_PORT", 8080)).into(),
            target: Target {
                namespace: "istio-system".into(),
                service: "istio-ingressgateway".into(),
                port: "80".into(),
            },
            optional: false,
        }],
        state: std::env::var_os("STATE").map(PathBuf::from),
        images: std::env::var_os("IMAGES").map(PathBuf::from),
        detach,
        log: std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()),
    };
    let started = std::time::Instant::now();
    let mut sandbox = lateen_sandbox::up(options, &mut |step| {
        println!("ok {step} {:?}", started.elapsed());
    })?;
    println!(
        "ready: export KUBECONFIG={}",
        sandbox.kubeconfig().display()
    );
    if detach {
        return Ok(());
    }
    let mut line = String::new();
    // Enter (or the end of input) stops it.
    let _ = std::io::stdin().read_line(&mut line);
    if sandbox.ended() {
        println!("the node has ended by itself");
        return Ok(());
    }
    sandbox.stop()
}
