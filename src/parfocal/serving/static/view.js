// What is shown of one image: the answer of the chosen network, and all networks beside it.

export const at = (id) => document.getElementById(id);

export function make(kind, text = "", name = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

export const percent = (share) => {
  const shown = (100 * share).toFixed(1);
  return share < 1 && shown === "100.0" ? "over 99.9\u00a0%" : share > 0 && shown === "0.0" ? "under 0.1\u00a0%" : `${shown}\u00a0%`;
};

// Each remark in a sentence, in a few words, and how grave it is.
function remarks(said, network) {
  const told = [];
  if (said.referred) told.push(["Refer to a human: the network is not sure enough.", "refer to a human", "warn"]);
  if (said.unusual.length) {
    told.push([`Out of the ordinary (${said.unusual.join(", ")}): validation had no such images.`, "out of the ordinary", "warn"]);
  }
  if (said.positive !== null && network.operating) {
    const about = network.operating.positive;
    told.push(said.positive ? [`Positive: ${about}.`, "positive", "bad"] : [`Negative: not ${about}.`, "negative", ""]);
  }
  return told;
}

function meaning(said, network) {
  if (!network.validated) return `${network.name} is not calibrated: take the numbers as an order, not as chances.`;
  const calibrated = `Calibrated on ${network.validated} images of validation`;
  if (said.unusual.length) return `${calibrated}, which this image is unlike: the number need not hold for it.`;
  const hundred = Math.round(100 * said.probability);
  const many = hundred === 100 ? "nearly all" : hundred === 0 ? "hardly one" : `about ${hundred}`;
  return `${calibrated}: of 100 images like them that it gives this number, ${many} are ${said.label}.`;
}

export function showAnswer(said, network) {
  at("label").textContent = `${said.label}: ${percent(said.probability)}`;
  at("meaning").textContent = meaning(said, network);
  at("flags").replaceChildren(...remarks(said, network).map(([text, , kind]) => make("li", text, `flag ${kind}`)));
  at("bars").tBodies[0].replaceChildren(...Object.entries(said.probabilities).map(([name, share]) => bar(name, share, name === said.label)));
  at("operating").textContent = network.operating
    ? `Operating point: ${network.operating.wish}. ${network.operating.positive} is answered positive${network.operating.wish === "kappa" ? "." : ` from ${percent(network.operating.threshold)} on.`}`
    : "";
}

export function showBeside(answers, networks, chosen, choose) {
  at("beside").hidden = answers.length < 2;
  at("beside").querySelector("tbody").replaceChildren(...answers.map((said) => row(said, networks.get(said.network), said.network === chosen, choose)));
}

function bar(name, share, answered) {
  const line = make("tr", "", answered ? "answered" : "");
  const head = make("th", name);
  head.scope = "row";
  const [frame, fill, cell] = [make("div", "", "bar"), make("div"), make("td")];
  fill.style.width = `${100 * share}%`;
  frame.setAttribute("aria-hidden", "true");
  frame.append(fill);
  cell.append(frame);
  line.append(head, cell, make("td", percent(share)));
  return line;
}

function row(said, network, chosen, choose) {
  const [line, head, label, button] = [make("tr", "", chosen ? "answered" : ""), make("th"), make("label"), make("input")];
  Object.assign(button, { type: "radio", name: "network", value: said.network, checked: chosen });
  button.addEventListener("change", () => choose(said.network));
  label.append(button, said.network);
  head.scope = "row";
  head.append(label);
  line.append(head, make("td", said.label), make("td", percent(said.probability)), make("td", remarks(said, network).map(([, text]) => text).join("; ")));
  return line;
}
