// Revenue Monster's own SDK for JavaScript in a process: a call in, what came of it out, as JSON
// lines. Run with the folder of the package and the emulator's URL.
//
// Nothing of it is changed but where its requests go: its hosts are written into it.
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const readline = require("readline");

const [folder, url] = process.argv.slice(2);
const { RMSDK } = require(folder);
const { generateSignature } = require(path.join(folder, "dist", "signature"));

let sdk;
let refused;
// It tells an error nowhere else, and answers nothing.
console.error = (error) => {
  refused = error.response ? error.response.data : String(error);
};

async function construct({ clientID, clientSecret, privateKey }) {
  sdk = RMSDK({
    clientId: clientID,
    clientSecret,
    privateKey: fs.readFileSync(privateKey, "utf8"),
    timeout: 30000,
  });
  sdk.oauthUrl = sdk.oauthInstance.defaults.baseURL = `${url}/v1`;
  sdk.openApiUrl = sdk.openApiInstance.defaults.baseURL = `${url}/v3`;
  const token = await sdk.getClientCredentials();
  return token && [token.accessToken, token.refreshToken];
}

// A request as its own methods make them, to a path that it has none for.
function request(token, method, target, data) {
  const nonceStr = crypto.randomBytes(32).toString("hex");
  const timestamp = new Date().getTime().toString();
  const requestUrl = `${sdk.openApiUrl}/${target}`;
  const signType = "sha256";
  const signed = { data, requestUrl, nonceStr, signType, method, timestamp };
  return sdk
    .openApiInstance({
      url: target,
      method,
      data,
      headers: {
        Authorization: `Bearer ${token}`,
        "X-Timestamp": timestamp,
        "X-Nonce-Str": nonceStr,
        "X-Signature": `sha256 ${generateSignature(signed, sdk.privateKey)}`,
      },
    })
    .then((answer) => answer.data)
    .catch((error) => console.error(error));
}

// The signature of a body; a text, because a number in it may be another one to Python.
function sign(keyFile, body, parts) {
  const data = body ? JSON.parse(body) : null;
  return generateSignature({ data, signType: "sha256", ...parts }, fs.readFileSync(keyFile, "utf8"));
}

async function call(name, given) {
  refused = undefined;
  const own = { RMSDK: construct, request, sign };
  const answer = await (name in own ? own[name](...given) : sdk[name](...given));
  return refused === undefined ? { answer } : { refused };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let outcome;
    try {
      outcome = await call(...JSON.parse(line));
    } catch (error) {
      outcome = { refused: String(error) };
    }
    process.stdout.write(`${JSON.stringify(outcome)}\n`);
  }
  process.exit(0); // not after the connections that it keeps
}

main();
