"""The key of a node, for clients that cannot use a TPM: they send HTTP to a loopback port, and it goes on over TLS 1.3 with the
certificate that the attester delivered and a signature by the key in the TPM; or they have a digest signed by that key.

Nothing of this project is in it: TLS is tlslite-ng's, the TPM is used by tpm2-pytss, the key file is read as its draft says. No
OpenSSL provider that Debian has loads a key with a policy, so that Node.js and requests cannot do it themselves.

Whoever reaches the port is the node: for tests alone.

    node.py --credentials DIRECTORY --tcti TCTI --verifier HOST:PORT --tell FILE

FILE gets the URL once it listens. `POST /.tpm/sign` signs the SHA-256 digest in its body (r and s, 32 bytes each), and
`GET /.tpm/jwk` has the public key; everything else is the verifier's.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tlslite.api import HandshakeSettings, TLSConnection, X509, X509CertChain
from tlslite.utils.ecdsakey import ECDSAKey
from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_RH, TPM2_SE, TPM2_ST, TPMA_OBJECT
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TPMT_TK_HASHCHECK,
)

TOO_MANY_OBJECTS = 0x902
TOO_MANY_SESSIONS = 0x903


def elements(der):
    """The elements of a SEQUENCE's content: (tag, content)."""
    at, found = 0, []
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        found.append((tag, der[at : at + length]))
        at += length
    return found


class KeyFile:
    """A TSS2 PRIVATE KEY (draft-bottomley-tpm2-keys): TPM2_PolicyPCR's body, the public and the private part."""

    def __init__(self, pem):
        lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
        ((_, key),) = elements(b64decode("".join(lines)))
        members = elements(key)
        octets = [content for tag, content in members if tag == 0x04]
        self.public, self.private = octets
        ((_, policies),) = elements(dict(members)[0xA1])
        ((_, command),) = elements(policies)
        ((_, body),) = elements(dict(elements(command))[0xA1])
        size = int.from_bytes(body[:2], "big")
        self.selection = body[2 + size :]


class TpmKey(ECDSAKey):
    """The delivered key, as the file has it at this moment."""

    key_type = "ecdsa"

    def __init__(self, pem, tcti):
        self.file = KeyFile(pem)
        self.tcti = tcti
        self.area, _ = TPM2B_PUBLIC.unmarshal(self.file.public)
        point = self.area.publicArea.unique.ecc
        self.x, self.y = bytes(point.x).rjust(32, b"\0"), bytes(point.y).rjust(32, b"\0")
        # tlslite asks the key for its curve, and checks what was signed.
        self.curve_name = "NIST256p"
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(self.x, "big"), int.from_bytes(self.y, "big"), ec.SECP256R1())
        self.public_key = numbers.public_key()

    def __len__(self):
        return 256

    def hasPrivateKey(self):
        return True

    def acceptsPassword(self):
        return False

    def _sign(self, data, hash_alg):
        r, s = self.sign_digest(bytes(data))
        return bytearray(encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")))

    def _verify(self, signature, hash_bytes):
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        self.public_key.verify(bytes(signature), bytes(hash_bytes), ec.ECDSA(Prehashed(hashes.SHA256())))
        return True

    def jwk(self):
        text = lambda part: urlsafe_b64encode(part).rstrip(b"=").decode()
        return {"kty": "EC", "crv": "P-256", "x": text(self.x), "y": text(self.y)}

    def sign_digest(self, digest):
        """Signs in the TPM. swtpm has room for three objects, and the attester uses it, too."""
        for _ in range(200):
            try:
                return self._sign_once(digest)
            except TSS2_Exception as error:
                if error.rc not in (TOO_MANY_OBJECTS, TOO_MANY_SESSIONS):
                    raise
                time.sleep(0.02)
        raise RuntimeError("the TPM has no room")

    def _sign_once(self, digest):
        with ESAPI(self.tcti) as tpm:
            held = []
            try:
                primary = tpm.create_primary(TPM2B_SENSITIVE_CREATE(), parent_template(), ESYS_TR.OWNER)[0]
                held.append(primary)
                private, _ = TPM2B_PRIVATE.unmarshal(self.file.private)
                key = tpm.load(primary, private, self.area)
                held.append(key)
                tpm.flush_context(held.pop(0))
                session = tpm.start_auth_session(
                    ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
                )
                held.append(session)
                selection, _ = TPML_PCR_SELECTION.unmarshal(self.file.selection)
                tpm.policy_pcr(session, TPM2B_DIGEST(), selection)
                scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.ECDSA)
                scheme.details.any.hashAlg = TPM2_ALG.SHA256
                ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
                signed = tpm.sign(key, TPM2B_DIGEST(digest), scheme, ticket, session1=session)
                ecdsa = signed.signature.ecdsa
                return bytes(ecdsa.signatureR).rjust(32, b"\0"), bytes(ecdsa.signatureS).rjust(32, b"\0")
            finally:
                for handle in held:
                    tpm.flush_context(handle)


def parent_template():
    """The P-256 primary key that the draft names for a key whose parent is the owner hierarchy."""
    return TPM2B_PUBLIC(
        publicArea=TPMT_PUBLIC.parse(
            "ecc256:aes128cfb",
            objectAttributes=TPMA_OBJECT.FIXEDTPM
            | TPMA_OBJECT.FIXEDPARENT
            | TPMA_OBJECT.SENSITIVEDATAORIGIN
            | TPMA_OBJECT.USERWITHAUTH
            | TPMA_OBJECT.NODA
            | TPMA_OBJECT.RESTRICTED
            | TPMA_OBJECT.DECRYPT,
        )
    )


class Node:
    def __init__(self, credentials, tcti, verifier):
        self.credentials, self.tcti, self.verifier = credentials, tcti, verifier
        self.lock = threading.Lock()

    def files(self):
        """Of one generation: the link may be replaced meanwhile."""
        current = os.path.realpath(os.path.join(self.credentials, "current"))
        read = lambda name: open(os.path.join(current, name), encoding="ascii").read()
        return read("svid.pem"), TpmKey(read("svid.key"), self.tcti), read("bundle.pem")

    def connect(self):
        chain, key, bundle = self.files()
        connection = TLSConnection(socket.create_connection(self.verifier, timeout=30))
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (3, 4)
        # It would compress its certificate without having been asked to (RFC 8879, 3).
        settings.certificate_compression_send = []
        certificates = X509CertChain()
        certificates.parsePemList(chain)
        connection.handshakeClientCert(certificates, key, settings=settings, alpn=[b"http/1.1"])
        verify(connection.session.serverCertChain, bundle)
        return connection

    def send(self, method, path, headers, body):
        with self.lock:
            http_connection = http.client.HTTPConnection(*self.verifier)
            http_connection.sock = self.connect()
            http_connection.request(method, path, body, headers)
            answer = http_connection.getresponse()
            # tlslite waits for a byte where none is asked for.
            content = b"" if answer.length == 0 else answer.read()
            http_connection.close()
            return answer.status, answer.getheaders(), content


def verify(chain, bundle):
    """tlslite leaves that to whoever uses it. A CA of the bundle signed the leaf; which name it has is known on loopback."""
    leaf = x509.load_der_x509_certificate(bytes(chain.x509List[0].bytes))
    ca = x509.load_pem_x509_certificate(bundle.encode())
    ca.public_key().verify(leaf.signature, leaf.tbs_certificate_bytes, ec.ECDSA(leaf.signature_hash_algorithm))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        node = self.server.node
        try:
            if self.path == "/.tpm/jwk":
                status, headers, content = 200, [("content-type", "application/json")], json.dumps(node.files()[1].jwk()).encode()
            elif self.path == "/.tpm/sign":
                r, s = node.files()[1].sign_digest(body)
                status, headers, content = 200, [("content-type", "application/octet-stream")], r + s
            else:
                unwanted = ("host", "connection", "content-length", "keep-alive", "accept-encoding", "transfer-encoding")
                kept = {name: value for name, value in self.headers.items() if name.lower() not in unwanted}
                status, headers, content = node.send(self.command, self.path, kept, body or None)
        except Exception as error:  # noqa: BLE001: whoever asked is told
            print(f"{self.command} {self.path}: {error!r}", file=sys.stderr, flush=True)
            status, headers, content = 599, [], repr(error).encode()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def __getattr__(self, name):
        # Of whatever method.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)


def main():
    arguments = argparse.ArgumentParser()
    for name in ("credentials", "tcti", "verifier", "tell"):
        arguments.add_argument(f"--{name}", required=True)
    given = arguments.parse_args()
    host, port = given.verifier.rsplit(":", 1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.node = Node(given.credentials, given.tcti, (host, int(port)))
    with open(given.tell + ".new", "w", encoding="ascii") as file:
        file.write(f"http://127.0.0.1:{server.server_port}")
    os.rename(given.tell + ".new", given.tell)
    server.serve_forever()


if __name__ == "__main__":
    main()
