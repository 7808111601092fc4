// Why the server does not answer, in words for the page.

export class Refusal extends Error {}

export class SignedOut extends Refusal {}

export async function reason(answer) {
  try {
    return (await answer.json()).detail ?? `The server answered ${answer.status}.`;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
