// What a TypeScript user writes against the types that openapi-typescript makes. Arguments: address, id of a data set.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [address, dataset] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: address });

const spec: components["schemas"]["JobSpec"] = {
  model: { type: "catalog", name: "shapes" },
  method: { type: "diffusion_dpo", dataset: { type: "stored", id: dataset } },
  reference: { type: "ema", every: 10 },
  evaluation: { prompts: ["a red circle"], rewards: [{ type: "colorfulness" }] },
};
const made = await client.POST("/v1/jobs", { body: { name: "typed", spec } });
if (made.error) throw new Error(JSON.stringify(made.error));
const found = await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: made.data.id } } });
if (found.error) throw new Error(JSON.stringify(found.error));
const status: components["schemas"]["Job"]["status"] = found.data.status;
console.log(JSON.stringify({ id: found.data.id, status, reference: found.data.spec.reference?.type }));
