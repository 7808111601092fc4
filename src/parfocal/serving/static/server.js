// What the page asks of the server: everything goes through here, so that a token is asked for in one place.

import { signIn } from "./token.js";
import { Refusal, SignedOut, reason } from "./refusal.js";

export { Refusal, SignedOut };

const PATIENCE = 12;

export async function ask(address, options = {}) {
  for (let turn = 0; ; turn += 1) {
    let answer;
    try {
      answer = await fetch(address, options);
    } catch (error) {
      if (options.signal?.aborted) throw error;
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

export async function answerOf(address, options) {
  const answer = await ask(address, options);
  try {
    return await answer.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Refusal("The server's answer cannot be read. Is something between it and this page?");
  }
}

export async function grade(image, signal) {
  const said = (await answerOf("v1/grade", { method: "POST", body: image, signal })).images?.[0];
  if (!said) throw new Refusal("The server's answer holds no image.");
  return said.answers;
}

export const explain = (image, network, signal) =>
  answerOf(`v1/explain?as=values&network=${encodeURIComponent(network)}`, { method: "POST", body: image, signal });
