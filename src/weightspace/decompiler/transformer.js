// A transformer out of the page's data, and its forward pass: the same sums as `BareTransformer`, in float32.

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes.buffer;
}

// An array as `packed` in drawing.py writes it; every machine that runs browsers is little-endian, as the file is.
function unpacked(stored) {
  const values = new Float32Array(bytesOf(stored.values));
  const [rows, columns] = stored.shape.length === 2 ? stored.shape : [1, stored.shape[0]];
  if (!("places" in stored)) return { rows, columns, values };
  const full = new Float32Array(rows * columns);
  new Uint32Array(bytesOf(stored.places)).forEach((place, i) => { full[place] = values[i]; });
  return { rows, columns, values: full };
}

function readTransformer(stored) {
  const arrays = {};
  for (const [name, array] of Object.entries(stored.arrays)) arrays[name] = unpacked(array);
  const columns = arrays["transformer/layer_0/attn/query/w"].columns;
  return { ...stored, arrays, width: arrays["token_embed/embeddings"].columns, key: columns / stored.heads };
}

// x (places, inner) times a weight (inner, outer), plus its bias; most of x is 0, and is passed over.
function affine(x, weight, bias) {
  const { rows: inner, columns: outer, values } = weight;
  const places = x.length / inner;
  const out = new Float32Array(places * outer);
  for (let p = 0; p < places; p++) {
    if (bias) out.set(bias.values, p * outer);
    for (let i = 0; i < inner; i++) {
      const factor = x[p * inner + i];
      if (factor === 0) continue;
      for (let j = 0; j < outer; j++) out[p * outer + j] += factor * values[i * outer + j];
    }
  }
  return out;
}

// One head's attention: (places, places), each row a distribution.
function attention(t, query, key, head, places) {
  const across = t.heads * t.key;
  const pattern = new Float32Array(places * places);
  for (let p = 0; p < places; p++) {
    const scores = [];
    for (let q = 0; q < places; q++) {
      let sum = 0;
      for (let k = head * t.key; k < (head + 1) * t.key; k++) sum += query[p * across + k] * key[q * across + k];
      scores.push(t.causal && q > p ? -Infinity : sum / Math.sqrt(t.key));
    }
    const most = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - most));
    const total = weights.reduce((a, b) => a + b, 0);
    weights.forEach((weight, q) => { pattern[p * places + q] = weight / total; });
  }
  return pattern;
}

// Everything that happens on one input, given as rows of the token embedding, BOS first.
// Returns the stream after the embedding and after each half-layer, and the pattern of each head that writes anything.
function run(t, rows) {
  const [tokens, positions] = [t.arrays["token_embed/embeddings"], t.arrays["pos_embed/embeddings"]];
  const places = rows.length;
  let stream = new Float32Array(places * t.width);
  rows.forEach((row, p) => {
    for (let i = 0; i < t.width; i++) {
      stream[p * t.width + i] = tokens.values[row * t.width + i] + positions.values[p * t.width + i];
    }
  });
  const stages = [{ title: "embedding", stream }];
  const patterns = [];
  for (let layer = 0; layer < t.layers; layer++) {
    const [w, b] = ["w", "b"].map((kind) => (name) => t.arrays[`transformer/layer_${layer}/${name}/${kind}`]);
    const [query, key, value] = ["query", "key", "value"].map((m) => affine(stream, w(`attn/${m}`), b(`attn/${m}`)));
    const mixed = new Float32Array(value.length);
    const across = t.heads * t.key;
    for (let head = 0; head < t.heads; head++) {
      const pattern = attention(t, query, key, head, places);
      for (let p = 0; p < places; p++) {
        for (let q = 0; q < places; q++) {
          const share = pattern[p * places + q];
          for (let k = head * t.key; k < (head + 1) * t.key; k++) mixed[p * across + k] += share * value[q * across + k];
        }
      }
      if (writes(w("attn/linear"), head * t.key, (head + 1) * t.key)) patterns.push({ layer, head, pattern });
    }
    stream = added(stream, affine(mixed, w("attn/linear"), b("attn/linear")));
    stages.push({ title: `layer ${layer} attention`, stream });
    const hidden = affine(stream, w("mlp/linear_1"), b("mlp/linear_1")).map((x) => Math.max(x, 0));
    stream = added(stream, affine(hidden, w("mlp/linear_2"), b("mlp/linear_2")));
    stages.push({ title: `layer ${layer} MLP`, stream });
  }
  return { stages, patterns, places };
}

function added(a, b) {
  return a.map((x, i) => x + b[i]);
}

function writes(matrix, first, last) {
  return matrix.values.subarray(first * matrix.columns, last * matrix.columns).some((x) => x !== 0);
}

// What one place of a stream says of a variable, or of the answer: a value's name, a number, or none.
function decoded(stream, place, width, how) {
  const at = (direction) => stream[place * width + direction];
  if (how.values === null) {
    if (how.none !== null && how.none !== undefined && at(how.none) > 0.5) return "none";
    return shortNumber(at(how.read[0]));
  }
  let best = 0;
  how.read.forEach((direction, i) => { if (at(direction) > at(how.read[best])) best = i; });
  return how.strict !== false && !(at(how.read[best]) > 0.5) ? "none" : how.values[best];
}

// Four figures, as Python's `.4g` and without a minus before zero: what rounding leaves is nothing.
function shortNumber(x) {
  if (Math.abs(x) < 5e-5) return "0";
  return String(Number(x.toPrecision(4)));
}

// An input as a person types it, as `read_input` reads it: words apart, or one word if every token is one letter.
// Returns rows of the token embedding, or an error in one sentence.
function parseInput(t, text) {
  let words = [...text.matchAll(/"([^"]*)"|'([^']*)'|([^\s,]+)/g)].map((m) => m[1] ?? m[2] ?? m[3]);
  const letters = t.tokens.every((token) => [...token.text].length === 1);
  if (words.length === 1 && letters) words = [...words[0]];
  const chosen = [];
  for (const word of words) {
    const found = t.tokens.find((token) => token.text === word)
      ?? t.tokens.find((token) => word.trim() !== "" && Number(word) === Number(token.text));
    if (!found) {
      const listed = t.tokens.slice(0, 20).map((token) => token.shown).join(", ") + (t.tokens.length > 20 ? ", ..." : "");
      return { error: `The token ${word.slice(0, 40)} is unknown: the vocabulary is ${listed}.` };
    }
    chosen.push(found);
  }
  if (!chosen.length) return { error: "Type at least one token." };
  if (chosen.length > t.longest) {
    return { error: `An input of ${chosen.length} tokens is too long: this transformer takes up to ${t.longest}.` };
  }
  return { tokens: chosen, rows: [t.bos, ...chosen.map((token) => token.row)] };
}
