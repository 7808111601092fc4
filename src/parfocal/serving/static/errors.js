// Errors of the server, as messages for the page.

export class ServerError extends Error {}

export class SignedOutError extends ServerError {}

export async function readMessage(response) {
  try {
    return (await response.json()).detail ?? `The server responded with status ${response.status}.`;
  } catch {
    return `The server responded with status ${response.status}.`;
  }
}
