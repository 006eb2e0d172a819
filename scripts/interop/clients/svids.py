"""py-spiffe, PyJWT and cryptography: what knows of SPIFFE or OpenID Connect alone reads our SVIDs by what the verifier publishes."""

import base64
import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store
from spiffe import JwtBundle, JwtSvid, TrustDomain, X509Bundle, X509Svid

E = os.environ
URL, NODE, VAULT = E["INTEROP_URL"], E["INTEROP_NODE"], "https://vault.demo.example"
DOMAIN = TrustDomain(E["INTEROP_TRUST_DOMAIN"])


def seen(what):
    print("      " + what)


def get(url):
    with urllib.request.urlopen(url) as answer:
        return answer.headers.get_content_type(), json.load(answer)


def jwt_svid(audience):
    form = {"grant_type": "client_credentials", "audience": audience,
            "requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}
    with urllib.request.urlopen(E["INTEROP_NODE_URL"] + "/oauth2/token", urllib.parse.urlencode(form).encode()) as answer:
        return json.load(answer)["access_token"]


def refused(what, verify):
    try:
        verify()
    except Exception as error:  # noqa: BLE001: each library has its own
        assert not isinstance(error, (AttributeError, TypeError, NameError)), error
    else:
        raise AssertionError(f"not refused: {what}")


# A trust bundle as the federation endpoint of SPIFFE has it. py-spiffe reads each half by itself, as the Workload API hands it out.
media_type, bundle = get(URL + "/.well-known/spiffe-bundle")
assert media_type == "application/json"
assert isinstance(bundle["spiffe_sequence"], int) and bundle["spiffe_refresh_hint"] > 0
of_use = lambda use: [key for key in bundle["keys"] if key["use"] == use]
assert all(len(key["x5c"]) == 1 for key in of_use("x509-svid"))
jwt_bundle = JwtBundle.parse(DOMAIN, json.dumps({"keys": of_use("jwt-svid")}).encode())
x509_bundle = X509Bundle.parse_raw(DOMAIN, b"".join(base64.b64decode(key["x5c"][0]) for key in of_use("x509-svid")))
assert len(jwt_bundle.jwt_authorities) >= 1 and len(x509_bundle.x509_authorities) == 1
seen("py-spiffe reads the bundle")

token = jwt_svid(VAULT)
svid = JwtSvid.parse_and_validate(token, jwt_bundle, {VAULT})
assert str(svid.spiffe_id) == NODE and svid.audience == {VAULT}
refused("another audience", lambda: JwtSvid.parse_and_validate(token, jwt_bundle, {URL}))
other_domain = JwtBundle(TrustDomain("other.example"), jwt_bundle.jwt_authorities)
refused("another trust domain", lambda: JwtSvid.parse_and_validate(token, other_domain, {VAULT}))
tokens = JwtBundle.parse(DOMAIN, json.dumps(get(URL + "/.well-known/jwks.json")[1]).encode())
refused("keys of access tokens", lambda: JwtSvid.parse_and_validate(token, tokens, {VAULT}))
seen("py-spiffe validates a JWT-SVID, and refuses other audiences, trust domains and keys")

# The key stays in the TPM: py-spiffe wants one beside the certificates, and does not look at it.
placeholder = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
chain = x509.load_pem_x509_certificates(open(E["INTEROP_SVID"], "rb").read())
der = b"".join(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
assert str(X509Svid.parse_raw(der, placeholder).spiffe_id) == NODE
path = PolicyBuilder().store(Store(list(x509_bundle.x509_authorities))).build_client_verifier().verify(chain[0], chain[1:])
assert [name.value for name in path.subjects] == [NODE]
seen("py-spiffe reads the X.509-SVID, cryptography verifies its path to the bundle")

# As clouds, Vault and Kubernetes do: by the issuer's discovery document alone.
_, discovery = get(URL + "/.well-known/openid-configuration")
assert discovery["issuer"] == URL
keys = jwt.PyJWKClient(discovery["jwks_uri"])
by_discovery = lambda token, audience: jwt.decode(
    token, keys.get_signing_key_from_jwt(token), algorithms=discovery["id_token_signing_alg_values_supported"],
    audience=audience, issuer=discovery["issuer"], options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
)
claims = by_discovery(token, VAULT)
assert claims["sub"] == NODE and claims["exp"] - claims["iat"] <= 300
for name in discovery["claims_supported"]:
    assert name in claims, name
refused("another audience", lambda: by_discovery(token, "https://other.example"))
seen("PyJWT verifies it by OpenID Connect discovery")

subprocess.run(["drift"], check=True)
try:
    jwt_svid(VAULT)
except urllib.error.HTTPError as refusal:
    assert refusal.code == 400 and json.load(refusal)["code"] == "posture_contraindicated"
else:
    raise AssertionError("a JWT-SVID for a node that drifted")
# What was handed out lives on, there: nobody who verifies signatures alone hears of the drift.
assert by_discovery(token, VAULT)["sub"] == NODE
seen("after the drift: no JWT-SVID any more; the one that is out there counts until it expires")
