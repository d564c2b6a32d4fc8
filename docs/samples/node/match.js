// Asks a server about a text and prints its verdict: node match.js HOST:PORT TEXT
const path = require("path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const protos = path.join(__dirname, "../../../proto");
const definition = loader.loadSync("simsearch/v1/match.proto", {
  includeDirs: [protos],
  enums: String,
  longs: String,
  defaults: true,
});
const { MatchService } = grpc.loadPackageDefinition(definition).simsearch.v1;

// gRPC's own retries: the server says by grpc-retry-pushback-ms when to come back.
const serviceConfig = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "simsearch.v1.MatchService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

const [address, text] = process.argv.slice(2);
const client = new MatchService(address, grpc.credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify(serviceConfig),
});
const metadata = new grpc.Metadata();
metadata.set("simsearch-priority", "interactive");
const deadline = new Date(Date.now() + 10_000);

client.Match({ content: { text } }, metadata, { deadline }, (error, answer) => {
  if (error) {
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
  } else {
    const { verdict, complete, hits } = answer.result;
    console.log(JSON.stringify({ verdict, complete, entries: hits.map((hit) => hit.entryKey) }));
  }
  client.close();
});
