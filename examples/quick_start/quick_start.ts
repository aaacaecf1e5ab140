// A vector without meaning, texts that are embedded, and a search by text, through the gateway.
// GATEWAY_URL is its address, GATEWAY_TOKEN a token of `plinth gateway token`.
const url = process.env.GATEWAY_URL ?? "http://127.0.0.1:8000";
const headers = { authorization: `Bearer ${process.env.GATEWAY_TOKEN}`, "content-type": "application/json" };

// `path` and `body` are a request's; without a body it is a GET. An error of the gateway is a problem document.
const ask = async ({ path = "", body = {} } = {}) => {
  const isGet = Object.keys(body).length === 0;
  const answer = await fetch(url + path, {
    method: isGet ? "GET" : "POST",
    headers,
    body: isGet ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(`${content.code}: ${content.detail}`);
  return content;
};

// A job is asked for at once, and done by a worker.
const waitFor = async ({ job_id = "" }) => {
  for (let look = 0; look < 120; look++) {
    const job = await ask({ path: `/jobs/${job_id}` });
    if (job.status === "completed") return job;
    if (job.status === "failed" || job.status === "cancelled") throw new Error(`job ${job_id}: ${job.error ?? job.status}`);
    await new Promise((done) => setTimeout(done, 500));
  }
  throw new Error(`job ${job_id} did not end within a minute`);
};

const mock = await waitFor(await ask({ path: "/vectors/mock", body: { asset_id: "doc-123", segment_id: "chunk-0" } }));
console.log(`point ${mock.result.point_id}`);

const items = [
  { id: "cat", text: "A kitten sleeps on the warm windowsill", payload: { source: "web" } },
  { id: "car", text: "The engine of the old lorry needs new oil", payload: { source: "book" } },
];
await waitFor(await ask({ path: "/v1/collections/embeddings/embed", body: { items } }));

const query = { collection: "embeddings", query: "a sleeping cat", top_k: 1, filter: { match: { source: "web" } } };
const found = await ask({ path: "/search", body: query });
for (const hit of found.hits) console.log(`${hit.id} ${hit.score.toFixed(2)}`);

export {};
