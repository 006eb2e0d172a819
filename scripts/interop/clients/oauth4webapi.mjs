// oauth4webapi, whose validators are strict, and jose: as a resource server reads what the verifier mints.

import * as oauth from "oauth4webapi";
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import { ACCESS_TOKEN, AUDIENCE, JWT, NODE, OTHER_AUDIENCE, PARTY, SECRET, TOKEN_EXCHANGE, URL_OF_VERIFIER, assert, drift,
  fetchAsNode, seen } from "./common.mjs";

const issuer = new URL(URL_OF_VERIFIER);
const discovered = async (algorithm) =>
  oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm }));
const server = await discovered("oauth2");
const openid = await discovered("oidc");
assert.deepEqual(server.dpop_signing_alg_values_supported, ["ES256"]);
assert.equal(server.tls_client_certificate_bound_access_tokens, true);
assert.notEqual(server.jwks_uri, openid.jwks_uri);
seen("discovery by RFC 8414, and by OpenID Connect: other keys for JWT-SVIDs");

const asNode = { [oauth.customFetch]: fetchAsNode };
const node = { client_id: NODE, authorization_signed_response_alg: "ES256" };
const gateway = { client_id: PARTY, introspection_signed_response_alg: "ES256" };
const secret = oauth.ClientSecretBasic(SECRET);

// RFC 8693, 2.2.1: the type of a JWT-SVID, which is no access token. The library knows it where one says so.
const recognized = { recognizedTokenTypes: { n_a: () => {} } };

/** A token for the node, with a proof where there is a handle: once more with the nonce, as RFC 9449, 8, has it. */
async function credentials(parameters, DPoP) {
  const ask = () =>
    oauth.clientCredentialsGrantRequest(server, node, oauth.TlsClientAuth(), new URLSearchParams(parameters), { ...asNode, DPoP });
  try {
    return await oauth.processClientCredentialsResponse(server, node, await ask(), recognized);
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    return oauth.processClientCredentialsResponse(server, node, await ask(), recognized);
  }
}

const keys = await oauth.generateKeyPair("ES256");
const DPoP = oauth.DPoP(node, keys);
const first = oauth.clientCredentialsGrantRequest(server, node, oauth.TlsClientAuth(), new URLSearchParams({ resource: AUDIENCE }),
  { ...asNode, DPoP });
await assert.rejects(first.then((answer) => oauth.processClientCredentialsResponse(server, node, answer)), oauth.isDPoPNonceError,
  "a proof without a nonce");
const details = [{ type: "rootbound_action", actions: ["deploy"], resource: { type: "resource", id: "web" } }];
const proved = await credentials({ resource: AUDIENCE, scope: "read", authorization_details: JSON.stringify(details) }, DPoP);
assert.equal(proved.token_type, "dpop");
assert.equal(proved.scope, "read");
assert.deepEqual(proved.authorization_details, details);
const bound = await credentials({ audience: AUDIENCE });
assert.equal(bound.token_type, "bearer");
seen("client credentials, with the nonce retried, and authorization_details");

/** A request as a resource server gets it. */
async function shown(url, token, handle) {
  const seenByServer = {};
  const keep = (at, options) => {
    seenByServer.request = new Request(at, { method: options.method, headers: options.headers });
    return new Response(null, { status: 204 });
  };
  await oauth.protectedResourceRequest(token, "GET", new URL(url), undefined, undefined, { [oauth.customFetch]: keep, DPoP: handle });
  return seenByServer.request;
}
const claims = await oauth.validateJwtAccessToken(server, await shown(`${AUDIENCE}/orders?page=2`, proved.access_token, DPoP),
  AUDIENCE, { requireDPoP: true, signingAlgorithms: ["ES256"] });
assert.equal(claims.sub, NODE);
assert.equal(claims.client_id, NODE);
assert.equal(claims.iss, URL_OF_VERIFIER);
assert.equal(claims.scope, "read");
assert.deepEqual(claims.authorization_details, details);
assert.equal(claims.cnf.jkt, await DPoP.calculateThumbprint());
assert.ok(claims.exp - claims.iat === proved.expires_in && claims.exp - claims.iat <= 300);
assert.equal(typeof claims.rootbound_posture_epoch, "number");
const asShown = { requireDPoP: true, signingAlgorithms: ["ES256"] };
await assert.rejects(oauth.validateJwtAccessToken(server, await shown(AUDIENCE, proved.access_token, DPoP), OTHER_AUDIENCE, asShown),
  "for another audience");
const thief = oauth.DPoP(node, await oauth.generateKeyPair("ES256"));
await assert.rejects(oauth.validateJwtAccessToken(server, await shown(AUDIENCE, proved.access_token, thief), AUDIENCE, asShown),
  "with another key");
await assert.rejects(oauth.validateJwtAccessToken(server, await shown(AUDIENCE, bound.access_token), AUDIENCE), /Confirmation/,
  "it does not know mTLS binding, and takes no such token for a bearer token");
await assert.rejects(oauth.validateJwtAccessToken(openid, await shown(AUDIENCE, proved.access_token, DPoP), AUDIENCE, asShown),
  "by the keys of JWT-SVIDs");
seen("validateJwtAccessToken accepts it with its proof, and refuses another audience, another key, other keys of ours");

const introspect = async (token, options) => {
  const answer = await oauth.introspectionRequest(server, gateway, secret, token, options);
  const told = await oauth.processIntrospectionResponse(server, gateway, answer);
  return { answer, told };
};
const plain = await introspect(proved.access_token, { requestJwtResponse: false });
assert.equal(plain.told.active, true);
assert.deepEqual(plain.told.authorization_details, details);
const signed = await introspect(proved.access_token);
assert.match(signed.answer.headers.get("content-type"), /^application\/token-introspection\+jwt/);
await oauth.validateApplicationLevelSignature(server, signed.answer);
assert.deepEqual({ ...signed.told }, { ...plain.told });
seen("introspection, and the signed form of RFC 9701");

const tokenKeys = createRemoteJWKSet(new URL(server.jwks_uri));
const svidKeys = createRemoteJWKSet(new URL(openid.jwks_uri));
await jwtVerify(proved.access_token, tokenKeys, { typ: "at+jwt", issuer: URL_OF_VERIFIER, audience: AUDIENCE, algorithms: ["ES256"] });
const answer = await oauth.introspectionRequest(server, gateway, secret, proved.access_token);
await jwtVerify(await answer.text(), tokenKeys, { typ: "token-introspection+jwt", issuer: URL_OF_VERIFIER, audience: PARTY });
const vault = "https://vault.demo.example";
const svid = await credentials({ audience: vault, requested_token_type: JWT });
assert.equal(svid.token_type, "n_a");
const said = await jwtVerify(svid.access_token, svidKeys, { issuer: openid.issuer, audience: vault, subject: NODE, algorithms: ["ES256"] });
assert.ok(said.payload.exp - said.payload.iat <= 300);
assert.ok([undefined, "JWT", "JOSE"].includes(decodeProtectedHeader(svid.access_token).typ));
await assert.rejects(jwtVerify(svid.access_token, tokenKeys), { code: "ERR_JWKS_NO_MATCHING_KEY" });
await assert.rejects(jwtVerify(proved.access_token, svidKeys), { code: "ERR_JWKS_NO_MATCHING_KEY" });
seen("jose verifies an access token, an introspection and a JWT-SVID, and takes neither by the keys of the other");

const exchanged = await oauth.processGenericTokenEndpointResponse(server, gateway,
  await oauth.genericTokenEndpointRequest(server, gateway, secret, TOKEN_EXCHANGE,
    new URLSearchParams({ subject_token: bound.access_token, subject_token_type: ACCESS_TOKEN, audience: OTHER_AUDIENCE })));
const passedOn = await jwtVerify(exchanged.access_token, tokenKeys, { typ: "at+jwt", audience: OTHER_AUDIENCE });
assert.deepEqual(passedOn.payload.act, { sub: PARTY });
assert.equal(passedOn.payload.sub, NODE);
const bearer = await oauth.validateJwtAccessToken(server, await shown(OTHER_AUDIENCE, exchanged.access_token), OTHER_AUDIENCE);
assert.equal(bearer.client_id, PARTY);
seen("token exchange");

const once = await credentials({ resource: AUDIENCE, one_time: "true" }, DPoP);
assert.equal((await introspect(once.access_token)).told.active, true);
assert.deepEqual({ ...(await introspect(once.access_token)).told }, { active: false }, "it was good for one use");
const ended = await credentials({ resource: AUDIENCE });
await oauth.processRevocationResponse(
  await oauth.revocationRequest(server, node, oauth.TlsClientAuth(), ended.access_token, { ...asNode, additionalParameters: { token_type_hint: "access_token" } }));
assert.deepEqual({ ...(await introspect(ended.access_token)).told }, { active: false });
seen("a token for one use, and revocation");

drift();
for (const requestJwtResponse of [true, false]) {
  const after = await introspect(proved.access_token, { requestJwtResponse });
  assert.deepEqual({ ...after.told }, { active: false });
  if (requestJwtResponse) await oauth.validateApplicationLevelSignature(server, after.answer);
}
await assert.rejects(credentials({ resource: AUDIENCE }, DPoP), (error) => {
  assert.ok(error instanceof oauth.ResponseBodyError);
  assert.equal(error.error, "unauthorized_client");
  assert.equal(error.cause.code, "posture_contraindicated");
  return true;
});
// Whoever only verifies signatures does not hear of it: the token lives on there for its minutes.
await jwtVerify(proved.access_token, tokenKeys, { typ: "at+jwt", audience: AUDIENCE });
seen("after the drift: inactive, and no token any more; a reader that does not ask takes it until it expires");
