//! Real servers between sidecars: MariaDB, PostgreSQL, Redis and gRPC, each on a port that says what it speaks and on
//! one that does not, called by their own clients.

use crate::mesh::{Mesh, eventually, python};
use anyhow::{Context as _, Result, ensure};

/// A server: its name, what it runs, its port, and what its port is called when it says what it speaks.
struct Server {
    name: &'static str,
    script: &'static str,
    port: u16,
    protocol: &'static str,
}

const SERVERS: [Server; 4] = [
    Server {
        name: "mariadb",
        script: "
            mkdir -p /tmp/db/data && chown -R mysql /tmp/db
            printf '%s\\n' 'CREATE DATABASE shop;' \"CREATE USER app@'%' IDENTIFIED BY 'secret';\" \
              \"GRANT ALL ON shop.* TO app@'%';\" > /tmp/db/init.sql
            mariadb-install-db --no-defaults --user=mysql --datadir=/tmp/db/data --skip-test-db > /dev/null
            exec mariadbd --no-defaults --user=mysql --datadir=/tmp/db/data --socket=/tmp/db/socket \
              --pid-file=/tmp/db/pid --init-file=/tmp/db/init.sql --bind-address=0.0.0.0 --port=3306",
        port: 3306,
        protocol: "mysql",
    },
    Server {
        name: "postgres",
        script: "
            bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
            mkdir -p /tmp/pg && chown postgres /tmp/pg
            as() { setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"; }
            as $bin/initdb -D /tmp/pg/data -U app -A trust > /dev/null
            echo 'host all all 0.0.0.0/0 trust' >> /tmp/pg/data/pg_hba.conf
            exec setpriv --reuid=postgres --regid=postgres --clear-groups $bin/postgres -D /tmp/pg/data \
              -c listen_addresses='*' -c unix_socket_directories=/tmp/pg -p 5432",
        port: 5432,
        protocol: "tcp",
    },
    Server {
        name: "redis",
        script: "exec redis-server --bind 0.0.0.0 --port 6379 --protected-mode no --save '' --dir /tmp",
        port: 6379,
        protocol: "redis",
    },
    Server {
        name: "chat",
        script: "exec $PYTHON -c \"$CHAT_SERVER\"",
        port: 50051,
        protocol: "grpc",
    },
];

/// Answers each message, one by one, while its caller goes on sending; and counts them at the end.
const CHAT_SERVER: &str = r#"
import grpc
from concurrent import futures

def chat(messages, context):
    count = 0
    for message in messages:
        count += 1
        yield b"heard " + message
    yield b"in all %d" % count

def countdown(message, context):
    for at in range(int(message), 0, -1):
        yield b"%d" % at

def total(messages, context):
    return b"%d" % sum(len(message) for message in messages)

def missing(message, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no " + message.decode())

server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("chat.Chat", {
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Countdown": grpc.unary_stream_rpc_method_handler(countdown),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Missing": grpc.unary_unary_rpc_method_handler(missing),
}),))
server.add_insecure_port("0.0.0.0:50051")
server.start()
server.wait_for_termination()
"#;

/// Sends the next message only when the last is answered: neither side waits for the other's end.
const CHAT_CLIENT: &str = r#"
import grpc, queue, sys
with grpc.insecure_channel(sys.argv[1]) as channel:
    said = queue.Queue()
    answers = channel.stream_stream("/chat.Chat/Chat")(iter(said.get, None), timeout=20, wait_for_ready=True)
    for at in range(100):
        said.put(b"message %d" % at)
        assert next(answers) == b"heard message %d" % at
    said.put(None)
    assert next(answers) == b"in all 100"
    assert list(answers) == []
    down = channel.unary_stream("/chat.Chat/Countdown")(b"1000", timeout=20)
    assert [int(at) for at in down] == list(range(1000, 0, -1))
    sent = (b"x" * 10000 for _ in range(100))
    assert channel.stream_unary("/chat.Chat/Total")(sent, timeout=20) == b"1000000"
    try:
        channel.unary_unary("/chat.Chat/Missing")(b"thing", timeout=20)
        sys.exit("an error was expected")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND and error.details() == "no thing", error
print("chatted")
"#;

/// Ports that say nothing are this much higher.
const UNDECLARED: u16 = 10000;

impl Server {
    /// The pod, and two Services: `NAME` with a declared port, `NAME-plain` with another that is not.
    fn yaml(&self, python: &str) -> String {
        let Self {
            name,
            port,
            protocol,
            ..
        } = self;
        let script = serde_json::Value::from(self.script);
        let chat = serde_json::Value::from(CHAT_SERVER);
        let higher = port + UNDECLARED;
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {protocol}-main, port: {port}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}-plain}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: {higher}, targetPort: {port}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - name: server
          image: curlimages/curl
          command: [sh, -ec, {script}]
          env: [{{name: CHAT_SERVER, value: {chat}}}, {{name: PYTHON, value: '{python}'}}]
          ports: [{{containerPort: {port}}}]
          readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1, failureThreshold: 60}}
"
        )
    }
}

#[test]
fn databases_and_streams_work_on_ports_declared_or_not() -> Result<()> {
    let python = python("grpc").context("`apt-get install python3-grpcio`")?;
    let mesh = Mesh::up(&[])?;
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    mesh.kubectl(&["apply", "-f", "samples/sleep/sleep.yaml"])?;
    for server in &SERVERS {
        mesh.apply(&server.yaml(python))?;
    }
    for name in ["sleep", "mariadb", "postgres", "redis", "chat"] {
        let deployment = format!("deploy/{name}");
        mesh.kubectl(&["rollout", "status", "--timeout=120s", &deployment])
            .with_context(|| {
                mesh.kubectl(&["logs", &deployment, "-c", "server"])
                    .unwrap_or_default()
            })?;
    }
    for suffix in ["", "-plain"] {
        mariadb(&mesh, suffix)?;
        postgres(&mesh, suffix)?;
        redis(&mesh, suffix)?;
        grpc(&mesh, suffix, python)?;
    }
    Ok(())
}

/// Runs a client in the pod `sleep`, where the server of that name may be called by `$HOST` and `$PORT`.
fn client(mesh: &Mesh, name: &str, suffix: &str, script: &str) -> Result<String> {
    let server = SERVERS
        .iter()
        .find(|server| server.name == name)
        .context("a server")?;
    let port = server.port + if suffix.is_empty() { 0 } else { UNDECLARED };
    let script = format!("HOST={name}{suffix} PORT={port}\n{script}");
    let script = ["timeout", "30", "sh", "-ec", &script];
    mesh.exec("deploy/sleep", "sleep", &script)
        .with_context(|| format!("{name}{suffix}"))
}

fn mariadb(mesh: &Mesh, suffix: &str) -> Result<()> {
    let table = format!("items{}", suffix.len());
    // The server speaks first; the init file may run a little behind the open port.
    eventually("the database lets its user in", 20, || {
        let ask = "mariadb -h $HOST -P $PORT -u app -psecret shop -Ne 'SELECT 1'";
        Ok(client(mesh, "mariadb", suffix, ask)?.trim() == "1")
    })?;
    let asked = client(
        mesh,
        "mariadb",
        suffix,
        &format!(
            "mariadb -h $HOST -P $PORT -u app -psecret shop -N <<SQL
CREATE TABLE {table} (id INT PRIMARY KEY, text LONGTEXT);
INSERT INTO {table} VALUES (1, 'one'), (2, REPEAT('x', 1000000));
SELECT id, LENGTH(text) FROM {table} ORDER BY id;
SQL"
        ),
    )?;
    ensure!(asked == "1\t3\n2\t1000000\n", "mariadb{suffix}: {asked}");
    Ok(())
}

fn postgres(mesh: &Mesh, suffix: &str) -> Result<()> {
    let table = format!("items{}", suffix.len());
    let asked = client(
        mesh,
        "postgres",
        suffix,
        &format!(
            "psql -h $HOST -p $PORT -U app -d postgres -qAt <<SQL
CREATE TABLE {table} (id INT PRIMARY KEY, text TEXT);
INSERT INTO {table} VALUES (1, 'one'), (2, REPEAT('x', 1000000));
SELECT id, LENGTH(text) FROM {table} ORDER BY id;
SQL"
        ),
    )?;
    ensure!(asked == "1|3\n2|1000000\n", "postgres{suffix}: {asked}");
    Ok(())
}

fn redis(mesh: &Mesh, suffix: &str) -> Result<()> {
    let asked = client(
        mesh,
        "redis",
        suffix,
        "redis-cli -h $HOST -p $PORT SET key 'a value'
         redis-cli -h $HOST -p $PORT GET key
         seq 1 1000 | sed 's/^/LPUSH list /' | redis-cli -h $HOST -p $PORT --pipe > /dev/null
         redis-cli -h $HOST -p $PORT LLEN list
         redis-cli -h $HOST -p $PORT DEL list",
    )?;
    ensure!(asked == "OK\na value\n1000\n1\n", "redis{suffix}: {asked}");
    Ok(())
}

fn grpc(mesh: &Mesh, suffix: &str, python: &str) -> Result<()> {
    let script = format!("{python} - $HOST:$PORT <<'PYTHON'{CHAT_CLIENT}PYTHON");
    let asked = client(mesh, "chat", suffix, &script)?;
    ensure!(asked == "chatted\n", "grpc{suffix}: {asked}");
    Ok(())
}
