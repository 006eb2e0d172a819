// What every client of Node.js needs: where things are, the ways to the verifier, and words for what was seen.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import https from "node:https";

export const {
  INTEROP_URL: URL_OF_VERIFIER,
  INTEROP_NODE: NODE,
  INTEROP_PARTY: PARTY,
  INTEROP_SECRET: SECRET,
  INTEROP_AUDIENCE: AUDIENCE,
  INTEROP_OTHER: OTHER,
  INTEROP_OTHER_AUDIENCE: OTHER_AUDIENCE,
  INTEROP_TRUST_DOMAIN: TRUST_DOMAIN,
} = process.env;

export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
export const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
export const JWT = "urn:ietf:params:oauth:token-type:jwt";

/** `fetch` as the node: over TLS with the key in its TPM, which Node.js cannot use, by node.py. */
export function fetchAsNode(url, options) {
  const { pathname, search } = new URL(url);
  return fetch(process.env.INTEROP_NODE_URL + pathname + search, options);
}

const agent = new https.Agent({
  cert: readFileSync(process.env.INTEROP_OTHER_CERT),
  key: readFileSync(process.env.INTEROP_OTHER_KEY),
  ca: readFileSync(process.env.INTEROP_CA),
});

/** `fetch` as the relying party with a certificate; Node's own `fetch` takes none. */
export function fetchAsOther(url, options) {
  return new Promise((resolve, reject) => {
    const headers = Object.fromEntries(new Headers(options.headers));
    const request = https.request(url, { agent, method: options.method, headers }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("error", reject);
      answer.on("end", () => {
        const body = Buffer.concat(parts);
        const init = { status: answer.statusCode, headers: answer.headers };
        resolve(new Response(body.length > 0 ? body : null, init));
      });
    });
    request.on("error", reject);
    request.end(options.body?.toString());
  });
}

/** Somebody measures something that nobody knows; returns once the verifier has seen it. */
export const drift = () => execFileSync("drift");

export function seen(what) {
  console.log(`      ${what}`);
}

// An answer in full says nothing more than this, at a hundred lines.
process.on("uncaughtException", (error) => {
  console.error(error.stack, error.cause?.body ?? error.cause?.error ?? error.cause?.message ?? error.cause ?? "");
  process.exit(1);
});

export { assert };
