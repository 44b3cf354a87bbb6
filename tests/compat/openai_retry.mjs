// One image with the Node SDK as its users make it: its own retries, no idempotency key. Prints what came of it.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_SDK_FOLDER + "/");
const OpenAI = require("openai");
const client = new OpenAI({ apiKey: process.env.OPENAI_API_KEY, baseURL: process.env.OPENAI_BASE_URL });
const { body, timeout } = JSON.parse(process.env.INPUT);

try {
  const made = await client.images.generate(body, timeout ? { timeout: timeout * 1000 } : {});
  console.log(JSON.stringify({ id: made.id, status: 200 }));
} catch (error) {
  console.log(JSON.stringify({ id: null, status: error.status ?? null }));
}
