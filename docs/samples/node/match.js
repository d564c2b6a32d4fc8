// Match one text: node match.js TEXT. The server's address is in SERVER.
// With SIMSEARCH_CA (a file), the connection uses TLS; SIMSEARCH_TOKEN is then sent as well.
"use strict";

const fs = require("fs");
const path = require("path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const SAMPLES = path.join(__dirname, "..");
const PROTOS = path.join(SAMPLES, "../../proto");
const DEADLINE_MS = 5000;

const loaded = protoLoader.loadSync(
  ["simsearch/v1/match.proto", path.join(__dirname, "rpc_status.proto")],
  { includeDirs: [PROTOS], keepCase: true, enums: String, longs: String, defaults: true, oneofs: true },
);
const { MatchService } = grpc.loadPackageDefinition(loaded).simsearch.v1;

function connect(server) {
  const ca = process.env.SIMSEARCH_CA;
  const credentials = ca
    ? grpc.credentials.createSsl(fs.readFileSync(ca))
    : grpc.credentials.createInsecure();
  return new MatchService(server, credentials, {
    "grpc.service_config": fs.readFileSync(path.join(SAMPLES, "service_config.json"), "utf8"),
  });
}

function metadata() {
  const sent = new grpc.Metadata();
  sent.set("simsearch-priority", "interactive");
  // A token is never sent in clear text.
  if (process.env.SIMSEARCH_TOKEN && process.env.SIMSEARCH_CA) {
    sent.set("authorization", `Bearer ${process.env.SIMSEARCH_TOKEN}`);
  }
  return sent;
}

// The reason of a failed call, as docs/errors.md lists it; undefined for a failure of the network.
function reasonOf(error) {
  const [bytes] = error.metadata ? error.metadata.get("grpc-status-details-bin") : [];
  if (!bytes) return undefined;
  for (const detail of loaded["google.rpc.Status"].deserialize(bytes).details) {
    if (!detail.type_url.endsWith("/google.rpc.ErrorInfo")) continue;
    const info = loaded["google.rpc.ErrorInfo"].deserialize(detail.value);
    if (info.domain === "simsearch") return info.reason;
  }
  return undefined;
}

const client = connect(process.env.SERVER || "127.0.0.1:50070");
const request = { content: { text: process.argv[2] || "" } };
const options = { deadline: Date.now() + DEADLINE_MS };

client.Match(request, metadata(), options, (error, response) => {
  client.close();
  if (error) {
    console.error(`${grpc.status[error.code]} ${reasonOf(error) || "-"}: ${error.details}`);
    process.exitCode = 1;
    return;
  }
  const { verdict, complete, hits } = response.result;
  console.log(`${verdict} complete=${complete}`);
  for (const hit of hits) console.log(`${hit.bank} ${hit.entry_key} ${hit.band}`);
});
