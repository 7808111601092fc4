// The dialog that asks for the token: once for all requests that wait for it. Closed, it stays closed until the user
// asks for it.

import { SignedOutError, readMessage } from "./errors.js";
import { createElement } from "./view.js";

const REQUIRED = "This server requires a token.";
const WRONG = "Wrong token. Try again.";

let signingIn = null;
let declined = false;

export const allowSignIn = () => { declined = false; };

export function signIn() {
  if (declined) return Promise.reject(new SignedOutError(REQUIRED));
  signingIn ??= showDialog().finally(() => { signingIn = null; });
  return signingIn;
}

function showDialog() {
  const { dialog, form, field, alert } = createDialog();
  return new Promise((resolve, reject) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const problem = await sendToken(field.value);
      alert.textContent = problem;
      if (!problem) dialog.close("signed in");
    });
    dialog.addEventListener("close", () => {
      declined = dialog.returnValue === "";
      dialog.remove();
      if (declined) reject(new SignedOutError(REQUIRED));
      else resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function createDialog() {
  const [dialog, form, title, label, alert, buttons] = ["dialog", "form", "h2", "label", "p", "p"].map((tag) => createElement(tag));
  const field = Object.assign(createElement("input"), { type: "password", autocomplete: "current-password", required: true });
  title.textContent = "This server requires a token";
  dialog.setAttribute("aria-label", title.textContent);
  label.append("Token ", field);
  alert.setAttribute("role", "alert");
  buttons.append(createElement("button", "Continue"));
  form.append(title, label, alert, buttons);
  dialog.append(form);
  return { dialog, form, field, alert };
}

// Send the token and return what is wrong with it, or nothing.
async function sendToken(token) {
  // A header can carry only these characters, and a token has no others.
  if (/[^\x20-\x7e]/.test(token)) return WRONG;
  const response = await fetch("v1/session", { method: "POST", headers: { authorization: `Bearer ${token}` } }).catch(() => null);
  if (response === null) return "The server does not respond. Is it still running?";
  if (response.ok) return "";
  return response.status === 401 ? WRONG : readMessage(response);
}
