#!/usr/bin/env python3
"""What a gateway holds in memory while it idles: without configuration, and for each idle connection.

    LATEEN_BIN=/path/to/lateen benches/idle.py [connections]

Runs in a network namespace of its own. Figures are of one process: RSS counts the program's own pages, too, which the
kernel shares and drops; anonymous memory is what it has asked for. A connection over HTTP/1.1 has been answered once; one
over TCP has a connection upstream beside it. Both stay open while memory is read from /proc.
"""
import os, resource, socket, subprocess, sys, tempfile, threading, time

HTTP, TCP = 8181, 9001
CONFIG = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: 'accessLogFile: ""'}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: idle, namespace: default}}
spec:
  selector: {{app: idle}}
  servers:
    - port: {{number: {HTTP}, name: http, protocol: HTTP}}
      hosts: ['*']
    - port: {{number: {TCP}, name: tcp, protocol: TCP}}
      hosts: ['*']
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: idle, namespace: default}}
spec:
  hosts: ['*']
  gateways: [idle]
  http:
    - match: [{{port: {HTTP}}}]
      route: [{{destination: {{host: http.local, port: {{number: 80}}}}}}]
  tcp:
    - match: [{{port: {TCP}}}]
      route: [{{destination: {{host: tcp.local, port: {{number: 90}}}}}}]
"""
ENTRY = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.local]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: {port}, name: p, protocol: {protocol}, targetPort: {target}}}]
  endpoints: [{{address: 127.0.0.1}}]
"""


def server(answer):
    """Listens; answers each piece that comes with these bytes. Its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def serve(connection):
        while connection.recv(4096):
            connection.sendall(answer)

    def accept():
        kept = []
        while True:
            connection, _ = listener.accept()
            kept.append(connection)
            if answer:
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def start(folder, config):
    os.makedirs(f"{folder}/info", exist_ok=True)
    with open(f"{folder}/info/labels", "w") as file:
        file.write('app="idle"')
    with open(f"{folder}/config.yaml", "w") as file:
        file.write(config)
    arguments = ["proxy", "router", "--config", f"{folder}/config.yaml", "--pod-info", f"{folder}/info",
                 "--bind", "127.0.0.1", "--admin-port", "0", "--concurrency", "1"]
    env = dict(os.environ, POD_NAME="idle", POD_NAMESPACE="default", INSTANCE_IP="127.0.0.9")
    return subprocess.Popen([os.environ["LATEEN_BIN"], *arguments], env=env, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def memory(process):
    """RSS and anonymous memory in kB."""
    fields = {}
    with open(f"/proc/{process.pid}/smaps_rollup") as file:
        for line in file.readlines()[1:]:
            name, value = line.split(":")
            fields[name] = int(value.split()[0])
    return fields["Rss"], fields["Anonymous"]


def connected(port):
    until = time.time() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.time() > until:
                raise
            time.sleep(0.05)


def asked():
    connection = connected(HTTP)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n")
    got = b""
    while not got.endswith(b"hello"):
        piece = connection.recv(4096)
        assert piece, "the gateway closed the connection"
        got += piece
    assert got.startswith(b"HTTP/1.1 200"), got
    return connection


def said():
    connection = connected(TCP)
    connection.sendall(b"hi")
    return connection


def each(process, count, make):
    """What one more connection takes, in kB of anonymous memory; the first 50 warm up."""
    held = [make() for _ in range(50)]
    time.sleep(1)
    before = memory(process)[1]
    held += [make() for _ in range(count)]
    time.sleep(1)
    return (memory(process)[1] - before) / count, held


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    if os.environ.get("IDLE_INSIDE") != "1":
        os.environ["IDLE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        bare = start(folder, CONFIG.split("---")[0])
        time.sleep(3)
        print("without configuration: RSS {} kB, anonymous {} kB".format(*memory(bare)))
        bare.terminate()
        entries = [("http", 80, "HTTP", server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")),
                   ("tcp", 90, "TCP", server(b""))]
        config = CONFIG + "".join(ENTRY.format(name=n, port=p, protocol=s, target=t) for n, p, s, t in entries)
        process = start(folder, config)
        http, kept = each(process, count, asked)
        print(f"each idle HTTP/1.1 connection: {http:.1f} kB")
        tcp, more = each(process, count, said)
        print(f"each idle TCP connection with the one upstream: {tcp:.1f} kB")
        print("with all of them: RSS {} kB, anonymous {} kB".format(*memory(process)))
        del kept, more
        process.kill()


main()
