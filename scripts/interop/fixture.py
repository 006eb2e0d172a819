"""What the checks of scripts/interop share: a verifier with a node (swtpm-tests/src/bin/interop.rs), and a client that acts as it."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Failed(Exception):
    """Something is not as it has to be."""


def expect(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what}: {found!r} instead of {wanted!r}")
    print(f"   ok {what}: {found}")


class Site(contextlib.AbstractContextManager):
    """A verifier that has routes for each of these hosts, and the files that it wrote. With `one_in`, it records one in so many allowed
    decisions."""

    def __init__(self, hosts, one_in=None):
        self.folder = Path(tempfile.mkdtemp(prefix="rootbound-interop."))
        program = os.environ["INTEROP_PROGRAM"]
        self.process = subprocess.Popen(
            [program, str(self.folder), *(["--one-in", str(one_in)] if one_in else []), *hosts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hear("ready")
        facts = json.loads((self.folder / "site.json").read_text())
        self.port, self.subject, self.public_url = facts["port"], facts["subject"], facts["public_url"]

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def hear(self, word):
        line = self.process.stdout.readline().strip()
        if line != word:
            raise Failed(f"the verifier said {line!r} instead of {word!r}")

    def do(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        self.hear("done")

    def file(self, name):
        return str(self.folder / name)

    def text(self, name):
        return (self.folder / name).read_text()

    def serving(self):
        """Makes a certificate for 127.0.0.1, for a gateway to serve with; returns its files."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
        import datetime
        import ipaddress

        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (self.folder / "serving.pem").write_bytes(certificate.public_bytes(pem))
        (self.folder / "serving.key").write_bytes(key.private_bytes(pem, form, plain))
        return self.file("serving.pem"), self.file("serving.key")

    def client(self, trusted, certificate=True):
        """TLS as the node speaks it, or as somebody without a certificate."""
        context = ssl.create_default_context(cafile=trusted)
        if certificate:
            context.load_cert_chain(self.file("node.pem"), self.file("node.key"))
        return context

    def token(self, audience, key=None, nonce=None, action="read", record="1", **more):
        """A token for the node, over mTLS; bound to the key of a proof, where there is a key."""
        details = [{"type": "rootbound_action", "actions": [action], "resource": {"type": "record", "id": record}}]
        form = {
            "grant_type": "client_credentials",
            "audience": audience,
            "authorization_details": json.dumps(details),
            **more,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if key:
            headers["dpop"] = key.proof("POST", f"{self.public_url}/oauth2/token", nonce=nonce)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.client(self.file("ca.pem")))
        connection.request("POST", "/oauth2/token", urllib.parse.urlencode(form), headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        if body.get("error") == "use_dpop_nonce" and not nonce:
            return self.token(audience, key, answer.headers["dpop-nonce"], action, record, **more)
        if answer.status != 200:
            raise Failed(f"no token: {answer.status} {body}")
        return body["access_token"]


class Key:
    """A key of a client's own, for DPoP proofs."""

    def __init__(self):
        self.private = ec.generate_private_key(ec.SECP256R1())

    def jwk(self):
        numbers = self.private.public_key().public_numbers()
        x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
        return {"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)}

    def proof(self, method, uri, token=None, nonce=None):
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}
        claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": uri, "iat": int(time.time())}
        if token:
            claims["ath"] = b64(hashlib.sha256(token.encode()).digest())
        if nonce:
            claims["nonce"] = nonce
        text = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self.private.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Running(contextlib.AbstractContextManager):
    """A program of somebody else's, until it listens and until it is ended."""

    def __init__(self, arguments, port, log):
        self.log = Path(log)
        with open(log, "wb") as out:
            self.process = subprocess.Popen(arguments, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise Failed(f"{arguments[0]} does not listen:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if kind:
            print(self.log.read_text()[-4000:])
