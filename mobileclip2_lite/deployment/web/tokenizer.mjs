// Texts to token ids, as the Python tokenizer of the model does it (CLIP's byte-pair encoding, or a prefix of it).
// Cleaning follows the library ftfy but for one thing: text that was decoded with a wrong character set is not mended.

const PATTERN = /<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/giu;
const ENTITY = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/g;
const WINDOWS = "€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ";  // what Windows means by the bytes from 128 on
const LIGATURES = {
  "Ĳ": "IJ", "ĳ": "ij", "ŉ": "ʼn", "Ǳ": "DZ", "ǲ": "Dz", "ǳ": "dz", "Ǆ": "DŽ", "ǅ": "Dž", "ǆ": "dž", "Ǉ": "LJ", "ǈ": "Lj",
  "ǉ": "lj", "Ǌ": "NJ", "ǋ": "Nj", "ǌ": "nj", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ſt", "ﬆ": "st",
};
const LIGATURE = new RegExp(`[${Object.keys(LIGATURES).join("")}]`, "g");

function unescapeHtml(text, entities) {
  return text.replace(ENTITY, (whole, name) => {
    if (name[0] === "#") {
      const code = /^#[xX]/.test(name) ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
      return code === 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? "\ufffd" : String.fromCodePoint(code);
    }
    if (Object.hasOwn(entities, name)) return entities[name];
    for (let end = name.length - 1; end > 1; end--) {  // `&notit` is `¬it`
      if (Object.hasOwn(entities, name.slice(0, end))) return entities[name.slice(0, end)] + name.slice(end);
    }
    return whole;
  });
}

function fixLine(line, entities) {
  for (let before = null; before !== line; ) {
    before = line;
    if (!line.includes("<")) line = unescapeHtml(line, entities);
    line = line
      .replace(/\x1b\[((?:\d|;)*)([a-zA-Z])/g, "")
      .replace(/[\x80-\x9f]/g, (letter) => WINDOWS[letter.charCodeAt(0) - 128])
      .replace(LIGATURE, (letter) => LIGATURES[letter])
      .replace(/[\u3000\uff01-\uffef]/g, (letter) => letter.normalize("NFKC"))
      .replace(/[\u02bc\u2018-\u201b]/g, "'")
      .replace(/[\u201c-\u201f]/g, '"')
      .replace(/\r\n|[\r\u2028\u2029]/g, "\n")
      .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd")
      .replace(/[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
      .normalize("NFC");
  }
  return line;
}

function clean(text, entities) {
  const lines = text.split(/(?<=\n)/).map((line) => fixLine(line, entities)).join("");
  return unescapeHtml(unescapeHtml(lines, entities), entities).split(/\s+/).filter(Boolean).join(" ").toLowerCase();
}

// Bytes that are no printable characters stand as characters from 256 on, so that merges are pairs of strings.
function byteCharacters() {
  const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const order = [...Array(256).keys()].filter(printable);
  const rest = [...Array(256).keys()].filter((b) => !printable(b));
  const characters = new Array(256);
  for (const b of order) characters[b] = String.fromCharCode(b);
  rest.forEach((b, index) => (characters[b] = String.fromCharCode(256 + index)));
  return { characters, order: [...order, ...rest].map((b) => characters[b]) };
}

export class Tokenizer {
  // config: {merges: ["i n", …], context_length, entities: {"amp;": "&", …}}
  constructor(config) {
    const { characters, order } = byteCharacters();
    const vocabulary = [...order, ...order.map((letter) => `${letter}</w>`)];
    for (const merge of config.merges) vocabulary.push(merge.replace(" ", ""));
    vocabulary.push("<start_of_text>", "<end_of_text>");
    this.characters = characters;
    this.ids = new Map(vocabulary.map((token, id) => [token, id]));
    this.ranks = new Map(config.merges.map((merge, rank) => [merge, rank]));
    this.contextLength = config.context_length;
    this.entities = config.entities;
    this.known = new Map();
  }

  merge(word) {
    if (word === "<start_of_text>" || word === "<end_of_text>") return [word];
    if (this.known.has(word)) return this.known.get(word);
    let parts = Array.from(new TextEncoder().encode(word), (b) => this.characters[b]);
    parts[parts.length - 1] += "</w>";
    while (parts.length > 1) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        best = Math.min(best, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      }
      if (best === Infinity) break;
      const joined = [];
      for (let i = 0; i < parts.length; i++) {
        if (i + 1 < parts.length && this.ranks.get(`${parts[i]} ${parts[i + 1]}`) === best) {
          joined.push(parts[i] + parts[++i]);
        } else joined.push(parts[i]);
      }
      parts = joined;
    }
    this.known.set(word, parts);
    return parts;
  }

  // Ids of one text, cut and padded with 0 to the context length.
  encode(text) {
    const words = clean(text, this.entities).match(PATTERN) ?? [];
    const end = this.ids.get("<end_of_text>");
    const ids = [this.ids.get("<start_of_text>"), ...words.flatMap((w) => this.merge(w)).map((t) => this.ids.get(t)), end];
    if (ids.length > this.contextLength) ids.splice(this.contextLength - 1, Infinity, end);
    return [...ids, ...Array(this.contextLength - ids.length).fill(0)];
  }
}
