"""Vault behind a server of the tests' own, which can change its certificate."""

import collections
import http.client
import http.server
import ssl
import threading
import urllib.parse
from pathlib import Path

from .base import run

# What is between two machines, not between the client and Vault.
HOP = {"connection", "content-length", "host", "transfer-encoding"}


class Authority:
    """An authority, and a server's certificate that it signed, for `host` as certificates name it: IP:… or DNS:…."""

    def __init__(self, directory, name, host):
        self.name, self.host = name, host
        self.paths = {each: Path(directory, f"{name}-{each}") for each in ("ca.key", "ca.crt", "key", "crt")}
        # The machine's openssl.cnf would make every certificate an authority.
        config = Path(directory, "openssl.cnf")
        config.write_text("[req]\ndistinguished_name=dn\n[dn]\n", encoding="ascii")
        self.request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self.request += ["-days", "2", "-config", config]
        run(
            *[*self.request, "-subj", f"/CN=hushpod e2e {name}"],
            *["-keyout", self.paths["ca.key"], "-out", self.paths["ca.crt"]],
            *["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"],
        )
        self.sign()
        self.pem = self.paths["ca.crt"].read_text(encoding="ascii")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.paths["crt"], self.paths["key"])

    def sign(self, *options):
        """Another certificate and key for the server, in `paths`."""
        run(
            *[*self.request, "-CA", self.paths["ca.crt"], "-CAkey", self.paths["ca.key"], "-subj", "/CN=front"],
            *["-keyout", self.paths["key"], "-out", self.paths["crt"], "-addext", "basicConstraints=critical,CA:FALSE"],
            *["-addext", f"subjectAltName={self.host}", "-addext", "extendedKeyUsage=serverAuth", *options],
        )


class Forward(http.server.BaseHTTPRequestHandler):
    """Hands each request on to Vault. One to a connection, so the next one sees the certificate of its time."""

    def forward(self):
        front = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        vault = http.client.HTTPSConnection(front.upstream.netloc, context=front.vault.tls, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            vault.request(self.command, self.path, body, headers)
            answer = vault.getresponse()
            content = answer.read()
        finally:
            vault.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        front.answers[front.names[self.request.context]] += 1

    do_GET = do_HEAD = do_LIST = do_POST = do_PUT = forward  # noqa: N815

    def log_message(self, *_):
        pass


class Front(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, vault, host, authority):
        super().__init__((host, 0), Forward)
        self.vault = vault
        self.upstream = urllib.parse.urlsplit(vault.address)
        self.url = f"https://{host}:{self.server_address[1]}"
        # How many requests came over connections that each authority vouched for.
        self.answers = collections.Counter()
        self.names = {}
        self.show(authority)

    def show(self, authority):
        """New connections see this certificate."""
        self.names[authority.context] = authority.name
        self.context = authority.context

    def finish_request(self, request, client_address):
        # In the connection's own thread: a client that does not go on keeps no other waiting.
        request.settimeout(30)
        with self.context.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def handle_error(self, *_):
        """A client that does not trust us ends the handshake: that is what it is to do."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
