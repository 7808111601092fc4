// The dialog that asks for the token: once for all that wait for it, and not again after it was closed, until wanted.

import { SignedOut, reason } from "./refusal.js";

const WRONG = "This is not the token. Try again.";

let [signingIn, declined] = [null, false];

export const mayAskAgain = () => { declined = false; };

export function signIn() {
  if (declined || !document.getElementById("ask")) return Promise.reject(new SignedOut("This server asks for a token."));
  signingIn ??= asked().finally(() => { signingIn = null; });
  return signingIn;
}

function asked() {
  const dialog = document.getElementById("ask");
  const field = document.getElementById("token");
  const form = document.getElementById("ask-form");
  return new Promise((done, refused) => {
    const send = async (event) => {
      event.preventDefault();
      const wrong = await refusal(field.value);
      document.getElementById("ask-said").textContent = wrong;
      if (!wrong) dialog.close("signed in");
    };
    const closed = () => {
      form.removeEventListener("submit", send);
      field.value = document.getElementById("ask-said").textContent = "";
      declined = dialog.returnValue === "";
      if (declined) refused(new SignedOut("This server asks for a token."));
      else done();
    };
    form.addEventListener("submit", send);
    dialog.addEventListener("close", closed, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
}

async function refusal(token) {
  // No header carries anything else, and no token has it.
  if (/[^\x20-\x7e]/.test(token)) return WRONG;
  const answer = await fetch("v1/session", { method: "POST", headers: { authorization: `Bearer ${token}` } }).catch(() => null);
  if (answer === null) return "The server does not answer. Is it still running?";
  if (answer.ok) return "";
  return answer.status === 401 ? WRONG : reason(answer);
}
