"""Hooks of schemathesis: half of what it makes up for a few parameters becomes what really is there, so that requests get beyond
their first check."""

import os

import schemathesis
from hypothesis import strategies as st

E = os.environ
ACCESS_TOKEN, JWT = ("urn:ietf:params:oauth:token-type:" + kind for kind in ("access_token", "jwt"))
TOKENS = E.get("INTEROP_TOKENS", "").split() or ["none"]
KNOWN = {
    "grant_type": ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"],
    "token": TOKENS,
    "subject_token": TOKENS,
    "subject_token_type": [ACCESS_TOKEN],
    "requested_token_type": [ACCESS_TOKEN, JWT],
    "audience": [[E["INTEROP_OTHER_AUDIENCE"]], [E["INTEROP_AUDIENCE"], E["INTEROP_OTHER_AUDIENCE"]]],
    "resource": [[E["INTEROP_OTHER_AUDIENCE"]]],
    "scope": ["read", "read read", "read deploy"],
    "authorization_details": ['[{"type":"rootbound_action","actions":["read"],"resource":{"type":"resource","id":"web"}}]'],
    "client_id": [E["INTEROP_PARTY"]],
    "one_time": [True],
    "node": [E["INTEROP_NODE"].rsplit("/", 1)[1]],
}
# What each kind of grant has besides, and may have.
OF_CLIENT_CREDENTIALS = {"grant_type": "client_credentials"}
OF_EXCHANGE = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": ACCESS_TOKEN}
MAY_HAVE = ("requested_token_type", "resource", "scope", "authorization_details", "client_id", "one_time")


def known(*names):
    return {name: st.sampled_from(KNOWN[name]) for name in names}


@schemathesis.hook
def flatmap_body(context, body):
    if not isinstance(body, dict):
        return st.just(body)
    names = [name for name in KNOWN if name in body]
    replaced = st.fixed_dictionaries(known(*names)).map(lambda chosen: {**body, **chosen})
    if "grant_type" not in body:
        return st.one_of(st.just(body), replaced)
    maybe = known(*MAY_HAVE)
    asks = st.fixed_dictionaries(known("audience"), optional=maybe).map(lambda form: {**form, **OF_CLIENT_CREDENTIALS})
    exchange = known("audience", "subject_token")
    exchanges = st.fixed_dictionaries(exchange, optional=maybe).map(lambda form: {**form, **OF_EXCHANGE})
    # One that may be granted.
    good = st.fixed_dictionaries({**exchange, "scope": st.just("read")}).map(lambda form: {**form, **OF_EXCHANGE})
    return st.one_of(st.just(body), replaced, asks, exchanges, good)


@schemathesis.hook
def flatmap_headers(context, headers):
    if not isinstance(headers, dict) or "DPoP" not in headers:
        return st.just(headers)
    # What is made up is no proof.
    return st.sampled_from([headers, {name: value for name, value in headers.items() if name != "DPoP"}])


@schemathesis.hook
def flatmap_path_parameters(context, path_parameters):
    if isinstance(path_parameters, dict) and "node" in path_parameters:
        return st.sampled_from([path_parameters, {**path_parameters, "node": KNOWN["node"][0]}])
    return st.just(path_parameters)
