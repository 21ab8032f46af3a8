// One picture, and where the model sees the words: regions are lit, all else is darkened.

import { $, address, element, fetchJson, go, moves, whole } from "/common.js";

const WIDTH = 160;  // pixels of the shade, which is drawn larger and smooth
const DARKEST = 0.78;
let seen = null;  // what the server says of the picture that is open
let hits = [];
let place = null;

export async function showPicture(number, words, found) {
  hits = found;
  if (place === number && seen?.text === words && $("picture").open) return;
  place = number;
  seen = null;
  const hit = hits.find((each) => each.place === number);
  $("picture-name").textContent = hit?.file ?? "";
  $("picture-score").textContent = "";
  if (hit?.size) $("stage").style.setProperty("--ratio", hit.size[0] / hit.size[1]);
  $("whole").src = whole(number);
  $("whole").alt = hit?.captions[0] ?? "";
  $("says").textContent = "Looking ...";
  $("other-words").value = words;
  $("picture-like").href = `?like=${number}`;
  neighbour("picture-previous", -1);
  neighbour("picture-next", 1);
  clear();
  showCaptions(hit?.captions ?? []);
  if (!$("picture").open) $("picture").showModal();
  if (!words) {
    $("says").textContent = "This picture has no caption. Write words to see where the model sees them.";
    return;
  }
  try {
    const answer = await fetchJson(`/api/explain?${new URLSearchParams({ picture: number, q: words })}`);
    if (place !== number) return;
    seen = { ...answer, text: words };
    $("picture-name").textContent = seen.file;
    $("picture-score").textContent = `cosine ${seen.score.toFixed(3)}` + (seen.pair ? ` · ${seen.pair.model} ${seen.pair.score.toFixed(3)}` : "");
    showCaptions(seen.captions);
    clear();
    showWords();
    showViews();
    showPairViews();
    draw();
  } catch (error) {
    if (place === number) $("says").textContent = error.message;
  }
}

export function hidePicture() {
  place = seen = null;
  if ($("picture").open) $("picture").close();
}

function neighbour(id, step) {
  const at = hits.findIndex((hit) => hit.place === place);
  const other = at < 0 ? undefined : hits[at + step];
  if (other) $(id).href = address({ picture: other.place, words: null });
  else $(id).removeAttribute("href");
  $(id).toggleAttribute("aria-disabled", !other);
}

function showCaptions(captions) {
  $("captions-title").hidden = !captions.length;
  $("captions").replaceChildren(...captions.map((text) => element("li", { textContent: text, dir: "auto" })));
}

function clear() {
  for (const id of ["words", "views"]) {
    $(id).hidden = true;
    $(id).querySelectorAll(".chip").forEach((chip) => chip.remove());
  }
  $("pair-views").replaceChildren();
  $("boxes").replaceChildren();
  $("shows").replaceChildren();
  $("shade").width = $("shade").height = 0;
}

function chip(group, value, text, isChosen) {
  const input = element("input", { type: "radio", name: group, value, checked: isChosen });
  input.addEventListener("change", draw);
  return element("label", { className: "chip" }, input, element("span", { textContent: text, dir: "auto" }));
}

// What stands between <start> and <end>, without punctuation.
function shownWords() {
  const isWord = (word) => /[\p{L}\p{N}]/u.test(word);
  return seen.words.map((word, number) => ({ word, number })).slice(1, -1).filter(({ word }) => isWord(word));
}

function showWords() {
  $("words").hidden = false;
  $("words").append(chip("word", "all", "all words", true), ...shownWords().map(({ word, number }) => {
    const made = chip("word", String(number), word, false);
    made.classList.toggle("unknown", !seen.known[number]);
    if (!seen.known[number]) made.title = "The model does not know this word";
    return made;
  }));
}

// [name, title] of each way to look, which `weights` computes.
function showViews() {
  const { image, image_pooling: pooling } = seen.maps;
  const heads = (name, title, map) => (map ?? []).map((_, head) => [`${name} ${head}`, map.length > 1 ? `${title} ${head + 1}` : title]);
  const views = [
    ["cosine", "likeness"],
    ...heads("image", "head", image),
    ...heads("image_pooling", "share in the picture", pooling),
  ];
  $("views").hidden = views.length < 2 && !seen.pair;
  $("views").append(...views.map(([name, title], number) => chip("view", name, title, number === 0)));
}

// What the model that re-ranks attends to across the pair, both ways: the mean of all heads, then one by one.
function showPairViews() {
  if (!seen.pair) return;
  const { model, layers, maps } = seen.pair;
  const ways = { text_to_image: `${model}: where each word looks`, image_to_text: `${model}: which regions look at the word` };
  for (const [name, title] of Object.entries(ways)) {
    if (!maps[name]) continue;
    const heads = maps[name].length, each = heads / layers;
    const chips = heads === 1 ? [[0, "attention"]] : [["mean", "all heads"], ...maps[name].map((_, head) =>
      [head, `${layers > 1 ? `layer ${Math.floor(head / each) + 1}, ` : ""}head ${head % each + 1}`])];
    $("pair-views").append(element("fieldset", {}, element("legend", { textContent: title }),
      ...chips.map(([head, text]) => chip("view", `${name} ${head}`, text, false))));
  }
}

// The place of a word in the text as the other model reads it, which may leave words out: -1 then.
function placeInPair(number) {
  const word = seen.words[number], before = seen.words.slice(0, number).filter((other) => other === word).length;
  return seen.pair.words.map((other, at) => other === word ? at : -1).filter((at) => at >= 0)[before] ?? -1;
}

function pairWeights(name, head, chosen) {
  const { model, maps } = seen.pair;
  const map = head === "mean" ? maps[name][0].map((row, at) => mean(maps[name].map((each) => each[at]))) : maps[name][head];
  const rows = name === "text_to_image" ? map : map[0].map((_, word) => map.map((row) => row[word]));  // [words][regions]
  const numbers = (chosen === "all" ? shownWords().map(({ number }) => number) : [Number(chosen)]).map(placeInPair).filter((at) => at >= 0);
  if (!numbers.length) return [seen.cosines[0].map(() => 0), `${model} does not read this word.`];
  const quoted = chosen === "all" ? "the words" : `“${seen.words[Number(chosen)]}”`;
  const says = name === "text_to_image" ? `Lit: where ${model} looks for ${quoted}.` : `Lit: the regions that look most at ${quoted}, in ${model}.`;
  return [mean(numbers.map((at) => rows[at])), says];
}

const mean = (rows) => rows[0].map((_, column) => rows.reduce((sum, row) => sum + row[column], 0) / rows.length);
const placeOfLargest = (values) => values.indexOf(Math.max(...values));

// Returns how much each region counts, and the sentence that says what is lit.
function weights(view, chosen) {
  const numbers = chosen === "all" ? shownWords().map(({ number }) => number) : [Number(chosen)];
  const [name, head] = view.split(" ");
  if (name === "text_to_image" || name === "image_to_text") return pairWeights(name, head, chosen);
  const cosines = mean(numbers.map((number) => seen.cosines[number]));
  const quoted = chosen === "all" ? "all words together" : `“${seen.words[numbers[0]]}”`;
  if (name === "cosine") {
    const range = `${Math.min(...cosines).toFixed(2)} to ${Math.max(...cosines).toFixed(2)}`;
    return [cosines, `Lit: where the picture is most like ${quoted} (cosines from ${range}).`];
  }
  const map = seen.maps[name][head];
  if (name === "image_pooling") return [map[0], "Lit: the regions that count most in the picture's vector, whatever the words."];
  if (chosen === "all") return [mean(map), `Lit: the regions that head ${Number(head) + 1} takes most from, whatever the words.`];
  const nearest = placeOfLargest(cosines);
  const which = placeOfLargest(map[nearest]) === nearest ? "it looks at itself" : "dashed";
  return [map[nearest], `Lit: where head ${Number(head) + 1} looks from the region most like ${quoted} (${which}). Words are shaded by how much ${quoted} looks at them.`, nearest];
}

function draw() {
  const chosen = document.querySelector("input[name=word]:checked").value;
  const view = document.querySelector("input[name=view]:checked").value;
  const [values, sentence, from] = weights(view, chosen);
  shadeWords(view, chosen);
  if (!seen.boxes || !seen.size) {
    $("says").textContent = "The index does not say where the regions are, or the picture is gone: nothing can be lit.";
    return;
  }
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const isAlike = high - low < (view === "cosine" ? 0.005 : 0.1 / values.length);
  $("says").textContent = isAlike ? `${sentence} It looks everywhere equally.` : sentence;
  const heat = values.map((value) => isAlike ? 1 : ((value - low) / (high - low)) ** 2);
  shade(heat);
  outline(values, isAlike, from);
}

// In a head's view, how much the chosen word looks at each of the others; else nothing.
function shadeWords(view, chosen) {
  const [name, head] = view.split(" ");
  const row = name === "image" && chosen !== "all" ? seen.maps.text[head][Number(chosen)] : null;
  const largest = row ? Math.max(...shownWords().map(({ number }) => row[number])) : 1;
  document.querySelectorAll("input[name=word]").forEach((input) => {
    const share = row && input.value !== "all" ? row[Number(input.value)] / largest : 0;
    input.nextElementSibling.style.setProperty("--share", share.toFixed(3));
  });
}

const areaOf = ([left, top, right, bottom]) => Math.max(right - left, 1) * Math.max(bottom - top, 1);

// Windows of one size lie over each other: a point is as lit as those around it, the nearer their middle the more.
// Of boxes, which are of any size, it is as lit as the brightest.
function isGrid() {
  const areas = seen.boxes.map(areaOf);
  return Math.max(...areas) < 1.1 * Math.min(...areas);
}

function shade(heat) {
  const [width, height] = seen.size, canvas = $("shade"), grid = isGrid();
  canvas.width = WIDTH;
  canvas.height = Math.max(Math.round(WIDTH * height / width), 1);
  const context = canvas.getContext("2d"), pixels = context.createImageData(canvas.width, canvas.height);
  for (let row = 0; row < canvas.height; row++) {
    for (let column = 0; column < canvas.width; column++) {
      const x = (column + 0.5) * width / canvas.width, y = (row + 0.5) * height / canvas.height;
      let sum = 0, shares = 0, most = 0;
      seen.boxes.forEach(([left, top, right, bottom], number) => {
        if (x < left || x > right || y < top || y > bottom) return;
        const across = Math.min(x - left, right - x) / (right - left), down = Math.min(y - top, bottom - y) / (bottom - top);
        const share = Math.max(across, 0.01) * Math.max(down, 0.01);
        sum += share * heat[number];
        shares += share;
        most = Math.max(most, heat[number]);
      });
      const light = grid ? sum / Math.max(shares, 1e-9) : most;
      pixels.data[4 * (row * canvas.width + column) + 3] = Math.round(255 * DARKEST * (1 - light));
    }
  }
  context.putImageData(pixels, 0, 0);
}

function outline(values, isAlike, from) {
  $("boxes").setAttribute("viewBox", `0 0 ${seen.size[0]} ${seen.size[1]}`);
  const best = values.map((_, number) => number).sort((a, b) => values[b] - values[a]).slice(0, isGrid() || from !== undefined ? 1 : 3);
  const marked = isAlike ? [] : best.map((number, rank) => [number, rank ? "second" : "first"]);
  if (from !== undefined && (isAlike || best[0] !== from)) marked.push([from, "second"]);
  $("boxes").replaceChildren(...marked.map(([number, rank]) => {
    const [left, top, right, bottom] = seen.boxes[number];
    const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const values = { x: left, y: top, width: right - left, height: bottom - top, class: rank };
    for (const [key, value] of Object.entries(values)) box.setAttribute(key, value);
    return box;
  }));
  $("shows").replaceChildren(...marked.filter(([number]) => seen.shows?.[number]).map(([number]) => {
    const tag = element("span", { textContent: seen.shows[number], title: "What the detector says of this region" });
    tag.style.left = `${100 * Math.max(seen.boxes[number][0], 0) / seen.size[0]}%`;
    tag.style.top = `${100 * Math.max(seen.boxes[number][1], 0) / seen.size[1]}%`;
    return tag;
  }));
}

// Back to the results: by the step that led here, where there is one.
function leave() {
  if (history.state?.ours) history.back();
  else go(address({ picture: null, words: null }));
}

// Where the index does not say how large a picture is, the picture itself does.
$("whole").addEventListener("load", () => $("stage").style.setProperty("--ratio", $("whole").naturalWidth / $("whole").naturalHeight));
$("picture-close").addEventListener("click", leave);
$("picture").addEventListener("cancel", (event) => {
  event.preventDefault();
  leave();
});
$("picture").addEventListener("close", () => { if (place !== null) leave(); });  // by the browser itself
$("other").addEventListener("submit", (event) => {
  event.preventDefault();
  go(address({ words: $("other-words").value.trim() || null }), { replace: true });
});
$("picture").addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  const id = { ArrowLeft: "picture-previous", ArrowRight: "picture-next" }[event.key];
  if (id) $(id).click();
});
for (const id of ["picture-previous", "picture-next"]) moves($(id), { replace: true });
moves($("picture-like"));
