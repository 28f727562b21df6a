//! The command line as users type it. Parsing only.

mod roles;

pub use roles::{CaptureArgs, ControlArgs, Proxy, ProxyArgs, RateLimitArgs, WhenUncounted};

use clap::{Args, Parser, Subcommand};
use roles::duration;
use std::path::PathBuf;
use std::time::Duration;

/// Lateen: a service mesh that speaks Istio's APIs.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every role and tool.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A cluster with a mesh on this machine: pods are processes, no Docker
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// Creates or updates the objects in files
    Apply(FileArgs),
    /// Deletes the objects in files
    Delete(FileArgs),
    /// Shows objects
    Get(GetArgs),
    /// What a proxy is doing: its routes, clusters, endpoints or listeners
    #[command(subcommand, visible_alias = "pc")]
    ProxyConfig(ProxyConfig),
    /// Whether the mesh is in order, or the cluster is ready for one; fails when something is not
    Check(CheckArgs),
    /// What is wrong with configuration: in the cluster, in files, or in the cluster as if the files were applied
    Analyze(AnalyzeArgs),
    /// The mesh's certificate authority
    #[command(subcommand)]
    Ca(Authority),
    /// Which proxies are connected and whether they are in step
    #[command(visible_alias = "ps")]
    ProxyStatus(Connection),
    /// What would happen to a call, by the proxy's own decisions
    Simulate(SimulateArgs),
    /// What becomes of a call at both ends, and whose object decides
    Why(WhyArgs),
    /// Prints the CustomResourceDefinitions of the Istio kinds
    Crds,
    /// Runs the control plane (istiod)
    Control(ControlArgs),
    /// Runs a proxy
    #[command(subcommand)]
    Proxy(Proxy),
    /// Writes or removes the rules that capture a pod's traffic
    Capture(CaptureArgs),
    /// Runs the rate-limit service (envoy.service.ratelimit.v3)
    Ratelimit(RateLimitArgs),
    /// Runs a sample application
    #[command(subcommand)]
    Sample(Sample),
    /// Measures a running mesh
    #[command(subcommand)]
    Bench(Bench),
    /// Prints the version
    Version,
}

/// What to look at, and what to tell of it.
#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// YAML files, folders of them, or - for standard input; they take the place of the cluster's objects
    pub files: Vec<PathBuf>,
    /// Every namespace
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Whether the cluster is looked at, too
    #[arg(long, short = 'k', default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub use_kube: bool,
    /// Folders within folders, too
    #[arg(long, short = 'R')]
    pub recursive: bool,
    /// What not to tell: CODE=KIND NAME.NAMESPACE, with * for any text; may be given several times
    #[arg(long, short = 'S')]
    pub suppress: Vec<String>,
    /// log, json or yaml
    #[arg(long, short, default_value = "log")]
    pub output: String,
    /// From which level on the command fails, with exit code 79
    #[arg(long, default_value = "Error", ignore_case = true)]
    pub failure_threshold: Level,
    /// From which level on findings are printed
    #[arg(long, default_value = "Info", ignore_case = true)]
    pub output_threshold: Level,
    /// MeshConfig to assume instead of the cluster's
    #[arg(
        long = "meshConfigFile",
        value_name = "FILE",
        alias = "mesh-config-file"
    )]
    pub mesh_config_file: Option<PathBuf>,
    /// Only lists what is looked for
    #[arg(long, short = 'L')]
    pub list_analyzers: bool,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Probably not as meant.
    Warning,
    /// Refused, or requests fail because of it.
    Error,
}

/// What to check and how to say it.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Only what an installation needs; without it that is checked where no mesh is installed
    #[arg(long)]
    pub pre: bool,
    /// A CA or root that ends within this time is a failure
    #[arg(long, default_value = "720h", value_parser = duration)]
    pub expiry_threshold: Duration,
    /// text or json
    #[arg(long, short)]
    pub output: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// The certificate authority's commands.
#[derive(Debug, Subcommand)]
pub enum Authority {
    /// Which CA signs, which roots are trusted, until when
    Status(AuthorityArgs),
    /// Replaces a self-signed root: proxies trust the new one before it signs, and the old one until its last certificate ends
    Rotate {
        /// Which cluster.
        #[command(flatten)]
        args: AuthorityArgs,
        /// How long to wait until the new CA signs
        #[arg(long, default_value = "2m", value_parser = duration)]
        wait: Duration,
    },
}

/// How to show it.
#[derive(Debug, Args)]
pub struct AuthorityArgs {
    /// text or json
    #[arg(long, short)]
    pub output: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which cluster and namespace.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// Kubeconfig; default: that of a running sandbox, else ~/.kube/config
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace
    #[arg(long, short)]
    pub namespace: Option<String>,
}

/// Files of objects.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// YAML files, folders of them, or - for standard input
    #[arg(long = "filename", short = 'f', required = true)]
    pub files: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// What to show.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Kind: plural, singular or short name
    pub kind: String,
    /// One object
    pub name: Option<String>,
    /// Every namespace
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Label selector
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// wide, yaml or json
    #[arg(long, short)]
    pub output: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// The sandbox's commands.
#[derive(Debug, Subcommand)]
pub enum Sandbox {
    /// Starts it, installs the mesh, and stays until Ctrl-C
    Up(UpArgs),
    /// Stops it and removes everything
    Down,
    /// Whether it runs, where, and how much memory each part takes
    Status,
    /// Runs a command in a pod's container
    Exec(ExecArgs),
    /// Prints a container's log
    Logs(LogsArgs),
    /// Prints the path of the kubeconfig
    Kubeconfig,
}

/// How to start the sandbox.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Installs a sample application: bookinfo
    #[arg(long)]
    pub demo: Option<String>,
    /// Returns when everything is ready, and leaves the sandbox running
    #[arg(long, short)]
    pub detach: bool,
    /// Port of the API server on 127.0.0.1
    #[arg(long, default_value_t = 6443)]
    pub api_port: u16,
    /// Port of the ingress gateway on 127.0.0.1
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// Port of the ingress gateway's 443 on 127.0.0.1; default: 8443 if it is free
    #[arg(long)]
    pub https_port: Option<u16>,
    /// Further ports to publish: PORT=NAMESPACE/SERVICE:PORT
    #[arg(long = "publish", value_name = "PORT=NS/SERVICE:PORT")]
    pub publish: Vec<String>,
    /// Keeps the API server's objects in this folder; default: in memory
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Table of further images (YAML)
    #[arg(long)]
    pub images: Option<PathBuf>,
    /// Only the cluster: no control plane, no gateway
    #[arg(long)]
    pub no_mesh: bool,
}

/// A command for a container.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pod, or deploy/NAME
    pub pod: String,
    /// Container
    #[arg(long, short)]
    pub container: Option<String>,
    /// Passes standard input
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// Command, after --
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Which log.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Pod, or deploy/NAME
    pub pod: String,
    /// Container
    #[arg(long, short)]
    pub container: Option<String>,
    /// Waits for more
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long)]
    pub tail: Option<i64>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Parts of a proxy's configuration.
#[derive(Debug, Subcommand)]
pub enum ProxyConfig {
    /// Virtual hosts and their rules
    #[command(visible_alias = "route", visible_alias = "r")]
    Routes(ProxyPart),
    /// Where requests can be sent
    #[command(visible_alias = "cluster", visible_alias = "c")]
    Clusters(ProxyPart),
    /// Addresses behind the clusters
    #[command(visible_alias = "endpoint", visible_alias = "ep")]
    Endpoints(ProxyPart),
    /// Where it listens
    #[command(visible_alias = "listener", visible_alias = "l")]
    Listeners(ProxyPart),
    /// Its certificate, whom it believes, and until when; never a key
    #[command(visible_alias = "secret", visible_alias = "s")]
    Secrets(ProxyPart),
}

/// Which proxy, and how to print.
#[derive(Debug, Args)]
pub struct ProxyPart {
    /// Pod, POD.NAMESPACE or deploy/NAME
    pub pod: String,
    /// short or json
    #[arg(long, short, default_value = "short")]
    pub output: String,
    /// Only services whose name contains this
    #[arg(long)]
    pub fqdn: Option<String>,
    /// Only this port
    #[arg(long)]
    pub port: Option<u16>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// A call to simulate.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The calling pod: POD, POD.NAMESPACE or deploy/NAME; or `gateway` for the ingress gateway
    #[arg(long)]
    pub from: String,
    /// The URL that is called
    #[arg(long)]
    pub to: String,
    /// Method
    #[arg(long, short = 'X', default_value = "GET")]
    pub method: String,
    /// Header, as NAME: VALUE
    #[arg(long = "header", short = 'H')]
    pub headers: Vec<String>,
    /// Token that the call carries as Authorization: Bearer; @FILE reads it from a file
    #[arg(long)]
    pub token: Option<String>,
    /// Further objects to lay over what the proxy has (YAML files)
    #[arg(long = "filename", short = 'f')]
    pub files: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// A call to explain.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The calling pod: POD, POD.NAMESPACE or deploy/NAME; or `gateway` for the ingress gateway
    #[arg(long)]
    pub from: String,
    /// The URL that is called
    pub to: String,
    /// Method
    #[arg(long, short = 'X', default_value = "GET")]
    pub method: String,
    /// Header, as NAME: VALUE
    #[arg(long = "header", short = 'H')]
    pub headers: Vec<String>,
    /// Token that the call carries as Authorization: Bearer; @FILE reads it from a file
    #[arg(long)]
    pub token: Option<String>,
    /// Further objects to lay over what the proxies have (YAML files)
    #[arg(long = "filename", short = 'f')]
    pub files: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Ports with commas between them.
#[derive(Debug, Clone)]
pub struct PortList(pub Vec<u16>);

impl std::str::FromStr for PortList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |part: &str| {
            part.trim()
                .parse()
                .map_err(|_| format!("{part:?} is no port: write them as in 9000,9001"))
        };
        text.split(',')
            .map(port)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Sample applications.
#[derive(Debug, Subcommand)]
pub enum Sample {
    /// Bookinfo's page
    Productpage {
        /// Port
        #[arg(long, default_value_t = 9080)]
        port: u16,
    },
    /// Bookinfo's details
    Details {
        /// Port
        #[arg(long, default_value_t = 9080)]
        port: u16,
    },
    /// Bookinfo's ratings
    Ratings {
        /// Port
        #[arg(long, default_value_t = 9080)]
        port: u16,
    },
    /// Bookinfo's reviews
    Reviews {
        /// Port
        #[arg(long, default_value_t = 9080)]
        port: u16,
        /// v1, v2 or v3
        #[arg(long, env = "SERVICE_VERSION", default_value = "v1")]
        version: String,
    },
    /// Describes requests
    Httpbin {
        /// Port
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Says its version
    Helloworld {
        /// Port
        #[arg(long, default_value_t = 5000)]
        port: u16,
        /// Version
        #[arg(long, env = "SERVICE_VERSION", default_value = "v1")]
        version: String,
    },
    /// Echoes lines. Ports and prefix may also stand alone: `tcp-echo 9000,9001 hello`
    TcpEcho {
        /// Ports
        #[arg(long, default_value = "9000")]
        ports: PortList,
        /// Prefix of each answer
        #[arg(long, default_value = "hello")]
        prefix: String,
        /// Ports, as the image of Istio's sample takes them
        #[arg(value_name = "PORTS", conflicts_with = "ports")]
        listed_ports: Option<PortList>,
        /// Prefix, likewise
        #[arg(value_name = "PREFIX", conflicts_with = "prefix")]
        listed_prefix: Option<String>,
        /// Speaks first, with this line
        #[arg(long)]
        greeting: Option<String>,
    },
    /// A page that stays connected
    Websocket {
        /// Port
        #[arg(long, default_value_t = 8888)]
        port: u16,
    },
    /// An external authorizer: allows requests with the header `x-ext-authz: allow`
    ExtAuthz {
        /// Port for HTTP
        #[arg(long, default_value_t = 8000)]
        http: u16,
        /// Port for gRPC
        #[arg(long, default_value_t = 9000)]
        grpc: u16,
    },
}

/// Measurements.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Time from a change of a route until every sidecar uses it
    Propagation {
        /// How many changes
        #[arg(long, default_value_t = 50)]
        changes: u32,
        /// Which cluster.
        #[command(flatten)]
        connection: Connection,
    },
    /// Sends GET requests at a fixed rate and counts the answers
    Load {
        /// URL, http only
        #[arg(default_value = "http://127.0.0.1:8080/productpage")]
        url: String,
        /// Requests a second
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// Seconds
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: (&[u16], &str)) {
        let line = ["lateen", "sample", "tcp-echo"].iter().chain(arguments);
        let command = Cli::try_parse_from(line).expect("valid").command;
        let Command::Sample(Sample::TcpEcho {
            ports,
            prefix,
            listed_ports,
            listed_prefix,
            ..
        }) = command
        else {
            panic!("another command");
        };
        assert_eq!(listed_ports.unwrap_or(ports).0, expected.0);
        assert_eq!(listed_prefix.unwrap_or(prefix), expected.1);
    }

    #[test]
    fn durations_are_those_of_istio() {
        let seconds = |text| duration(text).map(|read| read.as_secs());
        for (text, want) in [
            ("24h", 86_400),
            ("1h30m", 5400),
            ("90s", 90),
            ("30d", 2_592_000),
        ] {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "0s",
            "h",
            "-1h",
            "99999999h",
            "1h x",
            "d",
            "0d",
            "-1d",
            "99999d",
        ] {
            let error = seconds(text).expect_err(text);
            assert!(error.contains("24h, 1h30m or 90s"), "{error}");
        }
    }

    #[test]
    fn tcp_echo_takes_what_istios_manifest_gives_its_image() {
        check(&["9000,9001,9002", "one"], (&[9000, 9001, 9002], "one"));
        check(&["--ports", "4406"], (&[4406], "hello"));
        check(&[], (&[9000], "hello"));
    }
}
