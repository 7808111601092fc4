// The images of a session: they wait, are graded a few at a time, and stay until all is forgotten.

import { SignedOut, grade } from "./server.js";

const AT_ONCE = 4;

// Never begins anew, so that no two images of a page are of one number.
let numbered = 0;

export class Session {
  images = [];
  #waiting = [];
  #running = 0;
  #asked = 0;
  #end = new AbortController();
  #listener;

  constructor(listener) {
    this.#listener = listener;
  }

  get left() {
    return this.#waiting.length + this.#running;
  }

  get progress() {
    const bad = this.images.filter((image) => image.unreadable).length;
    if (this.left) return `${this.images.length} of ${this.#asked} answered …`;
    return this.#asked ? `${this.images.length} answered${bad ? `, ${bad} of them refused` : ""}.` : "";
  }

  give(files) {
    for (const file of files) {
      numbered += 1;
      this.#waiting.push({ number: numbered, name: file.name || "pasted image", file, answers: [], unreadable: null });
    }
    this.#asked += files.length;
  }

  go() {
    while (this.#running < AT_ONCE && this.#waiting.length) this.#grade(this.#waiting.shift());
  }

  // What is still on its way finds its session ended, and is dropped.
  end() {
    this.#end.abort();
    for (const image of this.images) URL.revokeObjectURL(image.picture);
  }

  async #grade(image) {
    this.#running += 1;
    let failed = null;
    try {
      image.answers = await grade(image.file, this.#end.signal);
    } catch (error) {
      failed = error;
    }
    this.#running -= 1;
    if (this.#end.signal.aborted) return;
    if (failed instanceof SignedOut) {
      // It waits for the token, as those behind it do.
      this.#waiting.push(image);
      this.#waiting.sort(byNumber);
      this.#listener.stopped(failed);
      return;
    }
    image.unreadable = failed?.message ?? null;
    image.picture = URL.createObjectURL(image.file);
    this.images.push(image);
    this.images.sort(byNumber);
    this.go();
    this.#listener.answered(image);
  }
}

const byNumber = (first, second) => first.number - second.number;
