"""requests_oauth2client: a node by its certificate and the key in its TPM, which signs proofs, too; relying parties by secret and
certificate."""

import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from uuid import uuid4

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests_oauth2client import (
    ClientSecretBasic,
    ClientSecretPost,
    DPoPKey,
    DPoPToken,
    InvalidRequest,
    InvalidScope,
    OAuth2Client,
    PublicApp,
    UnauthorizedClient,
)
from requests_oauth2client.exceptions import InvalidClient
from jwskate import Jwk, SignedJwt
from urllib.parse import parse_qsl, urlencode

E = os.environ
URL, NODE, AUDIENCE, PARTY = E["INTEROP_URL"], E["INTEROP_NODE"], E["INTEROP_AUDIENCE"], E["INTEROP_PARTY"]
ACCESS_TOKEN, JWT = ("urn:ietf:params:oauth:token-type:" + kind for kind in ("access_token", "jwt"))


def seen(what):
    print("      " + what)


def refused(error, code, ask, **parameters):
    try:
        ask(**parameters)
    except error as refusal:
        found = refusal.response.json()["code"]
        assert found == code, f"{found} instead of {code}: {refusal.response.text}"
    else:
        raise AssertionError(f"not refused: {code}")


class AsNode(HTTPAdapter):
    """Requests as the node: over TLS with the key in its TPM, which requests cannot use, by node.py."""

    def send(self, request, **options):
        request = request.copy()
        request.url = request.url.replace(URL, E["INTEROP_NODE_URL"], 1)
        return super().send(request, **options)


def base64url(content):
    return urlsafe_b64encode(content).rstrip(b"=").decode()


class TpmKey(DPoPKey):
    """Proofs by the key in the TPM. The library's own key stays unused."""

    def __init__(self):
        super().__init__(Jwk.generate(alg="ES256"))

    def proof(self, htm, htu, ath=None, nonce=None):
        jwk = requests.get(E["INTEROP_NODE_URL"] + "/.tpm/jwk").json()
        claims = {"jti": str(uuid4()), "htm": htm, "htu": htu, "iat": int(time.time())}
        claims |= {"nonce": nonce} if nonce else {}
        claims |= {"ath": ath} if ath else {}
        parts = ({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}, claims)
        message = ".".join(base64url(json.dumps(part).encode()) for part in parts)
        digest = sha256(message.encode()).digest()
        signature = requests.post(E["INTEROP_NODE_URL"] + "/.tpm/sign", digest).content
        assert len(signature) == 64, signature
        return SignedJwt(f"{message}.{base64url(signature)}")


def thumbprint(jwk):
    text = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return base64url(sha256(text.encode()).digest())


class JwtSpiffe(AuthBase):
    """draft-ietf-oauth-spiffe-client-auth: a JWT-SVID for the issuer. The library has no such method yet."""

    client_id = NODE

    def __init__(self, svid):
        self.svid = svid

    def __call__(self, request):
        form = dict(parse_qsl(request.body))
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
        form["client_assertion"] = self.svid
        request.prepare_body(urlencode(form), None)
        return request


def discovered(auth, session):
    return OAuth2Client.from_discovery_endpoint(
        url=URL + "/.well-known/oauth-authorization-server", issuer=URL, auth=auth, session=session
    )


as_node = requests.Session()
as_node.mount(URL, AsNode())
as_other = requests.Session()
as_other.cert = (E["INTEROP_OTHER_CERT"], E["INTEROP_OTHER_KEY"])
node = discovered(PublicApp(NODE), as_node)
gateway = discovered(ClientSecretBasic(PARTY, E["INTEROP_SECRET"]), requests.Session())
gateway_by_post = discovered(ClientSecretPost(PARTY, E["INTEROP_SECRET"]), requests.Session())
other = discovered(PublicApp(E["INTEROP_OTHER"]), as_other)
assert OAuth2Client.from_discovery_endpoint(issuer=URL, auth=PublicApp(NODE)).issuer == URL
seen("discovery by RFC 8414, and by OpenID Connect")

wanted = {"resource": AUDIENCE, "scope": "read"}
bound = node.client_credentials(**wanted)
assert bound.token_type == "Bearer" and bound.scope == "read" and 0 < bound.expires_in <= 300
in_software = DPoPKey.generate()
proved = node.client_credentials(**wanted, dpop=True, dpop_key=in_software)
assert isinstance(proved, DPoPToken)
tpm = TpmKey()
by_tpm = node.client_credentials(**wanted, dpop=True, dpop_key=tpm)
jwk = requests.get(E["INTEROP_NODE_URL"] + "/.tpm/jwk").json()
told = gateway.introspect_token(by_tpm)
assert told["cnf"] == {"jkt": thumbprint(jwk)}, told
seen("client credentials over mTLS, with DPoP by a key in software, and by the key in the TPM")

for client in (gateway, gateway_by_post):
    told = client.introspect_token(proved)
    assert told["active"] is True and told["sub"] == NODE and told["aud"] == AUDIENCE, told
    assert told["cnf"]["jkt"] == in_software.dpop_jkt
assert other.introspect_token(proved) == {"active": False}, "it is not for it"
assert gateway.introspect_token("no token") == {"active": False}
seen("introspection by client_secret_basic, client_secret_post and mTLS")

svid = as_node.post(node.token_endpoint, {"grant_type": "client_credentials", "audience": URL, "requested_token_type": JWT})
assert svid.json()["token_type"] == "N_A", svid.text
by_assertion = discovered(JwtSpiffe(svid.json()["access_token"]), requests.Session())
assertion_token = by_assertion.client_credentials(**wanted, dpop=True, dpop_key=TpmKey())
assert gateway.introspect_token(assertion_token)["cnf"] == {"jkt": thumbprint(jwk)}
refused(InvalidClient, "assertion_unproven", by_assertion.client_credentials, **wanted)
refused(InvalidClient, "assertion_unproven", by_assertion.client_credentials, **wanted, dpop=True)
seen("client credentials by a JWT-SVID: only with a proof by the key in the TPM that it names")

passed = gateway.token_exchange(
    subject_token=bound.access_token, subject_token_type=ACCESS_TOKEN, audience=E["INTEROP_OTHER_AUDIENCE"], scope="read"
)
told = other.introspect_token(passed)
assert told["active"] is True and told["sub"] == NODE and told["act"] == {"sub": PARTY}, told
by_other = other.token_exchange(
    subject_token=passed.access_token, subject_token_type=ACCESS_TOKEN, audience=AUDIENCE, scope="read"
)
told = gateway.introspect_token(by_other)
assert told["act"] == {"sub": E["INTEROP_OTHER"], "act": {"sub": PARTY}} and "x5t#S256" in told["cnf"], told
seen("token exchange, by one that acts for another that acts for the node")

refused(InvalidScope, "exchange_widened", gateway.token_exchange, subject_token=bound.access_token,
        subject_token_type=ACCESS_TOKEN, audience=E["INTEROP_OTHER_AUDIENCE"], scope="deploy")
refused(UnauthorizedClient, "client_not_a_node", gateway.client_credentials, **wanted)
refused(InvalidScope, "unknown_action", node.client_credentials, resource=AUDIENCE, scope="destroy")
seen("refusals, by the library's exceptions")

assert gateway.revoke_access_token(passed) is True
assert other.introspect_token(passed) == {"active": False}
assert node.revoke_access_token(bound) is True and node.revoke_access_token(bound) is True
assert gateway.introspect_token(bound) == {"active": False}
seen("revocation")

assert gateway.introspect_token(by_tpm)["active"] is True
subprocess.run(["drift"], check=True)
for token in (proved, by_tpm, assertion_token, by_other):
    assert gateway.introspect_token(token) == {"active": False}
refused(UnauthorizedClient, "posture_contraindicated", node.client_credentials, **wanted)
refused(UnauthorizedClient, "posture_contraindicated", node.client_credentials, **wanted, dpop=True, dpop_key=TpmKey())
refused(InvalidClient, "assertion_drifted", by_assertion.client_credentials, **wanted, dpop=True, dpop_key=TpmKey())
refused(InvalidRequest, "token_drifted", gateway.token_exchange, subject_token=proved.access_token,
        subject_token_type=ACCESS_TOKEN, audience=E["INTEROP_OTHER_AUDIENCE"], scope="read")
seen("after the drift: inactive, and no token any more, whichever way")
sys.exit(0)
