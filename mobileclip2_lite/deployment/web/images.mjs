// Pixels to the model's input, bit for bit as Pillow and the Python preprocess do it: resize in two passes of fixed-point
// sums, crop or pad, normalise. A canvas resizes otherwise in every browser, and a model notices.

const FILTERS = {
  bilinear: { support: 1, weigh: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weigh: (x) => {
      x = Math.abs(x);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
};
const BITS = 22;  // of the fixed-point weights

// For each output place: the first input place and its weights, as whole numbers.
function weights(from, to, filter) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const parts = [];
    for (let x = first; x < last; x++) parts.push(filter.weigh((x - centre + 0.5) * (1 / stretch)));
    const sum = parts.reduce((a, b) => a + b, 0);
    const whole = parts.map((w) => (sum === 0 ? w : w * (1 / sum))).map((w) => Math.trunc(w * 2 ** BITS + (w < 0 ? -0.5 : 0.5)));
    return { first, whole };
  });
}

const clip = (sum) => Math.min(255, Math.max(0, Math.floor((sum + 2 ** (BITS - 1)) / 2 ** BITS)));

function across({ data, width, height }, to, filter) {
  const places = weights(width, to, filter);
  const out = new Uint8Array(3 * to * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < to; x++) {
      const { first, whole } = places[x];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < whole.length; k++) sum += whole[k] * data[3 * (y * width + first + k) + c];
        out[3 * (y * to + x) + c] = clip(sum);
      }
    }
  }
  return { data: out, width: to, height };
}

function down({ data, width, height }, to, filter) {
  const places = weights(height, to, filter);
  const out = new Uint8Array(3 * width * to);
  for (let y = 0; y < to; y++) {
    const { first, whole } = places[y];
    for (let x = 0; x < 3 * width; x++) {
      let sum = 0;
      for (let k = 0; k < whole.length; k++) sum += whole[k] * data[(first + k) * 3 * width + x];
      out[y * 3 * width + x] = clip(sum);
    }
  }
  return { data: out, width, height: to };
}

// image: {data: RGB bytes, width, height}. From version 13 on Pillow begins with the height where that leaves less to do.
export function resize(image, width, height, config) {
  const filter = FILTERS[config.interpolation];
  const tall = image.height > height && image.height - height > 2 * (image.width - width);
  const [acrossNow, downNow] = [image.width !== width, image.height !== height];
  if (acrossNow && downNow && tall && config.pillow >= 13) return across(down(image, height, filter), width, filter);
  if (acrossNow) image = across(image, width, filter);
  return downNow ? down(image, height, filter) : image;
}

// Python's round(): a half goes to the even neighbour.
function round(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

// The S x S pixels that the model sees. config: {size, mean, std, interpolation, resize_mode, pillow: version}
export function square(image, config) {
  const side = config.size;
  let { width, height } = image;
  if (config.resize_mode === "squash") return resize(image, side, side, config);
  if (config.resize_mode === "shortest") {
    const scaled = Math.trunc((side * Math.max(width, height)) / Math.min(width, height));
    [width, height] = width <= height ? [side, scaled] : [scaled, side];
  } else {
    const scale = side / Math.max(width, height);
    [width, height] = [Math.max(1, round(width * scale)), Math.max(1, round(height * scale))];
  }
  const resized = resize(image, width, height, config);
  const left = round((width - side) / 2);
  const top = round((height - side) / 2);
  const data = new Uint8Array(3 * side * side);  // beyond the image stays 0
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const [u, v] = [x + left, y + top];
      if (u < 0 || v < 0 || u >= width || v >= height) continue;
      for (let c = 0; c < 3; c++) data[3 * (y * side + x) + c] = resized.data[3 * (v * width + u) + c];
    }
  }
  return { data, width: side, height: side };
}

// float32 (3, S, S), normalised.
export function pixels(image, config) {
  const { data } = square(image, config);
  const area = config.size * config.size;
  const out = new Float32Array(3 * area);
  for (let c = 0; c < 3; c++) {
    const [mean, std] = [Math.fround(config.mean[c]), Math.fround(config.std[c])];
    for (let i = 0; i < area; i++) {
      out[c * area + i] = Math.fround(Math.fround(Math.fround(data[3 * i + c] / 255) - mean) / std);
    }
  }
  return out;
}

// RGB bytes of a canvas' RGBA, transparent places white.
export function rgb({ data, width, height }) {
  const out = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    const alpha = data[4 * i + 3] / 255;
    for (let c = 0; c < 3; c++) out[3 * i + c] = Math.round(data[4 * i + c] * alpha + 255 * (1 - alpha));
  }
  return { data: out, width, height };
}
