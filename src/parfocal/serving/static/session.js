// The images of a session: they wait, are sent to the server a few at a time, and stay until the session is cleared.

import { SignedOutError, predict } from "./server.js";

const MAX_CONCURRENT = 4;

// Never reset, so that all images of a page have different numbers.
let lastNumber = 0;

export class Session {
  images = [];
  #waiting = [];
  #nRunning = 0;
  #nAdded = 0;
  #controller = new AbortController();
  #listener;

  constructor(listener) {
    this.#listener = listener;
  }

  get nUnfinished() {
    return this.#waiting.length + this.#nRunning;
  }

  get progress() {
    const nFailed = this.images.filter((image) => image.unreadable).length;
    if (this.nUnfinished) return `${this.images.length} of ${this.#nAdded} images processed …`;
    const processed = this.images.length === 1 ? "1 image processed" : `${this.images.length} images processed`;
    return this.#nAdded ? `${processed}${nFailed ? `, ${nFailed} failed` : ""}.` : "";
  }

  add(files) {
    for (const file of files) {
      lastNumber += 1;
      this.#waiting.push({ number: lastNumber, name: file.name || "pasted image", file, predictions: [], unreadable: null });
    }
    this.#nAdded += files.length;
  }

  process() {
    while (this.#nRunning < MAX_CONCURRENT && this.#waiting.length) this.#predict(this.#waiting.shift());
  }

  // Requests that are still running are cancelled, and their images are dropped.
  end() {
    this.#controller.abort();
    for (const image of this.images) URL.revokeObjectURL(image.url);
  }

  async #predict(image) {
    this.#nRunning += 1;
    let error = null;
    try {
      image.predictions = await predict(image.file, this.#controller.signal);
    } catch (caught) {
      error = caught;
    }
    this.#nRunning -= 1;
    if (this.#controller.signal.aborted) return;
    if (error instanceof SignedOutError) {
      // The image waits for the token, as those behind it do.
      this.#waiting.push(image);
      this.#waiting.sort(byNumber);
      this.#listener.onStop(error);
      return;
    }
    image.unreadable = error?.message ?? null;
    image.url = URL.createObjectURL(image.file);
    this.images.push(image);
    this.images.sort(byNumber);
    this.process();
    this.#listener.onResult(image);
  }
}

const byNumber = (first, second) => first.number - second.number;
