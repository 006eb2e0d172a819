// What `rootbound-attester` prints for workloads, as oauth4webapi and jose read it: the proof is the TPM's, the validators are not ours.

import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { promisify } from "node:util";
import * as oauth from "oauth4webapi";
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import { AUDIENCE, NODE, PARTY, SECRET, URL_OF_VERIFIER, assert, drift, seen } from "./common.mjs";

const [program, ...words] = process.env.INTEROP_ATTESTER.split(" ");
const attester = async (...more) => (await promisify(execFile)(program, [...words, ...more])).stdout.trim();

const issuer = new URL(URL_OF_VERIFIER);
const discovered = async (algorithm) =>
  oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm }));
const server = await discovered("oauth2");
const gateway = { client_id: PARTY };
const introspect = async (token) => oauth.processIntrospectionResponse(server, gateway,
  await oauth.introspectionRequest(server, gateway, oauth.ClientSecretBasic(SECRET), token));

const token = await attester("token", "--audience", AUDIENCE, "--action", "read");
const file = `${process.env.INTEROP_WORK}/token`;
writeFileSync(file, `${token}\n`);
const url = `${AUDIENCE}/orders`;
const proof = await attester("proof", "--method", "GET", "--url", url, "--token-file", file);
const shown = (at, method, scheme) => new Request(at, { method, headers: { authorization: `${scheme} ${token}`, DPoP: proof } });
const strict = { requireDPoP: true, signingAlgorithms: ["ES256"] };
const claims = await oauth.validateJwtAccessToken(server, shown(`${url}?page=2`, "GET", "DPoP"), AUDIENCE, strict);
assert.equal(claims.sub, NODE);
assert.equal(claims.client_id, NODE);
for (const [what, request] of [
  ["another method", shown(url, "POST", "DPoP")],
  ["another URL", shown(`${url}/1`, "GET", "DPoP")],
  ["as a bearer token", shown(url, "GET", "Bearer")],
]) {
  await assert.rejects(oauth.validateJwtAccessToken(server, request, AUDIENCE, strict), what);
}
seen("oauth4webapi validates its token with the TPM's proof, and refuses another method, another URL, the token as a bearer's");

const told = await introspect(token);
assert.equal(told.active, true);
assert.equal(told.cnf.jkt, claims.cnf.jkt);
const byCertificate = await introspect(await attester("token", "--audience", AUDIENCE, "--binding", "certificate"));
assert.equal(typeof byCertificate.cnf["x5t#S256"], "string");
seen("introspection says the same");

const { jwks_uri, issuer: iss } = await discovered("oidc");
const svid = await attester("token", "--audience", "sts.amazonaws.com", "--jwt-svid");
const { payload } = await jwtVerify(svid, createRemoteJWKSet(new URL(jwks_uri)), { issuer: iss, audience: "sts.amazonaws.com", subject: NODE });
assert.ok(payload.exp - payload.iat <= 300);
assert.equal(typeof decodeProtectedHeader(svid).kid, "string");
seen("jose verifies its JWT-SVID by OpenID Connect discovery");

drift();
assert.deepEqual({ ...(await introspect(token)) }, { active: false });
await assert.rejects(attester("token", "--audience", AUDIENCE, "--action", "read"), (error) => {
  assert.equal(error.code, 4, error.stderr);
  assert.match(error.stderr, /posture_contraindicated/);
  return true;
});
seen("after the drift: inactive, and no token any more");
