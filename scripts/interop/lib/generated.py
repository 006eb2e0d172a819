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
    "scope": ["read", "read deploy", "read read"],
    "authorization_details": ['[{"type":"rootbound_action","actions":["read"],"resource":{"type":"resource","id":"web"}}]'],
    "client_id": [E["INTEROP_PARTY"]],
    "one_time": [True],
    "node": [E["INTEROP_NODE"].rsplit("/", 1)[1]],
}
# Of these a request has one at most, and that is in its headers or its certificate: otherwise it gets no further.
OTHER_WAYS = ("client_secret", "client_assertion", "client_assertion_type")


@schemathesis.hook
def flatmap_body(context, body):
    if not isinstance(body, dict):
        return st.just(body)
    known = {name: st.sampled_from(values) for name, values in KNOWN.items() if name in body or name == "subject_token"}

    def changed(chosen, only_ours):
        if "grant_type" in body and only_ours:
            # Each of the two has its own parameters.
            kept = {name: value for name, value in {**body, **chosen}.items() if name not in OTHER_WAYS}
            if kept["grant_type"] == "client_credentials":
                kept = {name: value for name, value in kept.items() if not name.startswith("subject_")}
            else:
                kept |= {"subject_token_type": ACCESS_TOKEN}
            return kept
        return {**body, **{name: value for name, value in chosen.items() if name in body}}

    return st.one_of(st.just(body), st.builds(changed, st.fixed_dictionaries(known), st.just(True)))


@schemathesis.hook
def flatmap_path_parameters(context, path_parameters):
    if isinstance(path_parameters, dict) and "node" in path_parameters:
        return st.sampled_from([path_parameters, {**path_parameters, "node": KNOWN["node"][0]}])
    return st.just(path_parameters)
