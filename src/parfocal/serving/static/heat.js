// The heat map over an image. It is fetched once for each image and network; changing the class needs no new request.

import { explain } from "./server.js";
import { byId, createElement } from "./view.js";

let current = null;

// Cancel the request of a heat map that is no longer needed.
export function stopHeatmap() {
  current?.controller.abort();
  current = null;
}

export function hideHeatmap(original, name) {
  stopHeatmap();
  byId("original").src = original;
  byId("original").alt = name;
  byId("heatmap").hidden = true;
  byId("heatmap-controls").hidden = true;
  byId("heatmap-caption").textContent = "";
}

export async function showHeatmap(image, prediction) {
  if (current?.image === image && current.network === prediction.network) return;
  stopHeatmap();
  const requested = { image, network: prediction.network, controller: new AbortController() };
  current = requested;
  byId("heatmap-caption").textContent = "Computing the heat map …";
  image.maps ??= new Map();
  try {
    if (!image.maps.has(prediction.network)) {
      image.maps.set(prediction.network, await explain(image.file, prediction.network, requested.controller.signal));
    }
  } catch (error) {
    if (current !== requested) return;
    current = null;
    byId("heatmap-caption").textContent = error.message;
    throw error;
  }
  if (current === requested) draw(image.maps.get(prediction.network), prediction.label, image.name);
}

function draw(maps, label, name) {
  byId("original").src = maps.image;
  byId("original").alt = `${name}, as the network sees it`;
  const select = byId("heatmap-class");
  select.replaceChildren(...Object.keys(maps.heatmaps).map((key) => Object.assign(createElement("option", key), { value: key })));
  select.value = label in maps.heatmaps ? label : Object.keys(maps.heatmaps)[0];
  select.onchange = () => overlay(maps, select.value);
  byId("heatmap-controls").hidden = false;
  byId("heatmap").hidden = false;
  overlay(maps, select.value);
}

function overlay(maps, label) {
  byId("heatmap").src = maps.heatmaps[label];
  byId("heatmap").alt = `Heat map of the evidence for ${label}`;
  byId("heatmap-caption").textContent = `Warm: evidence for ${label}. Blue: evidence against it. Peak ${maps.peak[label].toFixed(2)}; all classes of this image share one color scale (${maps.scale.toFixed(2)}).`;
}

const applyOpacity = () => {
  byId("heatmap").style.opacity = byId("opacity").value / 100;
  byId("opacity-value").textContent = `${byId("opacity").value} %`;
};
byId("opacity").addEventListener("input", applyOpacity);
applyOpacity();
