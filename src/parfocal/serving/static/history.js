// The list of the images of a session. Each image keeps its button for the whole session, so that it keeps the focus.

import { byId, createElement, formatPercent } from "./view.js";

const buttons = new Map();

export function addToHistory(image, position, prediction, onSelect) {
  const button = Object.assign(createElement("button"), { type: "button", onclick: () => onSelect(image) });
  button.append(createThumbnail(image), createElement("span", image.name), createElement("strong"));
  button.setAttribute("aria-current", "false");
  const item = createElement("li");
  item.append(button);
  byId("images").insertBefore(item, byId("images").children[position] ?? null);
  buttons.set(image, button);
  updateHistory(image, prediction);
  byId("history").hidden = false;
}

export function updateHistory(image, prediction) {
  const note = prediction && (prediction.referred || prediction.unusual.length) ? " – please review" : "";
  buttons.get(image).lastChild.textContent = prediction ? `${prediction.label}: ${formatPercent(prediction.probability)}${note}` : "failed";
}

export function markCurrent(current) {
  for (const [image, button] of buttons) button.setAttribute("aria-current", String(image === current));
}

export function clearHistory() {
  buttons.clear();
  byId("images").replaceChildren();
  byId("history").hidden = true;
}

function createThumbnail(image) {
  const thumbnail = Object.assign(createElement("img"), { src: image.url, alt: "" });
  thumbnail.addEventListener("error", () => { thumbnail.hidden = true; });
  return thumbnail;
}
