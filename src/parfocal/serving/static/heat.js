// The heat map over an image: fetched once for each image and network, its classes switched without asking again.

import { explain } from "./server.js";
import { at, make } from "./view.js";

let shown = null;

// A map that nobody waits for any more is not fetched to its end.
export function stopHeat() {
  shown?.stop.abort();
  shown = null;
}

export function hideHeat(original, name) {
  stopHeat();
  at("original").src = original;
  at("original").alt = name;
  at("heat").hidden = true;
  at("heat-controls").hidden = true;
  at("heat-said").textContent = "";
}

export async function showHeat(image, said) {
  if (shown?.image === image && shown.network === said.network) return;
  stopHeat();
  const wanted = { image, network: said.network, stop: new AbortController() };
  shown = wanted;
  at("heat-said").textContent = "The heat map is being made …";
  image.maps ??= new Map();
  try {
    if (!image.maps.has(said.network)) image.maps.set(said.network, await explain(image.file, said.network, wanted.stop.signal));
  } catch (error) {
    if (shown !== wanted) return;
    shown = null;
    at("heat-said").textContent = error.message;
    throw error;
  }
  if (shown === wanted) draw(image.maps.get(said.network), said.label, image.name);
}

function draw(maps, label, name) {
  at("original").src = maps.image;
  at("original").alt = `${name}, as the network sees it`;
  const choice = at("heat-class");
  choice.replaceChildren(...Object.keys(maps.heat).map((one) => Object.assign(make("option", one), { value: one })));
  choice.value = label in maps.heat ? label : Object.keys(maps.heat)[0];
  choice.onchange = () => lay(maps, choice.value);
  at("heat-controls").hidden = false;
  at("heat").hidden = false;
  lay(maps, choice.value);
}

function lay(maps, answer) {
  at("heat").src = maps.heat[answer];
  at("heat").alt = `Heat map of what speaks for ${answer}`;
  at("heat-said").textContent = `Warm: what speaks for ${answer}; blue: what speaks against it. Peak ${maps.peak[answer].toFixed(2)}, one scale (${maps.scale.toFixed(2)}) for all classes of the image.`;
}

const fade = () => {
  at("heat").style.opacity = at("opacity").value / 100;
  at("opacity-said").textContent = `${at("opacity").value} %`;
};
at("opacity").addEventListener("input", fade);
fade();
