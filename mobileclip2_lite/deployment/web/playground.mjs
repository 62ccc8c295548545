// The playground: draw or drop an image, type names, see bars; search a small album. One module for page and notebook.

import { rgb } from "./images.mjs";
import { cosine, openTowers, softmax } from "./towers.mjs";

const COLOURS = {
  black: "#1c1e21", red: "#d62828", orange: "#f48420", yellow: "#f8d43c", green: "#3a9e48", blue: "#2862d0", purple: "#7e3aa8",
  pink: "#f490b8", brown: "#80522e", white: "#ffffff",
};
const PAD = 256;  // pixels of the drawing's side
const SHOWN = 12;  // images of the album that are shown at a time

const LAYOUT = `
<section class="see">
  <h2>1 · An image</h2>
  <canvas class="pad" width="${PAD}" height="${PAD}" tabindex="0" role="button"
    aria-label="The image. Draw with the pointer, drop or paste an image, or press Enter to open a file."></canvas>
  <p class="hint">Draw, drop or paste an image<span class="choose">; or choose one of the album below</span>.</p>
  <div class="tools colours" role="radiogroup" aria-label="colour to draw in"></div>
  <div class="tools">
    <label>brush <input class="brush" type="range" min="4" max="60" value="18"></label>
    <button class="clear" type="button">clear</button>
    <label class="button">open a file<input class="file" type="file" accept="image/*"></label>
  </div>
</section>
<section class="name">
  <h2>2 · Names for it</h2>
  <label>one name a line<textarea class="names" rows="8" spellcheck="false"></textarea></label>
  <label>sentence around it<input class="template" spellcheck="false"></label>
  <div class="bars" role="list" aria-live="polite"></div>
</section>
<section class="album">
  <h2>3 · Search an album</h2>
  <label>what to look for<input class="query" type="search" spellcheck="false"></label>
  <button class="like" type="button">images like the one above</button>
  <p class="hint told" role="status"></p>
  <div class="found" role="list"></div>
</section>
<p class="status" role="status"></p>
<p class="credit"></p>`;

// root: element to fill. assets: {ort, model, tokenizer, image, text, album: [{name, url, feature}]}
export async function mount(root, assets) {
  root.classList.add("playground");
  root.dataset.lmSuppressShortcuts = "true";  // JupyterLab would take keys for commands on cells
  root.innerHTML = LAYOUT;
  for (const box of root.querySelectorAll("textarea, input"))  // nor may it keep Enter from beginning a line
    box.addEventListener("beforeinput", (event) => event.stopImmediatePropagation());
  const find = (selector) => root.querySelector(selector);
  const status = find(".status");
  status.textContent = "loading the model …";
  const towers = await openTowers(assets.ort, assets);
  const page = { find, status, towers, assets, feature: null };
  drawingPad(page);
  files(page);
  find(".names").value = assets.model.names.slice(0, 8).join("\n");
  find(".template").value = assets.model.template;
  find(".query").value = assets.model.query;
  find(".credit").textContent = assets.model.credit;
  find(".names").addEventListener("input", later(() => showBars(page)));
  find(".template").addEventListener("input", later(() => showBars(page)));
  find(".query").addEventListener("input", later(() => searchText(page)));
  find(".like").addEventListener("click", () => {
    asked(page, "search");
    if (page.feature) showNearest(page, page.feature);
  });
  for (const part of [".album", ".choose"]) find(part).hidden = !assets.album.length;
  await (assets.album.length ? openUrl(page, assets.album[0].url) : showBars(page));
  await searchText(page);
  root.dataset.ready = "yes";
}

function later(work, wait = 150) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}

function drawingPad(page) {
  const pad = page.find(".pad");
  const draw = pad.getContext("2d", { willReadFrequently: true });
  const changed = later(() => look(page), 60);
  let colour = COLOURS.red;
  let last = null;
  const clear = () => {
    draw.fillStyle = "#ffffff";
    draw.fillRect(0, 0, PAD, PAD);
  };
  clear();
  colours(page.find(".colours"), colour, (value) => (colour = value));
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) * PAD) / box.width, ((event.clientY - box.top) * PAD) / box.height];
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = at(event);
    stroke(last);
  });
  pad.addEventListener("pointermove", (event) => last && stroke(at(event)));
  for (const kind of ["pointerup", "pointercancel"]) pad.addEventListener(kind, () => (last = null));
  function stroke(to) {
    Object.assign(draw, { strokeStyle: colour, lineWidth: page.find(".brush").value, lineCap: "round", lineJoin: "round" });
    draw.beginPath();
    draw.moveTo(...last);
    draw.lineTo(...to);
    draw.stroke();
    last = to;
    changed();
  }
  page.find(".clear").addEventListener("click", () => {
    clear();
    look(page);
  });
}

// One stop of the tabulator, as radio buttons are: arrows, Home and End choose within it.
function colours(group, first, chosen) {
  const values = Object.values(COLOURS);
  const buttons = Object.entries(COLOURS).map(([name, value], index) => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "colour", title: name });
    button.style.background = value;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", name);
    button.addEventListener("click", () => choose(index));
    return button;
  });
  const choose = (index) => {
    buttons.forEach((button, other) => {
      button.setAttribute("aria-checked", String(other === index));
      button.tabIndex = other === index ? 0 : -1;
    });
    chosen(values[index]);
  };
  group.addEventListener("keydown", (event) => {
    const [here, count] = [buttons.indexOf(event.target), buttons.length];
    const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose((to + count) % count);
    buttons[(to + count) % count].focus();
  });
  choose(values.indexOf(first));
  group.append(...buttons);
}

// A file by the button, by Enter on the image, dropped anywhere on the playground, or pasted.
function files(page) {
  const [root, chooser] = [page.find(".pad").closest(".playground"), page.find(".file")];
  const open = (list) => {
    const file = [...(list ?? [])].find((one) => one.type.startsWith("image/")) ?? list?.[0];
    if (file) openBlob(page, file);
    return Boolean(file);
  };
  chooser.addEventListener("change", () => {
    open(chooser.files);
    chooser.value = "";  // so that the same file can be opened again
  });
  page.find(".pad").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    chooser.click();
  });
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    root.classList.add("over");
  });
  root.addEventListener("dragleave", (event) => root.contains(event.relatedTarget) || root.classList.remove("over"));
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    root.classList.remove("over");
    if (!open(event.dataTransfer.files)) page.status.textContent = "only image files can be dropped here, no links";
  });
  root.addEventListener("paste", (event) => open(event.clipboardData.files) && event.preventDefault());
}

async function openUrl(page, url) {
  await openBlob(page, await (await fetch(url)).blob());
}

// The image as it was opened is what the model sees; the pad shows it whole.
async function openBlob(page, blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    page.status.textContent = `${blob.name ?? "this file"} is not an image that this browser reads`;
    return;
  }
  const own = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  own.drawImage(bitmap, 0, 0);
  const draw = page.find(".pad").getContext("2d");
  const scale = PAD / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  draw.fillStyle = "#ffffff";
  draw.fillRect(0, 0, PAD, PAD);
  draw.drawImage(bitmap, (PAD - width) / 2, (PAD - height) / 2, width, height);
  await look(page, own.getImageData(0, 0, bitmap.width, bitmap.height));
}

async function look(page, data = page.find(".pad").getContext("2d").getImageData(0, 0, PAD, PAD)) {
  const start = performance.now();
  page.feature = await page.towers.embedImage(rgb(data));
  page.milliseconds = performance.now() - start;
  await showBars(page);
}

// Whether nothing has been asked since: an answer that comes late must not stand where a newer one does.
function asked(page, what) {
  const turn = (page[what] = (page[what] ?? 0) + 1);
  return () => page[what] === turn;
}

async function showBars(page) {
  const newest = asked(page, "naming");
  const names = page.find(".names").value.split("\n").map((name) => name.trim()).filter(Boolean);
  const template = page.find(".template").value;
  const bars = page.find(".bars");
  if (!page.feature) return bars.replaceChildren(saying("Draw or open an image first."));
  if (!names.length) return bars.replaceChildren(saying("Write names for the image, one a line."));
  const sentence = (name) => (template.includes("{}") ? template.replaceAll("{}", name) : name);
  const features = await page.towers.embedTexts(names.map(sentence));
  if (!newest()) return;
  const scale = page.assets.model.logit_scale;
  const shares = softmax(features.map((feature) => scale * cosine(feature, page.feature)));
  const rows = names.map((name, index) => ({ name, share: shares[index] })).sort((a, b) => b.share - a.share);
  bars.replaceChildren(...rows.map(bar));
  const took = page.milliseconds ? `, ${page.milliseconds.toFixed(0)} ms an image` : "";
  page.status.textContent = `${page.assets.model.name}: everything runs in this browser${took}`;
}

function saying(text) {
  const line = Object.assign(document.createElement("p"), { className: "hint", textContent: text });
  line.setAttribute("role", "listitem");
  return line;
}

function bar({ name, share }) {
  const row = Object.assign(document.createElement("div"), { className: "bar" });
  row.setAttribute("role", "listitem");
  const label = Object.assign(document.createElement("span"), { textContent: name });
  const track = Object.assign(document.createElement("i"), { className: "track" });
  const fill = document.createElement("b");
  fill.style.width = `${100 * share}%`;
  track.append(fill);
  const value = Object.assign(document.createElement("span"), { textContent: `${(100 * share).toFixed(1)} %` });
  row.append(label, track, value);
  return row;
}

async function searchText(page) {
  const newest = asked(page, "search");
  const text = page.find(".query").value.trim();
  if (!text) return show(page, page.assets.album, "first");
  const [feature] = await page.towers.embedTexts([text]);
  if (newest()) showNearest(page, feature);
}

function showNearest(page, feature) {
  const scored = page.assets.album.map((item) => ({ ...item, score: cosine(item.feature, feature) }));
  show(page, scored.sort((a, b) => b.score - a.score), "nearest");
}

function show(page, items, which) {
  const shown = items.slice(0, SHOWN);
  page.find(".told").textContent = shown.length < items.length ? `the ${which} ${shown.length} of ${items.length} images` : "";
  page.find(".found").replaceChildren(...shown.map((item) => thumbnail(page, item)));
}

function thumbnail(page, { name, url, score }) {
  const figure = document.createElement("figure");
  figure.setAttribute("role", "listitem");
  const button = Object.assign(document.createElement("button"), { type: "button", title: `look at ${name}` });
  button.append(Object.assign(document.createElement("img"), { src: url, alt: name, loading: "lazy" }));
  button.addEventListener("click", () => openUrl(page, url));
  const text = score === undefined ? name : `${score.toFixed(2)}  ${name}`;
  const caption = Object.assign(document.createElement("figcaption"), { textContent: text });
  figure.append(button, caption);
  return figure;
}
