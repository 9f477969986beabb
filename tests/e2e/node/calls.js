// Calls a server through @grpc/grpc-js, with the unmodified .proto files; prints the results as JSON.
//
// node calls.js HOST:PORT PROTO_FOLDER responses|deadline

"use strict";

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [target, folder, what] = process.argv.slice(2);
const definition = loader.loadSync("inference/grpc_service.proto", {
  includeDirs: [folder],
  keepCase: true,
  longs: Number,
  defaults: true,
});
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
const client = new GRPCInferenceService(target, grpc.credentials.createInsecure());

const soon = () => ({ deadline: Date.now() + 60_000 });

function request(id, numbers, model = "identity-fp32") {
  return {
    model_name: model,
    id,
    inputs: [{ name: "x", datatype: "FP32", shape: [1, numbers.length] }],
    raw_input_contents: [Buffer.from(new Float32Array(numbers).buffer)],
  };
}

function numbers(response) {
  const [bytes] = response.raw_output_contents;
  return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(4 * index));
}

function infer(sent, options = soon()) {
  return new Promise((resolve) => {
    client.ModelInfer(sent, options, (error, response) => {
      if (!error) {
        resolve({ id: response.id, shape: response.outputs[0].shape, numbers: numbers(response) });
        return;
      }
      const details = error.metadata.get("grpc-status-details-bin").map((value) => value.toString("base64"));
      resolve({ code: error.code, message: error.details, details });
    });
  });
}

function stream(sent) {
  return new Promise((resolve, reject) => {
    const call = client.ModelStreamInfer(soon());
    const responses = [];
    call.on("data", ({ error_message, infer_response }) => {
      responses.push(error_message ? { error: error_message } : { id: infer_response.id, numbers: numbers(infer_response) });
      // Each request follows the previous response, so both directions are open at the same time.
      if (responses.length < sent.length) {
        call.write(sent[responses.length]);
      } else {
        call.end();
      }
    });
    call.on("error", reject);
    call.on("status", ({ code }) => resolve({ code, responses }));
    call.write(sent[0]);
  });
}

const calls = {
  responses: async () => ({
    unary: await infer(request("7", [0.5, 1, 2])),
    error: await infer(request("8", [1, 2])),
    stream: await stream([request("a", [1, 2, 3]), request("b", [1, 2]), request("c", [4, 5, 6])]),
  }),
  deadline: () => infer(request("9", [1, 2, 3]), { deadline: Date.now() + 1_000 }),
};

calls[what]().then((found) => {
  client.close();
  process.stdout.write(JSON.stringify(found));
});
