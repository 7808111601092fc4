// Requests to the server. All of them go through this file, so that only one place asks for a token.

import { signIn } from "./token.js";
import { ServerError, SignedOutError, readMessage } from "./errors.js";

export { ServerError, SignedOutError };

const MAX_RETRIES = 12;

export async function request(address, options = {}) {
  for (let retries = 0; ; retries += 1) {
    let response;
    try {
      response = await fetch(address, options);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ServerError("The server does not respond. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      await signIn();
    } else if (response.status === 503 && retries < MAX_RETRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get("retry-after") ?? 1)));
    } else {
      throw new ServerError(await readMessage(response));
    }
  }
}

export async function requestJson(address, options) {
  const response = await request(address, options);
  try {
    return await response.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new ServerError("The server's response is not valid JSON. Is there a proxy in between?");
  }
}

export async function predict(image, signal) {
  const result = (await requestJson("v1/predict", { method: "POST", body: image, signal })).images?.[0];
  if (!result) throw new ServerError("The server's response contains no image.");
  return result.predictions;
}

export const explain = (image, network, signal) =>
  requestJson(`v1/explain?as=values&network=${encodeURIComponent(network)}`, { method: "POST", body: image, signal });
