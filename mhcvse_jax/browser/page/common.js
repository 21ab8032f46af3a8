// What both parts of the page use.

let fingerprint = "";  // of the index: pictures of another have other addresses

export const $ = (id) => document.getElementById(id);

export function setIndex(about) {
  fingerprint = about.fingerprint;
}

export const thumbnail = (place) => `/thumbnails/${place}?of=${fingerprint}`;
export const whole = (place) => `/pictures/${place}?of=${fingerprint}`;

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);  // text stays text: nothing from the index is ever read as markup
  return made;
}

export async function fetchJson(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is mhcvse serve still running?");
  }
  const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

export function address(changes) {
  const parameters = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) parameters.delete(key);
    else parameters.set(key, value);
  }
  return `?${parameters}`;
}

// Shows another address; what is there to be seen follows from it alone. `replace` leaves no step to go back to.
export function go(search, { replace = false } = {}) {
  if (replace) history.replaceState(history.state, "", search);
  else history.pushState({ ours: true }, "", search);
  dispatchEvent(new PopStateEvent("popstate"));
}

// Links of the page move within it; with a modifier key they open a tab as any link does.
export function moves(link, how) {
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    go(link.getAttribute("href"), how);
  });
  return link;
}
