// openid-client: what most services on Node.js use. A node by its certificate, and relying parties by secret and certificate.

import * as client from "openid-client";
import { ACCESS_TOKEN, AUDIENCE, NODE, OTHER, OTHER_AUDIENCE, PARTY, SECRET, TOKEN_EXCHANGE, URL_OF_VERIFIER, assert, drift,
  fetchAsNode, fetchAsOther, seen } from "./common.mjs";

const server = new URL(URL_OF_VERIFIER);
const found = (name, authentication, fetch, algorithm = "oauth2") =>
  client.discovery(server, name, undefined, authentication, { algorithm, ...(fetch && { [client.customFetch]: fetch }) });

const node = await found(NODE, client.TlsClientAuth(), fetchAsNode);
const gateway = await found(PARTY, client.ClientSecretBasic(SECRET));
const gatewayByPost = await found(PARTY, client.ClientSecretPost(SECRET));
const billing = await found(OTHER, client.TlsClientAuth(), fetchAsOther);
const oidc = await found(PARTY, client.ClientSecretBasic(SECRET), undefined, "oidc");
assert.equal(oidc.serverMetadata().issuer, URL_OF_VERIFIER);
assert.ok(oidc.serverMetadata().supportsPKCE() === false);
seen("discovery by RFC 8414, and by OpenID Connect");

const wanted = { resource: AUDIENCE, scope: "read" };
const bound = await client.clientCredentialsGrant(node, wanted);
assert.equal(bound.token_type, "bearer");
assert.equal(bound.scope, "read");
assert.ok(bound.expires_in > 0 && bound.expires_in <= 300, `${bound.expires_in}`);

const keys = await client.randomDPoPKeyPair("ES256");
const handle = client.getDPoPHandle(node, keys);
const proved = await client.clientCredentialsGrant(node, wanted, { DPoP: handle });
assert.equal(proved.token_type, "dpop");
seen("client credentials over mTLS, and with DPoP and its nonce");

for (const config of [gateway, gatewayByPost]) {
  const told = await client.tokenIntrospection(config, proved.access_token);
  assert.equal(told.active, true);
  assert.equal(told.sub, NODE);
  assert.equal(told.iss, URL_OF_VERIFIER);
  assert.equal(told.aud, AUDIENCE);
  assert.equal(told.token_type, "DPoP");
  assert.equal(told.cnf.jkt, await handle.calculateThumbprint());
}
const told = await client.tokenIntrospection(gateway, bound.access_token);
assert.equal(typeof told.cnf["x5t#S256"], "string");
assert.deepEqual(await client.tokenIntrospection(billing, bound.access_token), { active: false }, "it is not for billing");
seen("introspection by client_secret_basic, client_secret_post and mTLS");

const exchange = (config, token, options) =>
  client.genericGrantRequest(config, TOKEN_EXCHANGE, { subject_token: token, subject_token_type: ACCESS_TOKEN,
    resource: OTHER_AUDIENCE, scope: "read" }, options);
const passed = await exchange(gateway, bound.access_token, { DPoP: client.getDPoPHandle(gateway, keys) });
assert.equal(passed.issued_token_type, ACCESS_TOKEN);
const passedOn = await client.tokenIntrospection(billing, passed.access_token);
assert.equal(passedOn.active, true);
assert.equal(passedOn.sub, NODE);
assert.deepEqual(passedOn.act, { sub: PARTY });
assert.equal(passedOn.client_id, PARTY);
seen("token exchange: the gateway acts for the node");

await assert.rejects(exchange(billing, bound.access_token), refusal("invalid_request", 400));
await assert.rejects(client.clientCredentialsGrant(node, { resource: AUDIENCE, scope: "destroy" }), refusal("invalid_scope", 400));
await assert.rejects(client.clientCredentialsGrant(gateway, wanted), refusal("unauthorized_client", 400));
const stranger = await found(PARTY, client.ClientSecretBasic(SECRET.replace(/^./, (first) => (first === "A" ? "B" : "A"))));
await assert.rejects(client.clientCredentialsGrant(stranger, wanted), (error) => {
  assert.ok(error instanceof client.WWWAuthenticateChallengeError || error instanceof client.ResponseBodyError, `${error}`);
  assert.equal(error.status, 401);
  return true;
});
seen("refusals, by their error codes");

const ended = await client.clientCredentialsGrant(node, wanted);
await client.tokenRevocation(node, ended.access_token);
await client.tokenRevocation(node, ended.access_token);
assert.deepEqual(await client.tokenIntrospection(gateway, ended.access_token), { active: false });
await client.tokenRevocation(gateway, passed.access_token);
assert.deepEqual(await client.tokenIntrospection(billing, passed.access_token), { active: false });
seen("revocation");

assert.equal((await client.tokenIntrospection(gateway, bound.access_token)).active, true);
drift();
for (const token of [bound, proved]) {
  assert.deepEqual(await client.tokenIntrospection(gateway, token.access_token), { active: false });
}
await assert.rejects(client.clientCredentialsGrant(node, wanted), refusal("unauthorized_client", 400));
await assert.rejects(exchange(gateway, bound.access_token), refusal("invalid_request", 400));
seen("after the drift: inactive, and no token any more");

function refusal(error, status) {
  return (thrown) => {
    assert.equal(thrown.error, error, `${thrown.stack} ${thrown.cause && JSON.stringify(thrown.cause)}`);
    assert.equal(thrown.status, status);
    return true;
  };
}
