// The page: images are added and classified, and one of them is shown.

import { listenForImages } from "./inputs.js";
import { hideHeatmap, showHeatmap, stopHeatmap } from "./heat.js";
import { addToHistory, clearHistory, markCurrent, updateHistory } from "./history.js";
import { ServerError, SignedOutError, request, requestJson } from "./server.js";
import { Session } from "./session.js";
import { formatCsv } from "./table.js";
import { allowSignIn } from "./token.js";
import { byId, createElement, formatPercent, showComparison, showPrediction } from "./view.js";

const networks = new Map();
let selectedNetwork = null;
let currentImage = null;
let isPinned = false; // The user looks at an image: new results do not replace it.
let problem = "";
let session = createSession();

function createSession() {
  return new Session({ onResult, onStop });
}

function addFiles(files) {
  if (!files.length) return;
  // New images are shown as they come, unless the user still looks at one while others wait.
  if (session.nUnfinished === 0) isPinned = false;
  resetProblem();
  session.add(files);
  processImages();
}

function processImages() {
  // Images wait until the networks are known.
  if (networks.size) session.process();
  showStatus();
}

function onResult(image) {
  if (image.predictions.some((prediction) => !networks.has(prediction.network))) {
    image.predictions = [];
    image.unreadable = "The server has loaded different networks. Reload this page.";
  }
  addToHistory(image, session.images.indexOf(image), findPrediction(image), selectImage);
  showStatus();
  if (!isPinned && (currentImage === null || image.number > currentImage.number)) {
    // The element that has the focus may disappear with the next image.
    if (byId("result").contains(document.activeElement)) byId("inputs").focus({ preventScroll: true });
    showImage(image);
  }
  // Heat maps of images that are shown only for a moment would delay the predictions for the others.
  if (session.nUnfinished === 0) explainCurrent();
}

function onStop(error) {
  problem = error.message;
  if (error instanceof SignedOutError || !networks.size) {
    byId("retry").textContent = error instanceof SignedOutError ? "Sign in" : "Try again";
    byId("retry").hidden = false;
  }
  showStatus();
  if (!(error instanceof ServerError)) reportError(error);
}

// A problem that has a button stays until the button has solved it.
function resetProblem() {
  if (byId("retry").hidden) problem = "";
}

function showStatus() {
  byId("status").textContent = [session.progress, problem].filter(Boolean).join(" ");
}

const findPrediction = (image) => image.predictions.find(({ network }) => network === selectedNetwork) ?? image.predictions[0];

function showImage(image) {
  currentImage = image;
  byId("result").hidden = false;
  byId("result-title").textContent = image.name;
  byId("unreadable").hidden = !image.unreadable;
  byId("unreadable").textContent = image.unreadable ?? "";
  byId("result-details").hidden = image.unreadable !== null;
  hideHeatmap(image.url, image.name);
  const prediction = findPrediction(image);
  showComparison(image.predictions, networks, prediction?.network, selectNetwork);
  if (prediction) {
    showPrediction(prediction, networks.get(prediction.network));
    byId("heatmap-caption").textContent = "The heat map is computed after all images are processed.";
  }
  markCurrent(image);
}

async function explainCurrent() {
  const prediction = currentImage && findPrediction(currentImage);
  if (!prediction) return;
  try {
    await showHeatmap(currentImage, prediction);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    if (error instanceof SignedOutError) onStop(error);
  }
}

function selectImage(image) {
  isPinned = true;
  showImage(image);
  explainCurrent();
  byId("result").focus();
}

function selectNetwork(network) {
  selectedNetwork = network;
  for (const image of session.images) updateHistory(image, findPrediction(image));
  showImage(currentImage);
  explainCurrent();
  byId("comparison").querySelector(`input[value="${CSS.escape(network)}"]`).focus();
}

function clearSession() {
  session.end();
  session = createSession();
  currentImage = null;
  isPinned = false;
  stopHeatmap();
  resetProblem();
  byId("result").hidden = true;
  clearHistory();
  showStatus();
  byId("inputs").focus();
}

function downloadCsv() {
  const url = URL.createObjectURL(new Blob([formatCsv(session.images)], { type: "text/csv" }));
  Object.assign(createElement("a"), { href: url, download: "parfocal.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function createNetworkRow(network) {
  const row = createElement("tr");
  const heading = createElement("th", network.name);
  const cell = createElement("td");
  heading.scope = "row";
  cell.append(Object.assign(createElement("a", "report"), { href: network.report.slice(1) }));
  cell.firstChild.setAttribute("aria-label", `Report of ${network.name}`);
  const accuracy = network.metrics.valid?.accuracy;
  const calibration = network.n_calibration_images ? `${network.n_calibration_images} images` : "not calibrated";
  row.append(
    heading,
    createElement("td", network.classes.join(", ")),
    createElement("td", calibration),
    createElement("td", accuracy == null ? "–" : formatPercent(accuracy)),
    cell,
  );
  return row;
}

function createExampleItem(example) {
  const button = Object.assign(createElement("button"), { type: "button" });
  button.append(Object.assign(createElement("img"), { src: example.file.slice(1), alt: "" }), createElement("span", example.title));
  button.addEventListener("click", async () => {
    const clickedIn = session;
    try {
      const blob = await (await request(example.file.slice(1))).blob();
      if (session === clickedIn) addFiles([new File([blob], `${example.title} (synthetic).jpg`, { type: blob.type })]);
    } catch (error) {
      onStop(error);
    }
  });
  const item = createElement("li");
  item.append(button);
  return item;
}

async function start() {
  problem = "";
  showStatus();
  allowSignIn();
  try {
    const loaded = await requestJson("v1/models");
    const examples = await requestJson("examples");
    byId("networks").tBodies[0].replaceChildren(...loaded.map(createNetworkRow));
    byId("examples").replaceChildren(...examples.map(createExampleItem));
    // Earlier networks stay: the session still shows their predictions.
    for (const network of loaded) networks.set(network.name, network);
  } catch (error) {
    onStop(error);
    return;
  }
  selectedNetwork ??= networks.keys().next().value;
  if (document.activeElement === byId("retry")) byId("inputs").focus();
  byId("retry").hidden = true;
  processImages();
  if (session.nUnfinished === 0) explainCurrent();
  document.body.dataset.ready = "yes";
}

listenForImages(addFiles);
// While the focus is in the result, the user reads it: other images do not replace it.
byId("result").addEventListener("focusin", () => { isPinned = true; });
byId("download").addEventListener("click", downloadCsv);
byId("clear").addEventListener("click", clearSession);
byId("retry").addEventListener("click", start);
await start();
