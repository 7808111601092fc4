// The view of one image: the prediction of the selected network, and a table of all networks.

export const byId = (id) => document.getElementById(id);

export function createElement(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

export const formatPercent = (share) => {
  const text = (100 * share).toFixed(1);
  if (share < 1 && text === "100.0") return "over 99.9\u00a0%";
  if (share > 0 && text === "0.0") return "under 0.1\u00a0%";
  return `${text}\u00a0%`;
};

// The notes on a prediction: each as a sentence, as a few words, and with its severity.
function listNotes(prediction, network) {
  const notes = [];
  if (prediction.referred) {
    notes.push({ text: "Refer to a human: the network is not certain enough.", short: "refer to a human", severity: "warn" });
  }
  if (prediction.unusual.length) {
    const features = prediction.unusual.join(", ");
    notes.push({ text: `Unusual image (${features}): out-of-distribution, compared with the validation images.`, short: "unusual image", severity: "warn" });
  }
  if (prediction.positive !== null && network.operating_point) {
    const meaning = network.operating_point.positive;
    if (prediction.positive) notes.push({ text: `Positive: ${meaning}.`, short: "positive", severity: "bad" });
    else notes.push({ text: `Negative: not ${meaning}.`, short: "negative", severity: "" });
  }
  return notes;
}

function describeProbability(prediction, network) {
  if (!network.n_calibration_images) return `${network.name} is not calibrated: use the probabilities only to rank the classes.`;
  const calibrated = `Calibrated on ${network.n_calibration_images} validation images`;
  if (prediction.unusual.length) return `${calibrated}, but this image is unlike them: the probability may be wrong.`;
  const percent = Math.round(100 * prediction.probability);
  const share = percent === 100 ? "nearly all" : percent === 0 ? "almost none" : `about ${percent}`;
  return `${calibrated}: of 100 such images with this probability, ${share} are ${prediction.label}.`;
}

export function showPrediction(prediction, network) {
  byId("prediction").textContent = `${prediction.label}: ${formatPercent(prediction.probability)}`;
  byId("calibration").textContent = describeProbability(prediction, network);
  byId("notes").replaceChildren(...listNotes(prediction, network).map(({ text, severity }) => createElement("li", text, `note ${severity}`)));
  byId("probabilities").tBodies[0].replaceChildren(
    ...Object.entries(prediction.probabilities).map(([name, share]) => createBar(name, share, name === prediction.label)),
  );
  const point = network.operating_point;
  byId("operating-point").textContent = point
    ? `Operating point: ${point.goal}. An image is positive (${point.positive}) from a probability of ${formatPercent(point.threshold)}.`
    : "";
}

export function showComparison(predictions, networks, selected, onSelect) {
  byId("comparison").hidden = predictions.length < 2;
  byId("comparison").querySelector("tbody").replaceChildren(
    ...predictions.map((prediction) => createRow(prediction, networks.get(prediction.network), prediction.network === selected, onSelect)),
  );
}

function createBar(name, share, isPredicted) {
  const row = createElement("tr", "", isPredicted ? "selected" : "");
  const heading = createElement("th", name);
  const frame = createElement("div", "", "bar");
  const fill = createElement("div");
  const cell = createElement("td");
  heading.scope = "row";
  fill.style.width = `${100 * share}%`;
  frame.setAttribute("aria-hidden", "true");
  frame.append(fill);
  cell.append(frame);
  row.append(heading, cell, createElement("td", formatPercent(share)));
  return row;
}

function createRow(prediction, network, isSelected, onSelect) {
  const row = createElement("tr", "", isSelected ? "selected" : "");
  const heading = createElement("th");
  const label = createElement("label");
  const radio = Object.assign(createElement("input"), { type: "radio", name: "network", value: prediction.network, checked: isSelected });
  radio.addEventListener("change", () => onSelect(prediction.network));
  label.append(radio, prediction.network);
  heading.scope = "row";
  heading.append(label);
  const notes = listNotes(prediction, network).map(({ short }) => short).join("; ");
  row.append(heading, createElement("td", prediction.label), createElement("td", formatPercent(prediction.probability)), createElement("td", notes));
  return row;
}
