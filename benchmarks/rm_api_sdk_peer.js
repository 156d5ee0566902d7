// Issues by rm-api-sdk, Revenue Monster's own Node SDK, as many at once as argument 5 says.
//
// Run with the folder of the package, a URL, the file of a key, the batch, and the number of calls
// at once; a line with seconds makes a run of that length, whose throughput, without its first half
// second, and codes come back as a JSON line. Nothing of the SDK is changed but where its requests
// go: its hosts are written into it.
"use strict";

const fs = require("fs");
const readline = require("readline");

const [folder, url, keyFile, batch, concurrency] = process.argv.slice(2);
const { RMSDK } = require(folder);
const SKIP_MS = 500;

const sdk = RMSDK({
  clientId: "bench",
  clientSecret: "bench",
  privateKey: fs.readFileSync(keyFile, "utf8"),
  timeout: 30000,
});
sdk.oauthUrl = sdk.oauthInstance.defaults.baseURL = `${url}/v1`;
sdk.openApiUrl = sdk.openApiInstance.defaults.baseURL = `${url}/v3`;

async function run(token, lengthMs) {
  const begin = performance.now();
  const codes = [];
  let counted = 0;
  let end = begin;
  async function worker() {
    while (performance.now() - begin < lengthMs) {
      const answer = await sdk.issueVoucher(token, batch);
      if (!answer) process.exit(1); // the SDK has written the error
      codes.push(answer.item.code);
      end = performance.now();
      if (end - begin >= SKIP_MS) counted += 1;
    }
  }
  await Promise.all(Array.from({ length: Number(concurrency) }, worker));
  return { per_s: (counted * 1000) / (end - begin - SKIP_MS), codes };
}

async function main() {
  const { accessToken } = await sdk.getClientCredentials();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await run(accessToken, Number(line) * 1000)));
  }
  process.exit(0); // not after the connections that it keeps
}

main();
