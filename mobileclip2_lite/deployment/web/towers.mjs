// Both exported towers in the reader's browser: images and texts to unit features, through ONNX Runtime Web.

import { pixels } from "./images.mjs";
import { Tokenizer } from "./tokenizer.mjs";

// ort: the module of onnxruntime-web. assets: {model: config, tokenizer: config, image: bytes, text: bytes}
export async function openTowers(ort, assets) {
  ort.env.wasm.numThreads = 1;  // more would need headers that a plain server does not send
  const options = { executionProviders: ["wasm"] };
  const image = await ort.InferenceSession.create(assets.image, options);
  const text = await ort.InferenceSession.create(assets.text, options);
  return new Towers(ort, image, text, assets);
}

class Towers {
  constructor(ort, image, text, assets) {
    Object.assign(this, { ort, image, text, config: assets.model });
    this.tokenizer = new Tokenizer(assets.tokenizer);
    this.cache = new Map();
    this.waiting = Promise.resolve();  // a session runs one input at a time
  }

  run(session, type, data, shape) {
    const input = new this.ort.Tensor(type, data, shape);
    const run = this.waiting.then(() => session.run({ [session.inputNames[0]]: input }));
    this.waiting = run.catch(() => null);
    return run.then((found) => rows(found[session.outputNames[0]]));
  }

  // image: {data: RGB bytes, width, height} -> Float32Array (D)
  async embedImage(image) {
    const side = this.config.preprocess.size;
    return (await this.run(this.image, "float32", pixels(image, this.config.preprocess), [1, 3, side, side]))[0];
  }

  // Each text is embedded once, however often it is asked for.
  async embedTexts(texts) {
    const missing = [...new Set(texts)].filter((text) => !this.cache.has(text));
    if (missing.length) {
      const ids = missing.flatMap((text) => this.tokenizer.encode(text));
      const shape = [missing.length, this.tokenizer.contextLength];
      const found = await this.run(this.text, "int64", BigInt64Array.from(ids, BigInt), shape);
      missing.forEach((text, index) => this.cache.set(text, found[index]));
    }
    return texts.map((text) => this.cache.get(text));
  }
}

function rows(tensor) {
  const [count, dimension] = tensor.dims;
  return Array.from({ length: count }, (_, row) => tensor.data.slice(row * dimension, (row + 1) * dimension));
}

export const cosine = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

export function softmax(scores) {
  const highest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
