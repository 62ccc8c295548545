// The playground as an anywidget: everything comes from the kernel, nothing is fetched.

import { mount } from "./playground.mjs";

const bytes = (model, name) => {
  const value = model.get(name);
  return new Uint8Array(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength);
};

async function render({ model, el }) {
  const source = new Blob([bytes(model, "runtime")], { type: "text/javascript" });
  const address = URL.createObjectURL(source);
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.wasmBinary = bytes(model, "wasm").slice().buffer;
  const assets = { ort, image: bytes(model, "image"), text: bytes(model, "text") };
  for (const name of ["model", "tokenizer", "album"]) assets[name] = model.get(name === "model" ? "config" : name);
  await mount(el, assets);
}

export default { render };
