// The page: images come in, are graded a few at a time, and stay for the session.

import { hideHeat, showHeat } from "./heat.js";
import { Refusal, ask, grade } from "./server.js";
import { csv } from "./table.js";
import { at, make, percent, showAnswer, showBeside } from "./view.js";

const AT_ONCE = 4;

const images = [];
const waiting = [];
const networks = new Map();
let [running, done, asked, shown, chosen] = [0, 0, 0, null, null];

function take(files) {
  for (const file of files) {
    asked += 1;
    waiting.push({ number: asked, name: file.name || "pasted image", file, answers: [], unreadable: null });
  }
  if (files.length) work();
}

function work() {
  say();
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    one(waiting.shift()).finally(() => {
      running -= 1;
      done += 1;
      work();
    });
  }
}

async function one(image) {
  try {
    image.answers = (await grade(image.file)).answers;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    image.unreadable = error.message;
  }
  image.picture = URL.createObjectURL(image.file);
  images.push(image);
  images.sort((first, second) => first.number - second.number);
  listAll();
  if (shown === null || image.number > shown.number) show(image);
}

function say() {
  const left = waiting.length + running;
  const bad = images.filter((image) => image.unreadable).length;
  at("status").textContent = left ? `${done} of ${asked} answered …` : asked ? `${done} answered${bad ? `, ${bad} of them refused` : ""}.` : "";
}

function show(image) {
  shown = image;
  at("answer").hidden = false;
  at("answer-title").textContent = image.name;
  at("unreadable").hidden = !image.unreadable;
  at("unreadable").textContent = image.unreadable ?? "";
  at("shown").hidden = image.unreadable !== null;
  hideHeat(image.picture, image.name);
  const said = image.answers.find((answer) => answer.network === chosen) ?? image.answers[0];
  showBeside(image.answers, networks, said?.network, choose);
  if (said) {
    showAnswer(said, networks.get(said.network));
    showHeat(image, said);
  }
  for (const button of at("images").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.number) === image.number));
  }
}

function choose(network) {
  chosen = network;
  listAll();
  show(shown);
  at("beside").querySelector(`input[value="${CSS.escape(network)}"]`).focus();
}

function listAll() {
  at("history").hidden = images.length === 0;
  at("images").replaceChildren(
    ...images.map((image) => {
      const said = image.answers.find((answer) => answer.network === chosen) ?? image.answers[0];
      const button = Object.assign(make("button"), { type: "button", onclick: () => { show(image); at("answer").focus(); } });
      button.dataset.number = image.number;
      button.setAttribute("aria-current", String(image === shown));
      const doubt = said && (said.referred || said.unusual.length) ? " – look yourself" : "";
      button.append(thumbnail(image), make("span", image.name), make("strong", said ? `${said.label}: ${percent(said.probability)}${doubt}` : "refused"));
      const item = make("li");
      item.append(button);
      return item;
    }),
  );
}

function thumbnail(image) {
  const picture = Object.assign(make("img"), { src: image.picture, alt: "" });
  picture.addEventListener("error", () => { picture.hidden = true; });
  return picture;
}

function forget() {
  for (const image of images) URL.revokeObjectURL(image.picture);
  images.length = 0;
  [done, asked, shown] = [0, waiting.length + running, null];
  at("answer").hidden = true;
  listAll();
  say();
  at("give").focus();
}

function save() {
  const address = URL.createObjectURL(new Blob([csv(images)], { type: "text/csv" }));
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
    const drawn = await (await ask(example.file.slice(1))).blob();
    take([new File([drawn], `${example.title} (drawn).jpg`, { type: drawn.type })]);
  });
  const item = make("li");
  item.append(button);
  return item;
}

const drop = at("drop");
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
for (const id of ["choose", "photograph"]) {
  at(id).addEventListener("change", () => { take([...at(id).files]); at(id).value = ""; });
}
at("save").addEventListener("click", save);
at("forget").addEventListener("click", forget);

for (const network of await (await ask("v1/models")).json()) networks.set(network.name, network);
chosen = networks.keys().next().value;
at("networks").tBodies[0].replaceChildren(...[...networks.values()].map(tellNetwork));
at("examples").replaceChildren(...(await (await ask("examples")).json()).map(tellExample));
document.body.dataset.ready = "yes";
