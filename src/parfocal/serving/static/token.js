// The dialog that asks for the token: once for all that wait for it, and not again after it was closed, until wanted.

import { SignedOut, reason } from "./refusal.js";
import { make } from "./view.js";

const WRONG = "This is not the token. Try again.";

let [signingIn, declined] = [null, false];

export const mayAskAgain = () => { declined = false; };

export function signIn() {
  if (declined) return Promise.reject(new SignedOut("This server asks for a token."));
  signingIn ??= asked().finally(() => { signingIn = null; });
  return signingIn;
}

function asked() {
  const [dialog, form, field, said] = drawn();
  return new Promise((done, refused) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const wrong = await refusal(field.value);
      said.textContent = wrong;
      if (!wrong) dialog.close("signed in");
    });
    dialog.addEventListener("close", () => {
      declined = dialog.returnValue === "";
      dialog.remove();
      if (declined) refused(new SignedOut("This server asks for a token."));
      else done();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function drawn() {
  const [dialog, form, title, label, said, go] = ["dialog", "form", "h2", "label", "p", "p"].map((kind) => make(kind));
  const field = Object.assign(make("input"), { type: "password", autocomplete: "current-password", required: true });
  title.textContent = "This server asks for a token";
  dialog.setAttribute("aria-label", title.textContent);
  label.append("Token ", field);
  said.setAttribute("role", "alert");
  go.append(make("button", "Go on"));
  form.append(title, label, said, go);
  dialog.append(form);
  return [dialog, form, field, said];
}

async function refusal(token) {
  // No header carries anything else, and no token has it.
  if (/[^\x20-\x7e]/.test(token)) return WRONG;
  const answer = await fetch("v1/session", { method: "POST", headers: { authorization: `Bearer ${token}` } }).catch(() => null);
  if (answer === null) return "The server does not answer. Is it still running?";
  if (answer.ok) return "";
  return answer.status === 401 ? WRONG : reason(answer);
}
