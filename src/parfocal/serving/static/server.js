// What the page asks of the server: everything goes through here, so that a token is asked for in one place.

const PATIENCE = 12;

export class Refusal extends Error {}

export async function ask(address, options = {}) {
  for (let turn = 0; ; turn += 1) {
    let answer;
    try {
      answer = await fetch(address, options);
    } catch {
      throw new Refusal("The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      await signIn();
    } else if (answer.status === 503 && turn < PATIENCE) {
      await new Promise((go) => setTimeout(go, 1000 * Number(answer.headers.get("retry-after") ?? 1)));
    } else {
      throw new Refusal(await reason(answer));
    }
  }
}

export const grade = async (image) => (await (await ask("v1/grade", { method: "POST", body: image })).json()).images[0];

export const explain = async (image, network) =>
  (await ask(`v1/explain?as=values&network=${encodeURIComponent(network)}`, { method: "POST", body: image })).json();

async function reason(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

let signingIn = null;

function signIn() {
  signingIn ??= new Promise((done) => {
    const dialog = document.getElementById("ask");
    const field = document.getElementById("token");
    const form = document.getElementById("ask-form");
    const send = async (event) => {
      event.preventDefault();
      const headers = { authorization: `Bearer ${field.value}` };
      const answer = await fetch("v1/session", { method: "POST", headers }).catch(() => null);
      document.getElementById("ask-said").textContent = answer?.ok ? "" : "This is not the token. Try again.";
      if (!answer?.ok) return;
      form.removeEventListener("submit", send);
      field.value = "";
      dialog.close();
      signingIn = null;
      done();
    };
    form.addEventListener("submit", send);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return signingIn;
}
