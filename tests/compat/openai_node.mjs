// What a user of the Node SDK writes, one function per test. Prints what came back as JSON; the test judges it.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_SDK_FOLDER + "/");
const OpenAI = require("openai");
const client = new OpenAI({ apiKey: process.env.OPENAI_API_KEY, baseURL: process.env.OPENAI_BASE_URL });
const file = (name, base64) => OpenAI.toFile(Buffer.from(base64, "base64"), name, { type: "image/png" });
const input = JSON.parse(process.env.INPUT || "{}");

const start = (image) => ({ ...image, b64_json: image.b64_json?.slice(0, 12) });

async function until(id) {
  for (;;) {
    const video = await client.videos.retrieve(id);
    if (video.status !== "queued" && video.status !== "in_progress") return video;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const tests = {
  async image() {
    const made = await client.images.generate({ prompt: "a fox", size: "16:9", quality: "hd", max_credits: 2 });
    const bytes = Buffer.from(await (await fetch(made.data[0].url)).arrayBuffer());
    return {
      is_same: bytes.equals(Buffer.from(made.data[0].b64_json, "base64")),
      size: made.size,
      credits: made.credits,
      request_id: made._request_id,
    };
  },

  async edit() {
    const image = await file("image.png", input.image);
    const mask = await file("mask.png", input.mask);
    const made = await client.images.edit({ image: [image, image], mask, prompt: "make it night" });
    return { image: start(made.data[0]), credits: made.credits };
  },

  async stream() {
    const events = [];
    const stream = await client.images.generate({ prompt: "a fox", stream: true, partial_images: 2 });
    for await (const event of stream) events.push({ type: event.type, index: event.partial_image_index });
    return { events };
  },

  async video() {
    const created = await client.videos.create({ prompt: "a paper boat", seconds: "4", size: "1280x720" });
    const video = await until(created.id);
    const content = await client.videos.downloadContent(video.id);
    const bytes = Buffer.from(await content.arrayBuffer());
    const task = await client.get(`/tasks/${video.id}`);
    const deleted = await client.videos.delete(video.id);
    return { video, brand: bytes.subarray(4, 8).toString(), charged: task.credits, deleted };
  },

  async pages() {
    const made = [];
    for (let number = 0; number < 3; number++) {
      made.push((await client.videos.create({ prompt: `boat ${number} [[delay=60]]`, seconds: "4" })).id);
    }
    const listed = [];
    for await (const video of client.videos.list({ limit: 2 })) listed.push(video.id);
    for (const id of made) await client.videos.delete(id);
    return { made, listed };
  },

  async models() {
    const listed = [];
    for await (const model of client.models.list()) listed.push(model.id);
    return { listed, one: await client.models.retrieve(listed[0]) };
  },

  async errors() {
    const calls = {
      BadRequestError: () => client.images.generate({ prompt: "a fox", n: 2 }),
      NotFoundError: () => client.videos.retrieve("task_nobody"),
      InternalServerError: () => client.images.generate({ prompt: "a fox [[fail]]" }),
      AuthenticationError: () => client.withOptions({ apiKey: "sk-wrong" }).models.list(),
    };
    const found = {};
    for (const [name, call] of Object.entries(calls)) {
      try {
        await call();
      } catch (error) {
        found[name] = {
          is_its_class: error instanceof OpenAI[name],
          status: error.status,
          code: error.code,
          reason: error.error?.reason,
          message: error.message,
          has_request_id: error.requestID === error.error?.request_id,
        };
      }
    }
    return { found, tasks: (await client.get("/tasks")).data.map((task) => task.status) };
  },
};

console.log(JSON.stringify(await tests[process.argv[2]]()));
