// The list of a session's images: each has one button for as long as the session lasts, so that a focus stays on it.

import { at, make, percent } from "./view.js";

const buttons = new Map();

export function list(image, place, said, choose) {
  const button = Object.assign(make("button"), { type: "button", onclick: () => choose(image) });
  button.append(thumbnail(image), make("span", image.name), make("strong"));
  button.setAttribute("aria-current", "false");
  const item = make("li");
  item.append(button);
  at("images").insertBefore(item, at("images").children[place] ?? null);
  buttons.set(image, button);
  label(image, said);
  at("history").hidden = false;
}

export function label(image, said) {
  const doubt = said && (said.referred || said.unusual.length) ? " – look yourself" : "";
  buttons.get(image).lastChild.textContent = said ? `${said.label}: ${percent(said.probability)}${doubt}` : "refused";
}

export function mark(shown) {
  for (const [image, button] of buttons) button.setAttribute("aria-current", String(image === shown));
}

export function clear() {
  buttons.clear();
  at("images").replaceChildren();
  at("history").hidden = true;
}

function thumbnail(image) {
  const picture = Object.assign(make("img"), { src: image.picture, alt: "" });
  picture.addEventListener("error", () => { picture.hidden = true; });
  return picture;
}
