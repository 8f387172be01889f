// The least HTTP function in Node. AWS's own client of the runtime API has to be compiled with node-gyp; this loop does
// what that does for an answer that does not stream, and nothing else, which flatters Node.

import http from "node:http";

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true });

const call = (method, path, body) =>
  new Promise((resolve, reject) => {
    const request = http.request({ agent, host, port, method, path: `/2018-06-01/runtime/invocation/${path}` }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (more) => (text += more));
      answer.on("end", () => resolve({ headers: answer.headers, text }));
    });
    request.on("error", reject);
    request.end(body);
  });

const handler = async () => ({ statusCode: 200, body: "hello" });

for (;;) {
  const { headers, text } = await call("GET", "next");
  const answer = await handler(JSON.parse(text));
  await call("POST", `${headers["lambda-runtime-aws-request-id"]}/response`, JSON.stringify(answer));
}
