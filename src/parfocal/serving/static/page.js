// The page: images come in, are graded, and one of them is shown.

import { listen } from "./given.js";
import { hideHeat, showHeat, stopHeat } from "./heat.js";
import { clear, label, list, mark } from "./history.js";
import { Refusal, SignedOut, answerOf, ask } from "./server.js";
import { Session } from "./session.js";
import { csv } from "./table.js";
import { mayAskAgain } from "./token.js";
import { at, make, percent, showAnswer, showBeside } from "./view.js";

const networks = new Map();
let [chosen, shown, kept, trouble] = [null, null, false, ""];
let session = begin();

function begin() {
  return new Session({ answered, stopped });
}

function take(files) {
  if (!files.length) return;
  // New images are shown as they come, unless the user still looks at one while others wait.
  if (session.left === 0) kept = false;
  settle();
  session.give(files);
  go();
}

function go() {
  // Before the networks are known, images wait.
  if (networks.size) session.go();
  say();
}

function answered(image) {
  if (image.answers.some((answer) => !networks.has(answer.network))) {
    [image.answers, image.unreadable] = [[], "The server has other networks now. Load this page anew."];
  }
  list(image, session.images.indexOf(image), saidOf(image), pick);
  say();
  if (!kept && (shown === null || image.number > shown.number)) {
    // What has the focus there may be gone with the next image.
    if (at("answer").contains(document.activeElement)) at("give").focus({ preventScroll: true });
    show(image);
  }
  // Maps of images that only pass by would hold up the answers to the others.
  if (session.left === 0) explainShown();
}

function stopped(error) {
  trouble = error.message;
  if (error instanceof SignedOut || !networks.size) {
    at("again").textContent = error instanceof SignedOut ? "Sign in" : "Try again";
    at("again").hidden = false;
  }
  say();
  if (!(error instanceof Refusal)) reportError(error);
}

// A trouble that has a button stands until the button has helped.
function settle() {
  if (at("again").hidden) trouble = "";
}

function say() {
  at("status").textContent = [session.progress, trouble].filter(Boolean).join(" ");
}

const saidOf = (image) => image.answers.find((answer) => answer.network === chosen) ?? image.answers[0];

function show(image) {
  shown = image;
  at("answer").hidden = false;
  at("answer-title").textContent = image.name;
  at("unreadable").hidden = !image.unreadable;
  at("unreadable").textContent = image.unreadable ?? "";
  at("shown").hidden = image.unreadable !== null;
  hideHeat(image.picture, image.name);
  const said = saidOf(image);
  showBeside(image.answers, networks, said?.network, choose);
  if (said) {
    showAnswer(said, networks.get(said.network));
    at("heat-said").textContent = "The heat map follows when all images are answered.";
  }
  mark(image);
}

async function explainShown() {
  const said = shown && saidOf(shown);
  if (!said) return;
  try {
    await showHeat(shown, said);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error instanceof SignedOut) stopped(error);
  }
}

function pick(image) {
  kept = true;
  show(image);
  explainShown();
  at("answer").focus();
}

function choose(network) {
  chosen = network;
  for (const image of session.images) label(image, saidOf(image));
  show(shown);
  explainShown();
  at("beside").querySelector(`input[value="${CSS.escape(network)}"]`).focus();
}

function forget() {
  session.end();
  session = begin();
  [shown, kept] = [null, false];
  stopHeat();
  settle();
  at("answer").hidden = true;
  clear();
  say();
  at("give").focus();
}

function save() {
  const address = URL.createObjectURL(new Blob([csv(session.images)], { type: "text/csv" }));
  Object.assign(make("a"), { href: address, download: "parfocal.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function tellNetwork(network) {
  const [line, head, cell] = [make("tr"), make("th", network.name), make("td")];
  head.scope = "row";
  cell.append(Object.assign(make("a", "report"), { href: network.report.slice(1) }));
  cell.firstChild.setAttribute("aria-label", `Report of ${network.name}`);
  const accuracy = network.figures.valid?.accuracy;
  const calibrated = network.validated ? `${network.validated} images` : "nothing";
  line.append(head, make("td", network.classes.join(", ")), make("td", calibrated), make("td", accuracy == null ? "–" : percent(accuracy)), cell);
  return line;
}

function tellExample(example) {
  const button = Object.assign(make("button"), { type: "button" });
  button.append(Object.assign(make("img"), { src: example.file.slice(1), alt: "" }), make("span", example.title));
  button.addEventListener("click", async () => {
    const wanting = session;
    try {
      const drawn = await (await ask(example.file.slice(1))).blob();
      if (session === wanting) take([new File([drawn], `${example.title} (drawn).jpg`, { type: drawn.type })]);
    } catch (error) {
      stopped(error);
    }
  });
  const item = make("li");
  item.append(button);
  return item;
}

async function start() {
  trouble = "";
  say();
  mayAskAgain();
  try {
    const [loaded, examples] = [await answerOf("v1/models"), await answerOf("examples")];
    at("networks").tBodies[0].replaceChildren(...loaded.map(tellNetwork));
    at("examples").replaceChildren(...examples.map(tellExample));
    // Networks of before stay: images that they answered are still here.
    for (const network of loaded) networks.set(network.name, network);
  } catch (error) {
    stopped(error);
    return;
  }
  chosen ??= networks.keys().next().value;
  if (document.activeElement === at("again")) at("give").focus();
  at("again").hidden = true;
  go();
  if (session.left === 0) explainShown();
  document.body.dataset.ready = "yes";
}

listen(take);
// Whoever is in the answer reads it: other images come in beside, and do not take its place.
at("answer").addEventListener("focusin", () => { kept = true; });
at("save").addEventListener("click", save);
at("forget").addEventListener("click", forget);
at("again").addEventListener("click", start);
await start();
