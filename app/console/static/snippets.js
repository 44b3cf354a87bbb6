// The request of the form as a program: curl, Python and JavaScript with OpenAI's SDKs. Each runs as it stands, with the
// key in MEDIAGATE_KEY and the input files beside it.

const GENERATE = ["model", "prompt", "size", "quality", "background", "moderation", "output_format", "output_compression", "style"];
const EDIT = ["model", "prompt", "size", "quality", "background", "input_fidelity", "output_format", "output_compression"];
/** What the SDKs' own arguments are; all else goes into Python's `extra_body`. */

const shell = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
const python = (value) => (value === true ? "True" : value === false ? "False" : Array.isArray(value) ? `[${value.map(python).join(", ")}]` : value instanceof Code ? value.text : JSON.stringify(value));
const script = (value) => (Array.isArray(value) ? `[${value.map(script).join(", ")}]` : value instanceof Code ? value.text : JSON.stringify(value));
const indented = (lines, by) => lines.map((line) => " ".repeat(by) + line).join("\n");

/** An expression among values. */
class Code {
  constructor(text) { this.text = text; }
}

/**
 * Return the program of a request.
 * `request`: `path` below /v1, `json` (the fields), `files` ([{field, name, isList, mime}]); `kind`: curl, python or node.
 */
export function snippet(kind, request, baseUrl) {
  const base = `${baseUrl.replace(/\/+$/, "")}/v1`;
  return { curl, python: inPython, node: inNode }[kind](request, base);
}

const isImage = (request) => request.path.startsWith("images/");
const result = ({ json }) => `result.${{ jpeg: "jpg", webp: "webp" }[json.output_format] ?? "png"}`;

// --- curl -----------------------------------------------------------------------------------------------------------

function curl(request, base) {
  const json = isImage(request) ? { ...request.json, response_format: "url" } : request.json;
  const head = [`curl --fail-with-body -sS ${shell(`${base}/${request.path}`)}`, `-H "Authorization: Bearer $MEDIAGATE_KEY"`];
  let lines;
  if (request.files.length) {
    const text = (name, value) => (Array.isArray(value) ? value.map((one) => `--form-string ${shell(`${name}[]=${one}`)}`) : [`--form-string ${shell(`${name}=${value}`)}`]);
    lines = [...head, ...Object.entries(json).flatMap(([name, value]) => text(name, value)),
      ...request.files.map((file) => `-F ${shell(`${file.field}${file.isList ? "[]" : ""}=@${file.name}`)}`)];
  } else lines = [...head, `-H "Content-Type: application/json"`, `-d ${shell(JSON.stringify(json, null, 2))}`];
  const call = lines.join(" \\\n  ");
  if (isImage(request)) {
    return `url=$(${call} \\
  | ${pick("data[0].url")})
curl --fail-with-body -sS "$url" -o ${result(request)}
`;
  }
  return `id=$(${call} | grep -o 'task_[a-z0-9]*' | head -n 1)

while true; do
  task=$(curl --fail-with-body -sS ${shell(`${base}/tasks/`)}"$id?wait=60" -H "Authorization: Bearer $MEDIAGATE_KEY")
  case "$task" in *'"status":"queued"'*|*'"status":"in_progress"'*) ;; *) break ;; esac
done
url=$(printf '%s' "$task" | ${pick("video_url")})
curl --fail-with-body -sS "$url" -o result.mp4
`;
}

/** The command that takes one value out of a JSON answer, or says the error in it. */
function pick(path) {
  const value = path.replace(/^\w+/, "['$&']").replace(/\.(\w+)/g, "['$1']");
  return `python3 -c "import json, sys; found = json.load(sys.stdin); print(sys.exit(found['error']['message']) if found.get('error') else found${value})"`;
}

// --- Python ---------------------------------------------------------------------------------------------------------

function inPython(request, base) {
  const head = (imports) => `${imports.map((name) => `import ${name}\n`).join("")}
from openai import OpenAI

client = OpenAI(base_url=${python(base)}, api_key=os.environ["MEDIAGATE_KEY"])
`;
  if (isImage(request)) {
    const isEdit = request.files.length > 0;
    const known = isEdit ? EDIT : GENERATE;
    const entries = Object.entries(request.json);
    const lines = entries.filter(([name]) => known.includes(name)).map(([name, value]) => `${name}=${python(value)},`);
    if (isEdit) {
      const file = (one) => new Code(`open(${JSON.stringify(one.name)}, "rb")`);
      const images = request.files.filter((one) => one.field !== "mask");
      lines.splice(1, 0, `image=${python(images.length === 1 ? file(images[0]) : images.map(file))},`, ...request.files.filter((one) => one.field === "mask").map((one) => `mask=${python(file(one))},`));
    }
    const extra = entries.filter(([name]) => !known.includes(name));
    if (extra.length) lines.push(`extra_body={${extra.map(([name, value]) => `${JSON.stringify(name)}: ${python(value)}`).join(", ")}},`);
    return `${head(["base64", "os"])}
image = client.images.${isEdit ? "edit" : "generate"}(
${indented(lines, 4)}
)
with open("${result(request)}", "wb") as file:
    file.write(base64.b64decode(image.data[0].b64_json))
`;
  }
  const lines = Object.entries(body(request, (file) => `data_url(${JSON.stringify(file.name)})`)).map(([name, value]) => `${JSON.stringify(name)}: ${python(value)},`);
  const helper = request.files.length ? `

def data_url(name):
    with open(name, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode()

` : "";
  return `${head([...(request.files.length ? ["base64"] : []), "os", "urllib.request"])}${helper}
task = client.post(
    ${python(`/${request.path}`)},
    cast_to=object,
    body={
${indented(lines, 8)}
    },
)
while task["status"] in ("queued", "in_progress"):
    task = client.get(f"/tasks/{task['id']}?wait=60", cast_to=object)
if task["status"] != "completed":
    raise SystemExit(task["error"]["message"])
task = client.get(f"/tasks/{task['id']}", cast_to=object)
urllib.request.urlretrieve(task["video_url"], "result.mp4")
`;
}

// --- JavaScript -----------------------------------------------------------------------------------------------------

function inNode(request, base) {
  const head = `import fs from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${script(base)}, apiKey: process.env.MEDIAGATE_KEY });
`;
  if (isImage(request)) {
    const isEdit = request.files.length > 0;
    const lines = Object.entries(request.json).map(([name, value]) => `${name}: ${script(value)},`);
    if (isEdit) {
      const file = (one) => new Code(`fs.createReadStream(${JSON.stringify(one.name)})`);
      const images = request.files.filter((one) => one.field !== "mask");
      lines.splice(1, 0, `image: ${script(images.length === 1 ? file(images[0]) : images.map(file))},`, ...request.files.filter((one) => one.field === "mask").map((one) => `mask: ${script(file(one))},`));
    }
    return `${head}
const image = await client.images.${isEdit ? "edit" : "generate"}({
${indented(lines, 2)}
});
fs.writeFileSync("${result(request)}", Buffer.from(image.data[0].b64_json, "base64"));
`;
  }
  const lines = Object.entries(body(request, (file) => `dataUrl(${JSON.stringify(file.name)})`)).map(([name, value]) => `${name}: ${script(value)},`);
  const helper = request.files.length ? `const dataUrl = (name) => "data:image/png;base64," + fs.readFileSync(name, "base64");\n` : "";
  return `${head}${helper}
let task = await client.post(${script(`/${request.path}`)}, {
  body: {
${indented(lines, 4)}
  },
});
while (task.status === "queued" || task.status === "in_progress") {
  task = await client.get(\`/tasks/\${task.id}?wait=60\`);
}
if (task.status !== "completed") throw new Error(task.error.message);
task = await client.get(\`/tasks/\${task.id}\`);
const video = await fetch(task.video_url);
fs.writeFileSync("result.mp4", Buffer.from(await video.arrayBuffer()));
`;
}

/** The fields of a JSON body, each file in it as the expression that reads it. */
function body({ json, files }, read) {
  const found = { ...json };
  for (const file of files) {
    const value = new Code(read(file));
    found[file.field] = file.isList ? [...(found[file.field] ?? []), value] : value;
  }
  return found;
}
