// The gateway's console: asks for a video, follows it, plays it. Speaks the HTTP API that /openapi.json describes.

const PREVIEW_INTERVAL = 2; // steps
const NEWEST = 12;
const FIELDS = ["width", "height", "num_frames", "num_inference_steps"];
const STAGES = {
  ENCODING_TEXT: "encoding the text", ENCODING_IMAGE: "encoding the image", DENOISING: "denoising",
  DECODING: "decoding the frames", STORING: "storing the video",
};
const at = (id) => document.getElementById(id);
const variants = new Map();
let following = new AbortController(); // ends when another generation is looked at
let shownUrl = "";

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const key = at("key").value.trim();
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, body.error?.message ?? `${answer.status} ${answer.statusText}`);
  }
  return answer;
}

// What is wrong is shown where the caller looks; a call that was given up on is nobody's fault.
function attempt(place, work) {
  at(place).textContent = "";
  return work().catch((error) => {
    if (error.name !== "AbortError") at(place).textContent = error.message;
  });
}

async function listVariants() {
  const found = (await (await ask("/models")).json()).variants ?? [];
  variants.clear();
  for (const variant of found) variants.set(variant.name, variant);
  at("variant").replaceChildren(...found.map(({ name }) => new Option(name)));
  if (!found.length) throw new Error("No variant is served yet.");
  showDefaults();
}

function showDefaults() {
  const variant = variants.get(at("variant").value);
  for (const field of FIELDS) at(field).placeholder = variant.defaults[field];
  for (const field of ["width", "height"]) at(field).step = at(field).min = variant.size_multiple;
  at("image-row").hidden = variant.name.startsWith("t2v");
}

async function generate() {
  const form = new FormData();
  const parameters = Object.fromEntries(FIELDS.filter((field) => at(field).value).map((field) => [field, Number(at(field).value)]));
  if (at("seed").value) parameters.seed = at("seed").value;
  form.set("variant", at("variant").value);
  form.set("prompt", at("prompt").value);
  form.set("parameters", JSON.stringify(parameters));
  form.set("preview_interval", String(PREVIEW_INTERVAL));
  form.set("detach", "true"); // a closed page cancels nothing
  const [image] = at("image-row").hidden ? [] : at("image").files;
  if (image) form.set("image", image);
  const made = await (await ask("/generate", { method: "POST", body: form })).json();
  await Promise.all([follow(made.name), listNewest()]);
}

async function follow(name) {
  following.abort();
  const { signal } = (following = new AbortController());
  at("shown").hidden = false;
  at("name").textContent = name;
  at("why").textContent = "";
  for (const id of ["preview", "video", "download", "cancel"]) at(id).hidden = true;
  showState("", null);
  await attempt("why", async () => {
    let generation = await (await ask(`/${name}`, { signal })).json();
    if (!isOver(generation)) {
      at("cancel").hidden = false;
      generation = await watch(name, signal);
      listNewest();
    }
    at("cancel").hidden = true;
    await showEnd(generation, signal);
  });
}

const isOver = ({ state }) => ["SUCCEEDED", "FAILED", "CANCELLED"].includes(state);

// The generation as it ended. A stream that breaks, by a restart say, goes on behind the last event seen.
async function watch(name, signal) {
  let last = "0";
  for (let pause = 500; ; pause = Math.min(2 * pause, 10_000)) {
    try {
      const answer = await ask(`/${name}/events`, { headers: { "Last-Event-ID": last }, signal });
      for await (const { event, data, id } of serverSent(answer.body)) {
        if (id) last = id;
        pause = 500;
        if (event === "done") return data.generation;
        if (event === "error") throw new Refused(data.error?.status ?? 400, data.error?.message ?? "The stream ended.");
        showEvent(event, data);
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && error.status < 500)) throw error;
    }
    showState("the gateway is away; it is asked again", null);
    await new Promise((go) => setTimeout(go, pause));
  }
}

async function* serverSent(body) {
  let text = "";
  for await (const piece of pieces(body)) {
    text += piece;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2)));
      if (fields.event) yield { event: fields.event, id: fields.id, data: JSON.parse(fields.data) };
    }
  }
}

async function* pieces(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

function showEvent(event, data) {
  if (event === "progress") {
    const { stage, step, num_steps } = data.progress;
    const steps = num_steps === undefined ? "" : `, step ${step ?? 0} of ${num_steps}`;
    showState(`${STAGES[stage] ?? "working"}${steps}`, num_steps === undefined ? null : (step ?? 0) / num_steps, data.predicted_end_time);
  } else if (event === "queue") {
    const { queue_position, waiting_for } = data.queue;
    showState(`queued, position ${queue_position ?? 0}${waiting_for ? `, waits for ${waiting_for}` : ""}`, null, data.predicted_end_time);
  } else if (event === "attempt") {
    showState(`started on ${data.attempt_start.worker}`, null, data.predicted_end_time);
    listNewest();
  } else if (event === "preview") {
    at("preview").src = `data:image/webp;base64,${data.preview.image}`;
    at("preview").hidden = false;
  }
}

function showState(text, share, end) {
  const ready = end ? `; ready at about ${new Date(end).toLocaleTimeString()}` : "";
  at("state").textContent = text + ready;
  at("progress").hidden = share === null;
  if (share !== null) at("progress").value = share;
}

async function showEnd(generation, signal) {
  const { width, height, num_frames, seed } = generation.parameters;
  showState(`${generation.state.toLowerCase()}: ${width}x${height}, ${num_frames} frames, seed ${seed}`, null);
  at("preview").hidden = true;
  if (generation.error) throw new Error(generation.error.message);
  if (generation.state !== "SUCCEEDED") return;
  const video = await (await ask(`/${generation.name}/video`, { signal })).blob();
  URL.revokeObjectURL(shownUrl);
  shownUrl = URL.createObjectURL(video);
  at("video").src = at("download").href = shownUrl;
  at("download").download = `${generation.name.split("/")[1]}.mp4`;
  at("video").hidden = at("download").hidden = false;
}

async function listNewest() {
  const { data } = await (await ask(`/v1/videos?limit=${NEWEST}`)).json();
  at("newest").replaceChildren(...data.map(({ id, prompt, status, model }) => {
    const line = document.createElement("button");
    line.textContent = `${status.replace("_", " ")} · ${model} · ${prompt ?? ""}`;
    line.addEventListener("click", () => follow(`generations/${id}`));
    const item = document.createElement("li");
    item.append(line);
    return item;
  }));
}

function begin() {
  return attempt("refusal", async () => {
    await listVariants();
    await listNewest();
  });
}

at("key").value = sessionStorage.getItem("key") ?? ""; // of this tab alone
at("key").addEventListener("change", () => {
  sessionStorage.setItem("key", at("key").value.trim());
  begin();
});
at("caller").addEventListener("submit", (event) => {
  event.preventDefault(); // its change is enough
  at("key").blur();
});
at("variant").addEventListener("change", showDefaults);
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt("refusal", generate);
});
at("cancel").addEventListener("click", () => {
  attempt("why", () => ask(`/${at("name").textContent}/cancel`, { method: "POST" }));
});
begin();
