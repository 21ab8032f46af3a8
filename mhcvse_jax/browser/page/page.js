// Search and results. The address says what is shown: ?q=WORDS, ?like=PLACE or ?sent=NUMBER (a picture that was sent),
// and &picture=PLACE for the one that is open; so back, forward and bookmarks work.

import { $, address, element, fetchJson, go, moves, setIndex, thumbnail } from "/common.js";
import { hidePicture, showPicture } from "/picture.js";

const sent = new Map();  // pictures of this visit by their number; they are nowhere else
let about = null;  // the index, as the server describes it
let shown = null;  // {asked, hits} on the page
let latest = 0;  // the newest request: answers to older ones are dropped

function say(...parts) {
  $("status").className = "";
  $("status").replaceChildren(...parts);
}

function complain(error) {
  say(error.message);
  $("status").className = "error";
}

async function show() {
  const parameters = new URLSearchParams(location.search);
  const asked = ["q", "like", "sent"].find((key) => parameters.has(key));
  const name = asked ? `${asked}=${parameters.get(asked)}` : "";
  try {
    if (shown === null || shown.asked !== name) {
      const request = ++latest;
      const found = await ask(asked, parameters.get(asked));
      if (request !== latest) return;
      shown = { asked: name, hits: found.hits ?? [] };
      showHits();
      describe(asked, found);
    }
    const place = parameters.get("picture");
    if (place === null) hidePicture();
    else await showPicture(Number(place), wordsFor(Number(place), parameters), shown.hits);
  } catch (error) {
    complain(error);
  }
}

async function ask(asked, value) {
  $("query").value = asked === "q" ? value : "";
  if (!asked) return {};
  say("Searching ...");
  const k = about.limits.k;  // all at once: the slider then shows more without asking
  if (asked === "q") return fetchJson(`/api/search?${new URLSearchParams({ q: value, k })}`);
  if (asked === "like") return fetchJson(`/api/search?${new URLSearchParams({ like: value, k })}`);
  const picture = sent.get(value);
  if (!picture) throw new Error("That picture was not kept. Drop it again.");
  return fetchJson(`/api/search?${new URLSearchParams({ k })}`, { method: "POST", body: picture });
}

function wordsFor(place, parameters) {
  return parameters.get("words") ?? parameters.get("q") ?? shown.hits.find((hit) => hit.place === place)?.captions[0] ?? "";
}

function describe(asked, found) {
  $("asked").hidden = asked !== "like" && asked !== "sent";
  const count = `${about.pictures.toLocaleString("en")} pictures`;
  if (!asked) {
    const examples = about.examples.flat();
    document.title = "Search pictures";
    say(`Describe what you look for in ${count}${about.takes_pictures ? ", or drop a picture here" : ""}. `, ...examples.length ? ["For example: "] : []);
    examples.forEach((text, number) => {
      $("status").append(number ? " · " : "", moves(element("a", { href: `?${new URLSearchParams({ q: text })}`, textContent: text })));
    });
    return;
  }
  const best = `Best of ${count}`;
  if (asked === "q") {
    document.title = `${found.query} - search pictures`;
    const unknown = found.unknown_words.map((word) => `“${word}”`).join(", ");
    say(`${best} for “${found.query}”${about.reranked_by ? `, put in order by ${about.reranked_by}` : ""}.`, unknown ? ` The model does not know ${unknown}: left out of the search.` : "");
    return;
  }
  document.title = "Pictures like this - search pictures";
  say(`${best} like this one.`);
  const number = new URLSearchParams(location.search).get(asked);
  $("asked-picture").src = asked === "like" ? thumbnail(number) : URL.createObjectURL(sent.get(number));
  const captions = found.captions ?? [];
  $("asked-words").replaceChildren(
    element("p", { textContent: captions.length ? "Captions of the index that fit it best" : found.file ?? "" }),
    element("ul", {}, ...captions.map((text) => element("li", { textContent: text, dir: "auto" }))),
  );
}

function showHits() {
  $("hits").replaceChildren(...shown.hits.map((hit, rank) => card(hit, rank)));
  showAmount();
}

function card(hit, rank) {
  const caption = hit.captions[0] ?? hit.file;
  const image = element("img", { src: thumbnail(hit.place), alt: caption, loading: rank < 24 ? "eager" : "lazy", decoding: "async" });
  const frame = element("span", { className: "frame" }, image);
  frame.dataset.name = hit.file;
  const open = moves(element("a", { className: "open", href: address({ picture: hit.place, words: null }) },
    frame, element("span", { className: "caption", textContent: caption, dir: "auto" })));
  image.addEventListener("error", () => open.classList.add("missing"));
  const like = moves(element("a", { className: "like", href: `?like=${hit.place}`, textContent: "More like this" }));
  return element("li", {}, open, element("div", { className: "below" },
    element("span", { className: "score", textContent: hit.score.toFixed(3), title: scoreTitle() }), like));
}

// By words the pictures are in the order of the model that re-ranks, where there is one.
function scoreTitle() {
  if (about.reranked_by && shown.asked.startsWith("q=")) return `Score of ${about.reranked_by} for the picture and your words`;
  return "Cosine of the picture and your query";
}

function showAmount() {
  const amount = Number($("amount").value);
  $("amount-shown").value = amount;
  [...$("hits").children].forEach((item, rank) => { item.hidden = rank >= amount; });
}

function askWith(picture) {
  if (!picture) return;
  if (!about.takes_pictures) return complain(new Error("This index does not say what made its features, so you cannot search it by a picture."));
  if (picture.type && !picture.type.startsWith("image/")) return complain(new Error(`${picture.name} is not a picture.`));
  if (picture.size > about.limits.picture_bytes) {
    return complain(new Error(`${picture.name} is larger than ${about.limits.picture_bytes / 1e6} MB.`));
  }
  const number = String(sent.size + 1);
  sent.set(number, picture);
  go(`?sent=${number}`);
}

function listen() {
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("query").value.trim();
    if (text) go(`?${new URLSearchParams({ q: text })}`);
  });
  $("amount").addEventListener("input", showAmount);
  $("upload").addEventListener("change", () => {
    askWith($("upload").files[0]);
    $("upload").value = "";
  });
  addEventListener("popstate", show);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.matches("input") && !$("picture").open) {
      event.preventDefault();
      $("query").focus();
    }
  });
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    $("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
  addEventListener("drop", (event) => {
    $("drop").hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    askWith(event.dataTransfer.files[0]);
  });
}

listen();
try {
  about = await fetchJson("/api/index");
  setIndex(about);
  $("by-picture").hidden = !about.takes_pictures;
  await show();
} catch (error) {
  complain(error);
}
